"""Beside `decoct audit` of a run: attack anybody's tables; look back over the nights, compare two of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.common import AsJson, Out, Seed, print_json
from flows.cli.panels import require_there
from pipeline.core.errors import UsageError
from pipeline.core.wording import in_columns

Url = Annotated[
    str | None,
    typer.Option("--history", help="Database URL of the history; else $DECOCT_AUDIT_HISTORY, else the file."),
]


def audit_tables(
    real: Annotated[
        Path, typer.Option(help="The table that the set was made from (parquet or CSV).", show_default=False)
    ],
    shared: Annotated[Path, typer.Option(help="The synthetic or condensed table.", show_default=False)],
    holdout: Annotated[Path, typer.Option(help="Records of other people of the same kind.", show_default=False)],
    subject_column: Annotated[
        str | None, typer.Option(help="The column that names the person; never audited as a value.")
    ] = None,
    time_column: Annotated[
        str | None, typer.Option(help="The column of times in a long table; rows are summarised.")
    ] = None,
    policy: Annotated[str, typer.Option(help="The policy whose limits decide: a name or a file.")] = "research",
    name: Annotated[str, typer.Option(help="The table's name in report and history.")] = "shared",
    url: Url = None,
    seed: Seed = None,
    to: Annotated[Path | None, typer.Option(help="Folder of page, JSON and history.")] = None,
    as_json: AsJson = False,
) -> None:
    """Audit a synthetic table of any tool, with the table it was made from and records of other people.

    Exit code 13: the policy's limits say FAIL; 14: INCONCLUSIVE.

    Example: decoct audit-tables --real real.parquet --shared synthetic.parquet --holdout others.parquet --to audit
    """
    from pipeline.core.redaction import scrubbed

    with scrubbed("audit"):
        from flows.stages.attacks.tables import audit_tables as audited
        from flows.stages.attacks.tables import enforce, write
        from flows.workspace.history import history_of, remember

        for file in (real, shared, holdout):
            require_there(file, "table")
        found = audited(
            real,
            shared,
            holdout,
            name=name,
            policy=policy,
            seed=seed or 0,
            subject_column=subject_column,
            time_column=time_column,
        )
        written = write(found, to) if to is not None else ()
        if to is not None or url is not None:
            remember(history_of(to or Path(), url), (found.report,), name=name, source="tables")
        if as_json:
            print(found.to_json())
        else:
            print(found)
            for path in written:
                print(f"wrote   {path}")
        enforce(found.decision)


def audit_history(
    artefact: Annotated[str | None, typer.Option(help="Only this artefact.")] = None,
    last: Annotated[int, typer.Option(min=1, help="Show only so many of the newest audits.")] = 30,
    out: Out = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show the worst deciding figure per night and threat model, and its change since the audit before.

    Example: decoct audit-history --out decoct-demo
    """
    from flows.workspace.history import history_of, table

    rows = table(history_of(_workspace(out, url), url).nights(artefact=artefact, last=last))
    if as_json:
        print_json(rows)
        return
    cells = [["audit", "night (UTC)", "run", "artefact", "model", "worst figure", "since last", "left as"]]
    for row in rows:
        figure = f"{row['attack']} {row['statistic']} {_interval(row)}"
        held = "" if row["controls_held"] else " CONTROLS FAILED"
        cells.append(
            [
                *(str(row["audit"]), row["night"][:16].replace("T", " "), row["run"], row["artefact"]),
                *(row["threat_model"], figure + held, row["since_last"], row["accepted_as"] or "-"),
            ]
        )
    print("\n".join(in_columns(cells)))


def audit_diff(
    before: Annotated[int, typer.Argument(help="Number of an audit, from decoct audit-history.")],
    after: Annotated[int, typer.Argument(help="Number of a later one.")],
    out: Out = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Compare two audits: what got worse beyond its interval, got better, or is no longer measured.

    Example: decoct audit-diff 3 7 --out decoct-demo
    """
    from flows.workspace.history import history_of
    from pipeline.core.changes import CHANCE, changes

    history = history_of(_workspace(out, url), url)
    found = changes(history.night(before).reports, history.night(after).reports)
    moved = [change for change in found if change.direction != "same"]
    if as_json:
        print_json(
            [{"direction": change.direction, "figure": list(change.key), "told": change.sentence} for change in found]
        )
        return
    for change in moved:
        print(f"{change.direction:<8}{change.sentence}")
    both = sum(change.direction in ("same", "worse", "better") for change in found)
    print(
        f"{len(moved)} of {len(found)} figures differ beyond their intervals; of {both} unchanged ones about "
        f"{both * CHANCE:.1f} would look worse by chance"
    )


def _workspace(out: Path | None, url: str | None) -> Path:
    import os

    from flows.workspace.history import HISTORY_URL
    from pipeline.audit.history import FILE_NAME

    folder = out or Path("decoct-work")
    if url is None and not os.environ.get(HISTORY_URL) and not (folder / FILE_NAME).exists():
        raise UsageError(f"there is no audit history at {folder / FILE_NAME}; name the workspace with --out")
    return folder


def _interval(row: Any) -> str:
    if row["low"] == row["high"]:
        return f"{row['rate']:.3g}"
    return f"{row['rate']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"
