"""Secrets and what is derived from them: sub-keys, key streams, privacy noise; who holds a key."""
