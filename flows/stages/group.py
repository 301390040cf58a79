"""Which tasks belong together: from real stays, from private moments, or as the configuration says."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.compute.devices import device
from flows.compute.maps import calls
from flows.progress import steps
from flows.stages.artefacts import Prepared
from flows.stages.condense import moments
from flows.stages.encode import encode
from flows.workspace.job import Job
from pipeline.core.config.group import GroupConfig
from pipeline.core.types import EncodedCohort, Grouping, Moments, Provenance, Split
from pipeline.store import Made

if TYPE_CHECKING:
    from pipeline.grouping.batched_trainer import Trained
    from pipeline.grouping.run import NamedLimits
    from pipeline.grouping.trainings import Training


def group(job: Job, prepared: Made[Prepared]) -> Made[Grouping] | None:
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
            from pipeline.grouping.accounted import fixed_groups

            return (fixed_groups(table.groups, tuple(task.name for task in cohort.tasks)),)
        return (_on_stays(job, table, cohort, seed),)

    return job.once("group", (prepared.first,), table.model_dump(mode="json"), seed, make, [])


def _on_stays(job: Job, table: GroupConfig, cohort: EncodedCohort, seed: int) -> Grouping:
    from pipeline.grouping.run import group_tasks, validate_grouping
    from pipeline.grouping.trainings import train_here
    from pipeline.grouping.validated import MIN_VALIDATED

    training = cohort.part(Split.TRAIN)
    options: dict[str, Any] = {
        "affinity": table.affinity,
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


def _by_moments(job: Job, table: GroupConfig, name: str, prepared: Made[Prepared]) -> Made[Grouping]:
    """The [condense] table's moments, whose query is the same wherever it is asked, and groups read from them."""
    stored = dataclasses.replace(job, resume=True)  # the encoding was made before; nothing is encoded twice
    encoded = encode(stored, job.config.condense[name].input, prepared)
    released = moments(job, name, encoded)

    def make(_: Provenance) -> tuple[Grouping]:
        from pipeline.grouping.accounted import group_by_moments

        given = job.only(released, Moments)
        return (group_by_moments(given, max_groups=table.max_groups, limits=_limits(table)),)

    return job.once("group", (released.first,), table.model_dump(mode="json"), None, make, [])


def _limits(table: GroupConfig) -> NamedLimits:
    from pipeline.grouping.run import NamedLimits

    return NamedLimits(table.largest, table.must_link, table.cannot_link)


def train_by_workers(
    job: Job, inputs: np.ndarray, labels: np.ndarray, asked: Sequence[Training], *, device: str
) -> Iterator[Trained]:
    """As `train_here`; stays and predictions go through files of the store's scratch, rows and seeds are told.

    Raises:
        EnvironmentProblem: as `calls`. DataError: as `train_groups`. OSError: the disk is full.
    """
    from pipeline.grouping.batched_trainer import Trained

    name = secrets.token_hex(8)
    try:
        np.savez(_training_file(job, name), inputs=inputs, labels=labels)
        told = [(job, name, number, one, device) for number, one in enumerate(asked)]
        for made in calls(job, _train_there, told):
            with np.load(_training_file(job, made)) as arrays:
                found = Trained(**{field.name: arrays[field.name] for field in fields(Trained)})
            _training_file(job, made).unlink()
            yield found
    finally:
        for path in job.store.scratch.glob(f"{name}*"):
            path.unlink(missing_ok=True)


def _train_there(job: Job, name: str, number: int, one: Training, device: str) -> str:
    """On a worker: one training; the name of the file with what came of it, unless nobody waits for it any more."""
    from pipeline.grouping.trainings import trained

    with np.load(_training_file(job, name)) as stays:
        found = trained(stays["inputs"], stays["labels"], one, device=device)
    made = f"{name}-{number}"
    np.savez(_training_file(job, made), **{field.name: getattr(found, field.name) for field in fields(found)})
    if not _training_file(job, name).exists():  # another training failed, and its files were taken away
        _training_file(job, made).unlink(missing_ok=True)
    return made


def _training_file(job: Job, name: str) -> Path:
    return job.store.scratch / f"{name}.npz"
