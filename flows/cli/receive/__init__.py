"""Commands for whoever receives bundles."""
