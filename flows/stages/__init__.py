"""The stages as plain functions of a job and digests; `flows.tasks` makes Prefect tasks of them."""
