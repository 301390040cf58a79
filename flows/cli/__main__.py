"""`python -m flows.cli`: the command line where the script `decoct` is not on the path."""

from flows.cli.start import main

main()
