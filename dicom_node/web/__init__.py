"""What people see: the node's page, its metrics and its health, over HTTP."""
