"""Leakage audit: attacks on what would be shared, each with its controls; imports nothing that it audits."""
