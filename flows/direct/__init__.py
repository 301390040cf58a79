"""What a notebook calls without a run: condense an encoded cohort, look at a workspace; nothing here writes one."""
