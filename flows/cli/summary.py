"""What a verb prints when it is done: a short table for a person, or the same as plain data."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from flows.cli.ending import Places, as_typed, coloured, ending
from flows.workspace.job import REPORT_DATA, REPORT_PAGE, Job
from flows.workspace.releases import is_proposal, place
from flows.workspace.trust import ROOT
from pipeline.core.codec import to_plain
from pipeline.core.types import (
    AttackResult,
    CondensedSet,
    GateDecision,
    Grouping,
    GroupsCompared,
    GroupValidation,
    IngestReport,
    LeakageReport,
    ReleaseRecord,
    UtilityReport,
)
from pipeline.store import Made

MadeBy = Mapping[str, Made[object]]


def outcome(job: Job, made: MadeBy) -> dict[str, Any]:
    """Digests, paths and verdict of a run, as plain data."""
    found: dict[str, Any] = {"made": {label: list(item.digests) for label, item in made.items()}}
    if "decide" in made:
        found["decision"] = to_plain(job.only(made["decide"], GateDecision))
        found["report"] = str(job.folder / REPORT_PAGE)
    if "release" in made:
        bundle = _bundle(job, made)
        found["proposal" if is_proposal(bundle) else "bundle"] = str(bundle)
    return found


def print_run(job: Job, made: MadeBy, verbose: int = 0, *, is_demo: bool = False) -> None:
    """The end of a run on one screen, from its record; with `verbose` all scores and attacks before it."""
    if "decide" not in made:
        print("held    too few subjects came or went since the last release: nothing new was made or drawn")
        return
    if verbose:
        _print_utility(job, made)
        _print_leakage(job, made)
    bundle = _bundle(job, made) if "release" in made else None
    root = job.config.workspace / "trust" / ROOT
    places = Places(
        report=as_typed(job.folder / REPORT_PAGE),
        bundle=None if bundle is None else as_typed(bundle),
        root=as_typed(root) if root.exists() else None,
        is_demo=is_demo,
    )
    record = json.loads((job.folder / REPORT_DATA).read_bytes())
    lines = ending(record, places)
    print("\n".join(coloured(lines, sys.stdout)))


def print_stage(job: Job, verb: str, made: MadeBy, verbose: int = 0) -> None:
    """What one verb has to show."""
    if verb == "release":
        print_run(job, made, verbose)
    else:
        _PRINTERS[verb](job, made)


def _bundle(job: Job, made: MadeBy) -> Path:
    name = job.only(made["release"], ReleaseRecord).name
    return place(job.config.workspace, name) or job.config.workspace / "releases" / name


def _print_digests(job: Job, made: MadeBy) -> None:
    for label, item in made.items():
        print(f"{label:<28} {item.first[:12]}  {job.store.summary(item.first)}")


def _print_ingest(job: Job, made: MadeBy) -> None:
    report = job.only(made["ingest"], IngestReport, 1)
    print(f"{report.source}: {report.stays} stays, {report.stays_without_series} without any series")
    print(f"rows    {report.rows_read} read, {report.rows_used} used")
    for reason, rows in sorted(report.rows_dropped.items(), key=lambda item: -item[1]):
        print(f"        {rows} dropped: {reason}")
    for table in report.tables:
        lost = ", ".join(f"{rows} {reason}" for reason, rows in table.dropped.items())
        print(f"table   {table.table} ({table.file}): {table.used} of {table.rows} usable{f'; {lost}' if lost else ''}")
    for use in report.units:
        middle = "" if use.median is None else f", median {use.median:g}"
        print(f"unit    {use.code} in {use.unit}: {use.rows} rows{middle}; {use.verdict}")
    for task, share in report.prevalence.items():
        print(f"task    {task:<20} {100 * share:5.1f} %, {report.labels_missing.get(task, 0)} without the label")
    for note in report.notes:
        print(f"note    {note}")


def _print_grouping(job: Job, made: MadeBy) -> None:
    if "group" not in made:
        print("the configuration has no [group] table")
        return
    found = job.only(made["group"], Grouping)
    for group in found.groups:
        print(f"group   {', '.join(group)}")
    if found.control:
        print(f"rank correlation with the label-only control: {found.rank_correlation:.2f}")
    if found.validation is not None:
        _print_choices(found.validation)
    for note in found.notes:
        print(f"note    {note}")


def _print_choices(validation: GroupValidation) -> None:
    """What was chosen and what other choices gain, on stays that had no say; regret against the ceiling, told last."""
    chosen = GroupsCompared(
        "chosen", len(validation.chosen), validation.gain, validation.gain_low, validation.gain_high
    )
    ceiling = validation.compared[-1].gain if validation.compared else 0.0
    print("choice                                        groups  gain over alone, 80 % interval  regret")
    for row in (chosen, *validation.compared):
        interval = f"{100 * row.gain:6.2f} % [{100 * row.low:.2f}, {100 * row.high:.2f}]"
        regret = f"{100 * (1 - row.gain / ceiling):.0f} %" if ceiling > 0 else "-"
        print(f"  {row.name:<43} {row.n_groups:>6}  {interval:<30}  {regret:>6}")
    print(f"significantly harmed: {', '.join(validation.harmed) or 'no task'}")


def _print_utility(job: Job, made: MadeBy) -> None:
    """Rows = what was trained on, columns = models, AUROC with its interval."""
    print_scores(job.only(made["utility"], UtilityReport), lambda name: _marks(job, made, name))


def print_scores(report: UtilityReport, marks: Callable[[str], str] = lambda name: "") -> None:
    """Rows = what was trained on, columns = models, AUROC (of a number R2) with its interval."""
    models = list(dict.fromkeys(row.model for row in report.scores))
    sets = list(dict.fromkeys((row.training_set, row.input, row.n_samples, row.task) for row in report.scores))
    first = sets[0][3] if sets else ""
    metric = "auroc" if any(row.metric == "auroc" for row in report.scores if row.task == first) else "r2"
    rows = [["trained on", "input", "samples", *models]]
    for name, source, n_samples, task in sets:
        if task == first:
            scores = [report.score(name, model, metric, task) for model in models]
            cells = ["-" if s is None else f"{s.mean:.3f} [{s.low:.2f}, {s.high:.2f}]" for s in scores]
            rows.append([name + marks(name), source, str(n_samples), *cells])
    print(f"utility {metric.upper()} for {first} on real held-out stays, 95 % interval")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _marks(job: Job, made: MadeBy, name: str) -> str:
    item = made.get(f"condense {name}")
    if item is None:
        return ""
    samples = job.only(item, CondensedSet)
    given = samples.guarantee
    budget = "" if given is None else f", epsilon {given.epsilon:g}, delta {given.delta:g}"
    return (" (soft" if samples.has_soft_labels else " (hard") + budget + ")"


def _print_leakage(job: Job, made: MadeBy) -> None:
    reports = [job.store.get(digest, LeakageReport) for digest in made["audit"].digests]
    bundle = job.only(made["release"], LeakageReport, 1).results if "release" in made else ()
    scanned = {(job.config.release.artefact, result.attack) for result in bundle}
    for report in reports:
        worst: dict[str, AttackResult] = {}
        for result in report.results:
            if result.gates and result.rate > worst.get(result.attack, result).rate - 1e-12:
                worst[result.attack] = result
        for result in worst.values():
            print(f"leak    {report.artefact}, {result.threat_model}: {result.summary}")
        gaps = (item.attack for item in report.not_run if (report.artefact, item.attack) not in scanned)
        missed = dict.fromkeys(name.replace("_", " ") for name in gaps)
        if missed:
            print(f"not run {report.artefact}: {', '.join(missed)}")


_PRINTERS: Final[Mapping[str, Callable[[Job, MadeBy], None]]] = {
    "ingest": _print_ingest,
    "encode": _print_digests,
    "group": _print_grouping,
    "condense": _print_digests,
    "validate": _print_utility,
    "audit": _print_leakage,
}
