"""The commands in five panels, in the order of use, and what the top level adds to each: `-h`, `--version`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from pipeline.core.errors import UsageError

PANELS: Final[Mapping[str, Mapping[str, str]]] = {
    "Make": {
        "demo": "Run everything on real, embedded ICU stays.",
        "config": "Write and check configuration files.",
        "run": "Run the whole pipeline, or a part with --until.",
        "night": "One unattended run, for a scheduler.",
        "schedule": "Stay here and run when the schedule says.",
    },
    "Look": {
        "show": "What is in the store: names, dates, sizes.",
        "status": "State of the nights, for a monitoring system.",
        "fleet": "State of many sites, from signed notices.",
        "watch": "Make the page over all runs and releases.",
        "audit-history": "The worst figure of every audit, over time.",
        "audit-diff": "What changed from one audit to another.",
        "audit-tables": "Attack a synthetic table of any tool.",
        "doctor": "Check this machine and this workspace.",
    },
    "Release": {
        "release": "Propose, approve and publish a set.",
        "send": "Put a bundle into a folder or object store.",
    },
    "Receive": {
        "fetch": "Bring a bundle here and verify it.",
        "verify": "Check a bundle offline against a trust root.",
        "receive": "Verify a bundle and unpack its arrays.",
        "pool": "Make one training set of several bundles.",
        "evaluate": "Test a bundle on your own stays.",
    },
    "Keep": {
        "keys": "Secrets of a workspace, and who holds them.",
        "trust": "Whose keys count for what.",
        "ledger": "Privacy budget spent and left.",
        "log": "Who did what with which release.",
        "store": "Check the store, and clean it up.",
        "forget": "Leave withdrawn subjects out from now on.",
    },
}
"""Each command with what it does in a line; its own help says more."""
_TO: Final = (("config", "init"), ("receive",), ("pool",), ("fetch",), ("audit-tables",))
"""Commands that write to a place of their own, which they call `--to`; `--out` is a workspace everywhere."""

_HELP: Final = (
    "From a hospital's ICU time series to a small, audited, signed set that another institution can train on.\n\n"
    "Start with: decoct demo. On your own data: decoct config init --to run.toml, then decoct run run.toml.\n\n"
    "Exit codes: 0 done, 2 usage, 10 configuration, 11 input data, 12 utility floor, 13 leakage, 14 release refused, "
    "15 environment, 16 drift, 17 privacy budget, 130 interrupted (143 by SIGTERM, 129 by SIGHUP)."
)


class PanelGroup(TyperGroup):
    """The help in panels; a command that is in none of them stands under "More"."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the panels."""
        shown = [name for name in self.list_commands(ctx) if not self.commands[name].hidden]
        placed = {name for names in PANELS.values() for name in names}
        width = max(map(len, shown), default=0)
        rest = {name: self.commands[name].get_short_help_str(50) for name in shown if name not in placed}
        panels = {**PANELS, "More": rest}
        for title, names in panels.items():
            rows = [(f"{name:<{width}}", does) for name, does in names.items() if name in shown]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the earlier `--out` of the commands that now say `--to`."""
        for words in _TO:
            if tuple(args[: len(words)]) == words and "--out" in args:
                print(f"decoct: {' '.join(words)} now says --to for --out", file=sys.stderr)
                args = ["--to" if word == "--out" else word for word in args]
        return super().parse_args(ctx, args)


def tell_version(asked: bool) -> None:
    """Print the version and end."""
    if asked:
        from importlib.metadata import version

        print(f"decoct {version('decoct')}")
        raise typer.Exit


def new_app() -> typer.Typer:
    """A command line without commands yet, by the name of `decoct`."""
    app = typer.Typer(
        name="decoct",
        cls=PanelGroup,
        context_settings={"help_option_names": ["-h", "--help"]},
        no_args_is_help=True,
        add_completion=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        help=_HELP,
    )
    app.callback()(_top)
    return app


def _top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=tell_version, is_eager=True)
    ] = False,
) -> None:
    """Nothing of its own: what every command has in common."""


def require_there(path: Path | None, what: str) -> None:
    """A path that the user typed leads somewhere, before anything is made of what lies there.

    Raises:
        UsageError: it does not; names both.
    """
    if path is not None and not path.exists():
        raise UsageError(f"there is no {what} at {path}")


def require_bundle(folder: Path) -> None:
    """The folder is there and looks like a bundle; whether it is one that may be used, verification says.

    Raises:
        UsageError: no such folder, or none of a bundle's files is in it.
    """
    require_there(folder, "bundle")
    if not folder.is_dir() or not any((folder / name).exists() for name in ("manifest.json", "envelope.dsse.json")):
        raise UsageError(f"{folder} is not a bundle: it has neither manifest.json nor envelope.dsse.json")
