"""The site report: one record of a run, told as a self-contained page and as plain JSON. Restricted, never released."""
