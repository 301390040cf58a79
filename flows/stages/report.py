"""The report of a run for its site, restricted like all in the workspace; and the floor, which writes it as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from flows.environment import code_version, machine
from flows.stages.decide import shortfall
from flows.workspace import releases
from flows.workspace.changes import since_last_release
from flows.workspace.job import REPORT_DATA, REPORT_PAGE, Job
from pipeline.core.digest import canonical_json
from pipeline.core.errors import UtilityError
from pipeline.core.types import (
    Cohort,
    CondensedSet,
    ContractResult,
    EncodedCohort,
    GateDecision,
    Grouping,
    IngestReport,
    LeakageReport,
    LossCurve,
    ReleaseRecord,
    Split,
    UtilityReport,
)
from pipeline.core.types.drift import DriftReport
from pipeline.ingest.cohort.scaling import to_clinical_units
from pipeline.report.record import (
    CondensedSummary,
    DrawnSample,
    LimitRow,
    PolicyTerms,
    RunRecord,
    StageRow,
    Trajectory,
    record_json,
)
from pipeline.report.render import render_report
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.policy.rules import attack_verdicts
from pipeline.store import Made
from pipeline.validation.contracts import implausible_samples

MAX_TRAJECTORIES: Final = 6
MAX_DRAWN: Final = 3  # variables of the drawn sample


def report(job: Job, made: Mapping[str, Made[Any]]) -> None:
    """Write the site's page and its JSON into the run's folder; restricted, like everything in the workspace."""
    record = _record(job, made)
    job.replace_file(REPORT_DATA, canonical_json(record_json(record)))
    job.replace_file(REPORT_PAGE, render_report(record).encode())


def floor(job: Job, utility: Made[UtilityReport], made: Mapping[str, Made[object]]) -> None:
    """Stop before the audit, which takes longest, if the release would be of too little use; the page is written.

    Raises:
        UtilityError: below the utility floor.
    """
    if (why := shortfall(job, job.only(utility, UtilityReport))) is not None:
        report(job, made)
        raise UtilityError(f"nothing was released: {why}")


def _record(job: Job, made: Mapping[str, Made[Any]]) -> RunRecord:
    config = job.config
    released = made.get("release")
    bundle = job.only(released, ReleaseRecord) if released else None
    leakage = [job.store.get(digest, LeakageReport) for digest in made["audit"].digests] if "audit" in made else []
    if released:
        leakage.append(job.only(released, LeakageReport, 1))
    place = releases.place(config.workspace, bundle.name) if bundle else None
    judged = _judged_set(job, made)
    return RunRecord(
        name=config.name,
        created=datetime.now(tz=UTC).date().isoformat(),
        code_version=code_version(),
        config_digest=job.config_digest,
        machine=machine(),
        seed=config.seed,
        site=config.release.site,
        missingness=config.prepare.observed,
        policy=Path(config.release.policy).name,
        stages=tuple(_stage_row(job, label, item) for label, item in made.items()),
        ingest=job.only(made["ingest"], IngestReport, 1),
        contracts=(job.only(made["ingest"], ContractResult, 2), *_contracts(job, made)),
        encoders={name: _encoder_spec(job, made[f"encode {name}"]) for name in config.encode},
        condensed=tuple(_condensed_summary(job, name, made[f"condense {name}"]) for name in config.condense),
        utility=job.only(made["utility"], UtilityReport),
        grouping=job.only(made["group"], Grouping) if "group" in made else None,
        leakage=tuple(leakage),
        decision=job.only(made["decide"], GateDecision) if "decide" in made else None,
        bundle_path=str(place) if bundle else None,
        bundle_digest=bundle.digest if bundle else None,
        trajectories=_trajectories(job, made),
        release_kind=config.release.kind,
        release_artefact=config.release.artefact,
        changes=since_last_release(
            job, made["ingest"], bundle.name if bundle and released and not released.reused else None
        ),
        drift=job.only(made["drift"], DriftReport) if "drift" in made else None,
        terms=policy_terms(config.release.policy, leakage),
        sample=None if judged is None else _drawn(job, made, judged),
        implausible_samples=None if judged is None else implausible_samples(judged),
        awaits_approval=place is not None and releases.is_proposal(place),
    )


def policy_terms(policy: str, reports: Sequence[LeakageReport]) -> PolicyTerms:
    """The policy's conditions, and every figure of the audits that may decide beside its limit."""
    rules = load_policy(policy)
    rows = tuple(
        LimitRow(
            artefact=report.artefact,
            attack=item.result.attack,
            threat_model=item.result.threat_model,
            statistic=item.result.statistic,
            high=item.result.high,
            limit=item.max_upper,
            verdict=item.verdict,
        )
        for report in reports
        for item in attack_verdicts(rules, (report,))
    )
    return PolicyTerms(rules.name, rules.production, rules.approvals, rows)


