"""What we ask of peers: C-ECHO, C-FIND, C-STORE and storage commitment."""
