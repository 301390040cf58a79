"""From rows to events of stays: every row used, or dropped for a named reason."""
