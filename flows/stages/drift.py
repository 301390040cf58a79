"""Before anything is made of a cohort: has it drifted from the last released one, does it bring enough new people."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

import numpy as np

from flows.progress import say
from flows.workspace import accepted
from flows.workspace.job import Job
from pipeline.core.codec import to_plain
from pipeline.core.config import DriftConfig
from pipeline.core.errors import Held
from pipeline.core.types import Cohort, ContractResult, Provenance, ReleaseRecord
from pipeline.core.types.drift import CohortProfile, Counts, DriftReport
from pipeline.report.suppress import suppress_drift
from pipeline.store import Made
from pipeline.validation import drift as measures

DRIFT_FILE: Final = "drift.json"
FIRST: Final = "first night: there is no released cohort to compare with"
MAX_NAMED: Final = 5


def drift(job: Job, cohort: Made[Cohort]) -> Made[DriftReport]:
    """Cohort -> (DriftReport, CohortProfile, ContractResult), against the last released cohort of this run.

    Raises:
        DriftError: it drifted further than [drift] allows, and nobody accepted it.
        EnvironmentProblem: what is known of the last released cohort is damaged.
    """
    table = job.config.drift
    content = accepted.content_of(job, cohort)
    before = accepted.last_accepted(job, besides=content)
    options = {
        "drift": table.model_dump(mode="json", exclude={"accepted", "action"}),
        "against": [before.release, before.profile_digest] if before else [],
        "marks_key": job.secret("split").fingerprint,
    }

    def make(provenance: Provenance) -> tuple[DriftReport, CohortProfile, ContractResult]:
        stays = job.only(cohort, Cohort)
        profile = measures.cohort_profile(stays, content=content, provenance=provenance)
        report = _compared(job, stays, profile, before)
        return report, profile, measures.as_contract(report)

    made = job.once("drift", (cohort.first,), options, None, make)
    report = job.only(made, DriftReport)
    _tell(report)
    job.replace_file(DRIFT_FILE, json.dumps(suppress_drift(to_plain(report)), indent=1).encode())
    if table.action == "stop":
        measures.require(report, job.only(made, ContractResult, 2), accepted=table.accepted)
    return made


def enough_new(job: Job, cohort: Made[Cohort], judged: Made[DriftReport]) -> None:
    """Go on only if enough subjects came or went since the last release, or if it is that very cohort.

    Two releases of nearly the same people tell whoever has both what the few who differ made of the figures; and each
    costs its budget.

    Raises:
        Held: too few; nothing private has been drawn.
    """
    wanted = job.config.night.min_new_subjects
    report = job.only(judged, DriftReport)
    if not wanted or not report.against or accepted.newest_content(job) == accepted.content_of(job, cohort):
        return
    if report.subjects_new + report.subjects_gone < wanted:
        raise Held(f"held: fewer than {wanted} subjects came or went since {report.against} (night.min_new_subjects)")


def accept(job: Job, cohort: Made[Cohort], judged: Made[DriftReport], released: Made[ReleaseRecord] | None) -> None:
    """Note that this cohort was released: it is the next night's yardstick. Nothing, where nothing was released."""
    if released is None:
        return
    subjects = job.only(cohort, Cohort).subject_ids.tolist()
    name = job.only(released, ReleaseRecord).name
    accepted.accept(job, cohort, job.only(judged, CohortProfile, 1), subjects, name)


def limits_of(table: DriftConfig) -> Callable[[Counts], measures.Limits]:
    """The limits of [drift] for each kind of comparison."""

    def limits(counts: Counts) -> measures.Limits:
        if counts.what == "label" and not counts.ordered:
            return measures.Limits(*table.prevalence)
        return measures.Limits(*(table.distance if counts.ordered else table.share))

    return limits


def _compared(job: Job, stays: Cohort, profile: CohortProfile, before: accepted.Accepted | None) -> DriftReport:
    """The whole cohort against the accepted one, and the subjects that are new in it, as the whole dilutes them."""
    if before is None:
        counts = (0, profile.subjects, profile.subjects, 0)
        return measures.judged((), against="", subjects=counts, notes=(FIRST,), provenance=profile.provenance)
    table = job.config.drift
    marks = accepted.marks_of(job, stays.subject_ids.tolist())
    fresh = ~np.isin(marks, before.marks)
    new, gone = len(np.unique(marks[fresh])), int((~np.isin(before.marks, marks)).sum())
    news = new >= table.min_new
    rate = table.false_alarm / (2 if news else 1)
    limits = limits_of(table)
    rows = measures.compare(before.profile, profile, among="all", limits=limits, false_alarm=rate)
    if news:
        apart = measures.cohort_profile(stays, content="", provenance=profile.provenance, rows=np.flatnonzero(fresh))
        rows += measures.compare(before.profile, apart, among="new", limits=limits, false_alarm=rate)
    counts = (before.profile.subjects, profile.subjects, new, gone)
    notes = _notes(before.profile, profile, news, table.min_new)
    return measures.judged(rows, against=before.release, subjects=counts, notes=notes, provenance=profile.provenance)


def _notes(before: CohortProfile, now: CohortProfile, news: bool, min_new: int) -> tuple[str, ...]:
    notes = [] if news else [f"fewer than {min_new} new subjects: they were not compared on their own"]
    changed = measures.changed_tables(before, now)
    if changed:
        more = f" and {len(changed) - MAX_NAMED} more" if len(changed) > MAX_NAMED else ""
        notes.append(f"not compared, as the configuration or mapping changed: {', '.join(changed[:MAX_NAMED])}{more}")
    return tuple(notes)


def _tell(report: DriftReport) -> None:
    if report.level in ("warn", "stop"):
        shown = [f"{row.what} {row.item}".strip() for row in report.rows if row.level == report.level]
        more = f" and {len(shown) - MAX_NAMED} more" if len(shown) > MAX_NAMED else ""
        say(f"  drift against {report.against}, level {report.level}: {', '.join(shown[:MAX_NAMED])}{more}")
