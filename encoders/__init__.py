"""Keyed encodings of prepared series: identity, random quantum encoding, random projection [Enc]."""
