"""The audit of anybody's tables: columns as channels, rows as a scene."""
