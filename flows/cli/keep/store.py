"""`decoct store`: what a workspace's store holds, whether it is whole, and what can go."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.common import AsJson, Out, print_json
from pipeline.core.errors import EnvironmentProblem, UsageError

store_app = typer.Typer(no_args_is_help=True, help="The store of a workspace: list, check, clean up.")


@store_app.command("list")
def show(out: Out = None, as_json: AsJson = False) -> None:
    """Count the artefacts of each kind with their sizes, and what is kept of sources.

    Example: decoct store list --out decoct-work
    """
    from flows.cli.look.artefacts import size
    from flows.workspace.removing.purge import size_of
    from pipeline.store import Store

    workspace = _workspace(out)
    counts, sizes = Counter[str](), Counter[str]()
    for entry in Store(workspace / "store").entries():
        counts[entry.kind] += 1
        sizes[entry.kind] += entry.size_bytes
    kept = {name: size_of(workspace / "store" / name) for name in ("pieces", "marks", "tmp")}
    if as_json:
        kinds = {kind: {"artefacts": counts[kind], "bytes": sizes[kind]} for kind in counts}
        print_json({"kinds": kinds, "kept_of_sources_bytes": kept["pieces"] + kept["marks"], "tmp_bytes": kept["tmp"]})
        return
    for kind in sorted(counts):
        print(f"{kind:<18} {counts[kind]:>6}  {size(sizes[kind]):>10}")
    print(f"{'kept of sources':<18} {'':>6}  {size(kept['pieces'] + kept['marks']):>10}")


@store_app.command("gc")
def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without this option it is only listed.")] = False,
    runs: Annotated[int, typer.Option(help="Keep what this many of the last runs of each name used.", min=1)] = 7,
    pieces: Annotated[
        bool,
        typer.Option("--pieces", help="Also remove all that is kept of sources; the next run reads everything again."),
    ] = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Remove artefacts behind no recent run, release or proposal, drafts of killed writes, and unused parsed records.

    Without --yes it only lists what would go. It refuses while a run or a night works in the workspace.

    Example: decoct store gc --yes --runs 30 --out decoct-work
    """
    from flows.cli.look.artefacts import size
    from flows.progress import steps
    from flows.workspace.locks import workspace_lock
    from flows.workspace.removing.cleaning import compact, rubbish
    from flows.workspace.removing.purge import carry_out, finish_pending
    from pipeline.core.redaction import scrubbed

    workspace = _workspace(out)
    with workspace_lock(workspace, "decoct store gc"), scrubbed("store gc"):
        if yes:
            finish_pending(workspace)
            compact(workspace)
        found = rubbish(workspace, runs=runs, pieces=pieces)
        if yes:
            with steps("taking out", "") as on_step:
                carry_out(workspace, found.plan, on_step)
    if as_json:
        kinds = {kind: {"count": count, "bytes": n_bytes} for kind, (count, n_bytes) in found.kinds.items()}
        print_json({"removed": yes, "bytes": found.size_bytes, "kinds": kinds})
        return
    for kind, (count, n_bytes) in found.kinds.items():
        print(f"{kind:<28} {count:>6}  {size(n_bytes):>10}")
    if not found.kinds:
        print("nothing can go")
    elif yes:
        print(f"freed {size(found.size_bytes)}")
    else:
        print(f"{size(found.size_bytes)} can go; nothing was taken out: decoct store gc --yes does it")


@store_app.command("verify")
def verify(out: Out = None, as_json: AsJson = False) -> None:
    """Read every artefact and compare it with its name; list damaged artefacts and notes that lead nowhere.

    Example: decoct store verify --out decoct-work
    """
    from flows.workspace.locks import workspace_lock
    from flows.workspace.removing.cleaning import damaged
    from pipeline.store import Store

    workspace = _workspace(out)
    with workspace_lock(workspace, "decoct store verify", shared=True):
        store = Store(workspace / "store")
        found = list(damaged(store))
        whole = sum(1 for _ in (store.root / "objects").glob("*/*"))
    if as_json:
        print_json({"artefacts": whole, "damaged": [{"name": name, "what": what} for name, what in found]})
    for name, what in [] if as_json else found:
        print(f"{name[:12]}  {what}")
    if found:
        raise EnvironmentProblem(
            f"{len(found)} of the store's artefacts and notes are damaged; what a run needs of them is made again once "
            "their folders are moved away"
        )
    if not as_json:
        print(f"{whole} artefacts are what their names say")


def _workspace(out: Path | None) -> Path:
    workspace = out or Path("decoct-work")
    if not (workspace / "store").exists():
        raise UsageError(f"there is no store at {workspace / 'store'}; name the workspace with --out")
    return workspace.resolve()
