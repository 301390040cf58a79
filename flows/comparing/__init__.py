"""`decoct condense --compare`: condensers beside one another on the tuning stays."""
