"""A private teacher: what it asks, how it learns, what it says, and the samples that carry it."""
