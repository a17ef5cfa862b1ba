"""What the node holds: files on disk, and the index that is the truth about them."""
