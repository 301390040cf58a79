"""Records in disguise: views that do not see it, what strangers reach in them, and what is planted."""
