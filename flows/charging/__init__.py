"""Before noise is drawn: can the run end in a release, and what is its query charged to."""
