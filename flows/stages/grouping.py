"""Which tasks belong together: from real stays, from private moments, or as the configuration says."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from flows.progress import steps
from flows.stages.candidates import train_by_workers
from flows.stages.condensing import moments
from flows.stages.learn import device, encode
from flows.workspace.job import Job
from pipeline.core.config.group import GroupConfig
from pipeline.core.types import EncodedCohort, Grouping, Moments, Provenance, Split
from pipeline.grouping.accounted import fixed_groups, group_by_moments
from pipeline.grouping.run import NamedLimits, group_tasks, validate_grouping
from pipeline.grouping.trainings import train_here
from pipeline.grouping.validated import MIN_VALIDATED
from pipeline.store import Made


def group(job: Job, prepared: Made) -> Made | None:
    """Which tasks are alike, on the prepared training stays; None when nobody asks or there is only one task."""
    table = job.config.group
    if table is None or len(job.store.describe(prepared.first)["meta"]["tasks"]) < 2:
        return None
    seed = job.seed("group")
    if table.moments is not None:
        return _by_moments(job, table, table.moments, prepared)

    def make(_: Provenance) -> tuple[Grouping]:
        cohort = job.only(prepared, EncodedCohort)
        if table.decide == "fixed":
            return (fixed_groups(table.groups, tuple(task.name for task in cohort.tasks)),)
        return (_on_stays(job, table, cohort, seed),)

    return job.once("group", (prepared.first,), table.model_dump(mode="json"), seed, make)


def _on_stays(job: Job, table: GroupConfig, cohort: EncodedCohort, seed: int) -> Grouping:
    training = cohort.part(Split.TRAIN)
    options: dict[str, Any] = {
        "affinity": table.affinity,
        "trunk": table.trunk,
        "max_groups": table.max_groups,
        "n_inits": table.n_inits,
        "limits": _limits(table),
        "seed": seed,
    }
    with steps("grouping", "") as on_step:
        found = group_tasks(training, **options, on_step=on_step)
    if table.decide == "affinity" or len(found.tasks) < MIN_VALIDATED:
        return found
    with steps("training candidate groups", "gain") as on_step:
        tuning = cohort.part(Split.TUNING)
        where = device(job.config.device)
        trainer = partial(train_by_workers, job) if job.config.compute.by_workers else train_here
        return validate_grouping(found, training, tuning, **options, device=where, trainer=trainer, on_step=on_step)


def _by_moments(job: Job, table: GroupConfig, name: str, prepared: Made) -> Made:
    """The [condense] table's moments, whose query is the same wherever it is asked, and groups read from them."""
    stored = dataclasses.replace(job, resume=True)  # the encoding was made before; nothing is encoded twice
    encoded = encode(stored, job.config.condense[name].input, prepared)
    released = moments(job, name, encoded)

    def make(_: Provenance) -> tuple[Grouping]:
        given: Moments = job.only(released, Moments)
        return (group_by_moments(given, max_groups=table.max_groups, limits=_limits(table)),)

    return job.once("group", (released.first,), table.model_dump(mode="json"), None, make)


def _limits(table: GroupConfig) -> NamedLimits:
    return NamedLimits(table.largest, table.must_link, table.cannot_link)
