"""The search of every released byte for what must not leave."""
