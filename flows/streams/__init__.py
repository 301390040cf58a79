"""Nights of a stream: who enters tonight, and the set that follows."""
