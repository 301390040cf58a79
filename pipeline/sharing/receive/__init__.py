"""What arrives: fetch, verify, load and pool bundles, and what a receiver remembers."""
