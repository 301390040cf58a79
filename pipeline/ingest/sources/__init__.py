"""Source formats: one reader per file, found by name in `readers`."""
