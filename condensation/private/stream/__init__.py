"""A private set on every night, all nights for the price of one query."""
