"""What a source's tables, columns, codes and units mean: the TOML mapping, and a draft of one."""
