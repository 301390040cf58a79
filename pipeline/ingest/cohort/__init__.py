"""From events to a cohort on a regular grid, and from a cohort to series in [0, 1]."""
