"""What every instance passes between the wire that brings it, C-STORE or STOW-RS, and the intake."""
