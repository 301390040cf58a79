"""`decoct log`: the workspace's audit log, and whether it is what others saw of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.common import AsJson, Out, print_json, workspace_of

log_app = typer.Typer(no_args_is_help=True, help="The audit log: who did what with which release, and proof of it.")


@log_app.command("show")
def show(
    last: Annotated[int, typer.Option(help="So many lines from the end.")] = 20,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Check the log's chain and show its last lines.

    Example: decoct log show --out decoct-work
    """
    from pipeline.sharing.trust.log import checkpoint, read_log

    log = read_log(workspace_of(out))
    if as_json:
        entries = [dict(entry) for entry in log.entries[-last:]]
        print_json({"checkpoint": checkpoint(log).plain() if log.lines else None, "entries": entries})
        return
    for entry in log.entries[-last:]:
        facts = {key: value for key, value in entry.items() if key not in ("line", "when", "what", "previous")}
        told = " ".join(f"{key}={str(value)[:40]}" for key, value in facts.items())
        print(f"{entry['line']:>5}  {entry['when']}  {entry['what']:<10} {told}")
    if not log.lines:
        print("the log is empty")


@log_app.command("verify")
def verify(
    receipt: Annotated[
        list[Path] | None, typer.Option(help="A receipt that a receiver sent back (may be repeated).")
    ] = None,
    alone: Annotated[
        bool, typer.Option("--alone", help="Compare the receipts with each other, without a log.")
    ] = False,
    root: Annotated[
        Path | None, typer.Option(help="The trust root; with it a receipt with other signatures is refused.")
    ] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Check the log's chain, the releases here and receivers' receipts: was the log cut, rewritten or split?

    Example: decoct log verify --receipt from-st-b/receipt.json --out decoct-work
    """
    from pipeline.sharing.receive.receipt import read_receipt, require_consistent
    from pipeline.sharing.trust.log import checkpoint
    from pipeline.sharing.trust.root import load_trust_root

    trusted = None if root is None else load_trust_root(root)
    receipts = [read_receipt(path, trusted) for path in receipt or []]
    require_consistent(receipts)
    lines, releases = 0, 0
    head = None
    if not alone:
        from flows.workspace.log import checked_log

        log, releases = checked_log(workspace_of(out), receipts)
        lines, head = len(log.lines), checkpoint(log).plain() if log.lines else None
    if as_json:
        print_json({"lines": lines, "checkpoint": head, "receipts": len(receipts), "releases": releases})
        return
    print(f"{len(receipts)} receipts agree with each other" if receipts else "no receipt was given")
    if not alone:
        shown = f"; {head['origin']} {head['size']} {head['root']}" if head else ""
        print(f"the log is whole: {lines} lines, {releases} releases and {len(receipts)} receipts agree with it{shown}")


@log_app.command("lost")
def lost(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="What is lost for good, as the refusal names it; without a name only the list is shown."),
    ] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """List what in the workspace was lost or put back; with its name, go on without it, on record in the log.

    Try a backup first: after a lost ledger, earlier queries count for nothing any more.

    Example: decoct log lost nights/accepted.jsonl --out decoct-work
    """
    from flows.doctor.lost import declare_lost, missing
    from flows.workspace.locks import workspace_lock

    workspace = workspace_of(out)
    if names:
        with workspace_lock(workspace, "decoct log lost"):
            declare_lost(workspace, names)
    found = list(missing(workspace))
    if as_json:
        print_json({"declared": names or [], "missing": [{"name": name, "told": told} for name, told in found]})
        return
    for name in names or ():
        print(f"on the log as lost: {name}")
    for _, told in found:
        print(told)
    if not found:
        print("everything else is as it was left" if names else "everything is as it was left")
