"""Three published condensers that kernel matching beats on every receiver in docs/condensation.md, as plug-ins."""
