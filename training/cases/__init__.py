"""Data sets as they come from others: every layout gives the same frozen `Case`, placed in patient millimetres."""
