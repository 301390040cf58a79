"""The stages as plain functions of a job and digests; `flows.run` makes Prefect tasks of them."""
