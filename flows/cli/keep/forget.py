"""`decoct forget`: a patient withdraws."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from flows.cli.common import AsJson, Out, print_json
from pipeline.core.errors import UsageError

NEVER: Final = (
    "ids are never given on the command line, where the shell's history and every user of this machine see them; "
    "put them into a file for --ids, or write them to standard input"
)


def forget(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="CONFIG", help="The run's TOML file.", show_default=False)
    ] = None,
    ids: Annotated[
        str, typer.Option(help="A file with one subject id a line; - is standard input.", show_default="-")
    ] = "-",
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Leave withdrawn subjects out of every later reading, and remove what was made with them.

    Ids come from a file or from standard input, one a line, as the source writes them; never as an argument. Epsilon
    that was spent stays spent, and a release that was published cannot be called back: the command names it and says
    how to revoke it. Run it again with the same ids if it was interrupted.

    Example: decoct forget night.toml --ids withdrawn.txt

    From another program: consent-register --withdrawn | decoct forget night.toml
    """
    config = _only_a_configuration(words or [])
    from flows.environment import quiet
    from pipeline.core.config import load_config

    workspace = load_config(config).workspace if out is None else out.resolve()
    if not workspace.exists():
        raise UsageError(f"there is no workspace at {workspace}; name it with --out")
    quiet(workspace)
    from flows.workspace.locks import workspace_lock
    from flows.workspace.removing.forgetting import forget as forget_subjects
    from flows.workspace.removing.forgetting import read_ids
    from pipeline.core.redaction import scrubbed

    asked = read_ids(_lines(ids))
    with workspace_lock(workspace, "decoct forget"), scrubbed("forget"):
        done = forget_subjects(workspace, asked)
    if as_json:
        print_json(dataclasses.asdict(done))
        return
    print(f"ids     {done.asked} given, {done.new} new on the list, {done.not_found} in no cohort of this workspace")
    for kind, count in done.purged.items():
        print(f"purged  {count:>6}  {kind}")
    print(f"freed   {done.bytes_freed} bytes; {done.cohorts} cohorts held one of them")
    for item in done.released:
        print(f"cannot be called back: {item['bundle']}, made with one of them")
        print(f'        decoct trust revoke revocations.json --root root.json --release "{item["release"]}"')
    if ids != "-":
        print(f"next    delete {ids}, which still names them; then decoct run, for a release without them")


def _only_a_configuration(words: list[str]) -> Path:
    """The one argument there may be. Whatever else it is, it is not repeated: it may be an id."""
    if not words:
        raise UsageError("name the run's TOML file: decoct forget run.toml --ids FILE")
    if len(words) > 1 or not (words[0].endswith(".toml") or Path(words[0]).is_file()):
        raise UsageError(f"forget takes one argument, the run's TOML file; {NEVER}")
    return Path(words[0])


def _lines(ids: str) -> list[str]:
    try:
        if ids != "-":
            return Path(ids).read_text(encoding="utf-8-sig").splitlines()
        if sys.stdin.isatty():
            print("ids, one a line; end with Ctrl-D:", file=sys.stderr)
        return sys.stdin.read().splitlines()
    except FileNotFoundError:
        raise UsageError(f"--ids names no file; {NEVER}") from None
    except (OSError, UnicodeDecodeError):
        raise UsageError("the ids cannot be read as UTF-8 text, one a line") from None
