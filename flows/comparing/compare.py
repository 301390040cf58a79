"""Condensers held against one another on the *tuning* stays: the held-out stays are not spent on choosing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import final

from flows.compute.devices import device
from flows.progress import steps
from flows.stages.artefacts import Encoded
from flows.stages.utility import trained_on
from flows.workspace.job import Job
from pipeline.core.types import CondensedSet, EncodedCohort, Split, UtilityReport, UtilityScore, with_tasks
from pipeline.store import Made
from pipeline.validation.utility import measure_utility

METRICS = {"binary": ("auroc", "auprc"), "regression": ("r2", "mae")}
OUTSIDE = (
    "scored on real tuning stays: choosing by this table is outside every privacy guarantee, and the chosen set's own "
    "figures are optimistic here; the held-out stays were not touched"
)


@final
@dataclasses.dataclass(frozen=True)
class Compared:
    """One method's row: what its set is, what it cost, and one score per model and metric of the first task."""

    method: str
    labels: str  # "hard" or "soft"
    epsilon: float | None  # of its guarantee; None = no guarantee
    delta: float | None
    starts_from_records: bool
    seconds: float  # of condensing, when it was computed
    from_store: bool
    n_samples: int
    floats: int  # features and labels that a receiver stores
    scores: tuple[UtilityScore, ...]


def tuning_utility(
    job: Job, encoded: Made[Encoded], condensed: Mapping[str, Made[CondensedSet]]
) -> Made[UtilityReport]:
    """Train the configured models on every set alone, without real data, and test them on the real tuning stays."""
    table = job.config.utility
    seed = job.seed("compare")
    where = device(job.config.device)
    options = {"utility": table.model_dump(mode="json"), "part": "tuning", "sets": list(condensed)}
    parents = (encoded.first, *(made.first for made in condensed.values()))

    def make(_: object) -> tuple[UtilityReport]:
        tuning = job.only(encoded, EncodedCohort).part(Split.TUNING)
        sets = {}
        for name, made in condensed.items():
            samples = job.only(made, CondensedSet)
            test = with_tasks(tuning, samples.tasks)
            sets[name] = trained_on(job.config.condense[name].input, samples, test)
        with steps("training the panel", "") as on_step:
            report = measure_utility(
                sets,
                models=table.models,
                n_seeds=table.n_seeds,
                epochs=table.epochs,
                seed=seed,
                device=where,
                on_step=on_step,
            )
        return (dataclasses.replace(report, interval=report.interval.replace("held-out", "tuning")),)

    return job.once("compare", parents, options, seed, make)


def rows(job: Job, condensed: Mapping[str, Made[CondensedSet]], report: UtilityReport) -> tuple[Compared, ...]:
    """The table's rows, in the order in which the methods were asked for."""
    found = []
    for name, made in condensed.items():
        samples = job.only(made, CondensedSet)
        first = samples.tasks[0]
        wanted = [s for s in report.scores if s.training_set == name and s.metric in METRICS[first.kind]]
        guarantee = samples.guarantee
        found.append(
            Compared(
                method=name,
                labels="soft" if samples.has_soft_labels else "hard",
                epsilon=None if guarantee is None else guarantee.epsilon,
                delta=None if guarantee is None else guarantee.delta,
                starts_from_records=samples.starts_from_records,
                seconds=made.seconds,
                from_store=made.reused,
                n_samples=len(samples.features),
                floats=samples.features.size + samples.labels.size,
                scores=tuple(s for s in wanted if s.task == first.name),
            )
        )
    return tuple(found)
