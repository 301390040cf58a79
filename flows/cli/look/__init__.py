"""Commands that look at what was made."""
