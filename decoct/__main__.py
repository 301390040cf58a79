"""`python -m decoct` and the script `decoct`: one command, after the check that all of it is Decoct's own."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from flows.cli.start import main as command_line

    command_line()


if __name__ == "__main__":
    main()
