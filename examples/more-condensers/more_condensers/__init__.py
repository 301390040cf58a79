"""Three published condensers that kernel matching beats in docs/benchmarks/condensing.md, as plug-ins."""
