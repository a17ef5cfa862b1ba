"""The GPU side: from a series of the archive to findings and reports."""
