"""The command line: `main` gathers the commands, one file per command, in the panels of `decoct --help`."""
