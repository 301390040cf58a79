"""Drafts of mappings: what a folder of tables looks like, and what of it has a meaning that is known."""
