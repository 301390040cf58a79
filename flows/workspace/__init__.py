"""A workspace on disk: jobs, locks, logs, releases, the ledger's subjects, and taking things out again."""
