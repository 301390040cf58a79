"""What makes one doubt the values of a source: noted with a count, and never mended."""
