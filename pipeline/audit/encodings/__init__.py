"""Attacks on encodings: what an encoded cohort tells of the series behind it."""
