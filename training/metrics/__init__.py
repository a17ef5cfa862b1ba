"""How well an algorithm reads: figures, each with the interval in which it would lie for other patients."""
