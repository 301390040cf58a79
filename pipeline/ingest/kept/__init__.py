"""Rows on disk: parsed pieces kept from run to run, rows that are more than memory, and which files changed."""
