"""The pipeline end to end: `run` is its one page; the command line, workspaces, schedules, the watch page around it."""
