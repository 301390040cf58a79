"""`decoct doctor`: whether machine and workspace are fit to run."""
