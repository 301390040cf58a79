"""Whose word counts: keys, signatures, the trust root, revocations, the append-only log."""
