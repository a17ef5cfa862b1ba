"""What we ask of peers: C-ECHO and C-STORE."""
