"""Scheduled runs: one run with its record and notices, the schedule, and Prefect deployments."""
