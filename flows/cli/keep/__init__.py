"""Commands that keep keys, trust, records and the store in order."""
