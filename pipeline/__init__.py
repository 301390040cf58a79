"""Decoct's stages: what turns a cohort into something small that can be shared, each stage in a room of its own."""