def _judged_set(job: Job, made: Mapping[str, Made[Any]]) -> CondensedSet | None:
    label = f"condense {job.config.release.artefact}"
    return job.only(made[label], CondensedSet) if job.config.release.kind == "condensed" and label in made else None


def _drawn(job: Job, made: Mapping[str, Made[Any]], judged: CondensedSet) -> DrawnSample | None:
    """The first sample's best-covered variables; None without a guarantee, where a sample may be near a record."""
    if judged.guarantee is None:
        return None
    cohort = job.only(made["ingest"], Cohort)
    shown = judged.features[:1]
    is_clinical = job.config.encode[job.config.condense[job.config.release.artefact].input].kind == "identity"
    if is_clinical:
        shown = to_clinical_units(shown, judged.channels, judged.transforms)
    covered = np.argsort(-cohort.observed.any(axis=1).mean(axis=0), kind="stable") if is_clinical else ()
    known = {item.name: item.unit for item in cohort.variables}
    names = [cohort.variables[index].name for index in covered] or list(judged.channels)
    rows = []
    for name in [name for name in names if name in judged.channels][:MAX_DRAWN]:
        values = shown[0, :, judged.channels.index(name)]
        rows.append((name, known.get(name, "") if is_clinical else "", tuple(values.astype(float).round(4).tolist())))
    return DrawnSample(tuple(rows), tuple(float(step * judged.step_hours) for step in range(shown.shape[1])))


def _stage_row(job: Job, label: str, made: Made[Any]) -> StageRow:
    return StageRow(label, made.first, made.seconds, made.reused, job.store.summary(made.first))


def _contracts(job: Job, made: Mapping[str, Made[Any]]) -> tuple[ContractResult, ...]:
    """What the stages that hold an artefact against its contract found, in their order."""
    kind = ContractResult.__name__
    return tuple(job.only(item, ContractResult) for item in made.values() if job.store.kind_of(item.first) == kind)


def _encoder_spec(job: Job, made: Made[Any]) -> dict[str, object]:
    transforms = job.store.describe(made.first)["meta"]["transforms"]
    return dict(transforms[-1])


def _condensed_summary(job: Job, name: str, made: Made[Any]) -> CondensedSummary:
    samples = job.only(made, CondensedSet)
    return CondensedSummary(
        name=name,
        method=samples.method,
        input=job.config.condense[name].input,
        n_samples=len(samples.features),
        storage_floats=samples.features.size + samples.labels.size,
        guarantee=samples.guarantee,
        starts_from_records=samples.starts_from_records,
        soft_labels=samples.has_soft_labels,
        seconds=made.seconds,
        loss_curve=tuple(job.only(made, LossCurve, 1).losses.tolist()),
    )


def _trajectories(job: Job, made: Mapping[str, Made[Any]]) -> tuple[Trajectory, ...]:
    """Class means over time of the best-covered variables, real against the first set that lives in clinical units."""
    cohort = job.only(made["ingest"], Cohort)
    prepared = job.only(made["prepare"], EncodedCohort).part(Split.TRAIN)
    name = next((n for n, t in job.config.condense.items() if job.config.encode[t.input].kind == "identity"), None)
    if name is None:
        return ()
    samples = job.only(made[f"condense {name}"], CondensedSet)
    covered = np.argsort(-cohort.observed.any(axis=1).mean(axis=0), kind="stable")[:MAX_TRAJECTORIES]
    real = to_clinical_units(prepared.features, prepared.channels, prepared.transforms)
    shown = to_clinical_units(samples.features, samples.channels, samples.transforms)
    hours = tuple(float(step * cohort.step_hours) for step in range(real.shape[1]))
    found = []
    for index in covered:
        variable = cohort.variables[index]
        position = prepared.channels.index(variable.name)
        found.append(
            Trajectory(
                variable=variable.name,
                unit=variable.unit,
                hours=hours,
                real_means=_class_means(real[:, :, position], prepared.labels[:, 0]),
                condensed_means=_class_means(shown[:, :, position], samples.labels[:, 0]),
                condensed_name=name,
                real_counts=people_of_classes(prepared.labels[:, 0], prepared.subject_index),
            )
        )
    return tuple(found)


def people_of_classes(label: np.ndarray, subject: np.ndarray) -> dict[str, int]:
    """How many people have stays of class 0 and 1 (of a number: of the halves of its range)."""
    return {key: len(np.unique(subject[there])) for key, there in (("0", label < 0.5), ("1", label >= 0.5))}


def _class_means(series: np.ndarray, label: np.ndarray) -> dict[str, tuple[float, ...]]:
    """Mean series of label 0 and of label 1, `(step,)` each; a soft label counts with its weight."""
    known = np.isfinite(label)
    weights = {"0": 1 - label[known], "1": label[known]}
    return {
        key: tuple((weight @ series[known] / weight.sum()).round(4).tolist())
        for key, weight in weights.items()
        if weight.sum() > 0
    }
