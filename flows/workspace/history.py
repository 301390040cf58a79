"""The site's record of its audits: where it lies, what is written after each audit, what it says for the next."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from flows.progress import say
from flows.workspace.job import Job
from flows.workspace.releases import PROPOSALS
from pipeline.audit.history import FILE_NAME, History, Night, Noted, open_history, unnoted
from pipeline.core.changes import Change, changes, worse
from pipeline.core.codec import record_digest
from pipeline.core.files.seen import changing, checked
from pipeline.core.keys.custody.keyring import keys_of
from pipeline.core.types import AttackResult, LeakageReport

HISTORY_URL: Final = "DECOCT_AUDIT_HISTORY"
"""Environment variable with a database URL; it may hold a password, so it is in no configuration and no provenance."""


AUDITS: Final = "audits/"


def history_of(workspace: Path, url: str | None = None) -> History:
    """The history of a workspace: `url`, else the environment's URL, else a SQLite file in the workspace."""
    return open_history(url or os.environ.get(HISTORY_URL) or workspace / FILE_NAME)


def remember(
    history: History, reports: Sequence[LeakageReport], *, name: str, source: str, noted: Noted = unnoted
) -> int:
    """Record one audit; say what got worse since the last accepted release of each artefact."""
    for report in reports:
        accepted = history.accepted(report.artefact, name=name)
        for change in worse(accepted, (report,)) if accepted else ():
            say(f"  alert: against the last accepted release, {change.sentence}")
    return history.record(reports, name=name, source=source, noted=noted)


def remember_run(job: Job, reports: Sequence[LeakageReport], *, again: bool) -> None:
    """Record a run's audit in its workspace's history; one that was found (`again`) only where a kill left it out.

    Raises:
        Lost: the history is not as it was left. EnvironmentProblem: it cannot be written.
    """
    history, name = _unbroken(job), job.config.name
    if again and all(history.holds(record_digest(report), name=name) for report in reports):
        return
    remember(history, reports, name=name, source="run", noted=_noted(job))


def has_left(job: Job, report_digest: str, bundle: str) -> None:
    """Note that a bundle was made with this report: later audits are compared with it once it is approved.

    Raises:
        Lost: the history is not as it was left. EnvironmentProblem: it holds no such report, or cannot be written.
    """
    _unbroken(job).accept(report_digest, bundle, name=job.config.name, noted=_noted(job))


def last_accepted(job: Job, candidate: str) -> tuple[LeakageReport, ...]:
    """The audit of the last accepted release of what the run would release, other than `candidate` itself.

    Raises:
        Lost: the history is not as it was left.
    """
    proposals = job.config.workspace / PROPOSALS
    waiting = sorted(folder.name for folder in proposals.iterdir()) if proposals.is_dir() else []
    history = _unbroken(job)
    return history.accepted(job.config.release.artefact, name=job.config.name, besides=candidate, waiting=waiting)


def noted_as(name: str) -> str:
    """What the audits of a run are called beside the keys."""
    return AUDITS + name


def _unbroken(job: Job) -> History:
    """The workspace's history, where its audits of this run are those that were left there."""
    history, name = history_of(job.config.workspace), job.config.name
    checked(keys_of(job.config.workspace), noted_as(name), lambda: history.state(name), str)
    return history


def _noted(job: Job) -> Noted:
    return partial(changing, keys_of(job.config.workspace), noted_as(job.config.name))


def table(nights: Sequence[Night]) -> list[dict[str, Any]]:
    """A row per night, artefact and threat model: the worst figure that decides, and its change since the last."""
    rows: list[dict[str, Any]] = []
    seen: dict[str, LeakageReport] = {}
    for night in nights:
        for report, accepted in zip(night.reports, night.accepted, strict=True):
            before = seen.get(report.artefact)
            moved = {change.key: change for change in changes((before,), (report,))} if before else {}
            for model in dict.fromkeys(result.threat_model for result in report.results if result.gates):
                rows.append(
                    {
                        "audit": night.id,
                        "night": night.recorded_at,
                        "run": night.name,
                        "artefact": report.artefact,
                        "threat_model": model,
                        **_worst([r for r in report.results if r.gates and r.threat_model == model]),
                        "since_last": _trend([c for c in moved.values() if c.key[2] == model], before is None),
                        "controls_held": report.controls_held,
                        "not_run": len(report.not_run),
                        "accepted_as": accepted,
                    }
                )
            seen[report.artefact] = report
    return rows


def _worst(results: Sequence[AttackResult]) -> dict[str, Any]:
    """The figure whose upper bound is largest among those of one kind; counts go before shares, as one is too many."""
    counts = [r for r in results if r.statistic == "count" and r.rate > 0]
    shares = [r for r in results if r.statistic != "count"]
    worst = max(counts or shares or list(results), key=lambda r: r.high)
    return {
        "attack": worst.attack,
        "statistic": worst.statistic,
        "rate": worst.rate,
        "low": worst.low,
        "high": worst.high,
        "n": worst.n,
    }


def _trend(moved: Sequence[Change], first: bool) -> str:
    if first:
        return "first"
    found = {change.direction for change in moved if (change.after or change.before).gates}  # type: ignore[union-attr]
    for direction in ("worse", "gone", "not comparable", "better"):
        if direction in found:
            return direction
    return "same"
