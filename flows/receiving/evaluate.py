"""At the receiver: train on a verified bundle or a pool, test on one's own stays, prepared and encoded alike."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from flows.compute.devices import device
from flows.progress import say, steps
from flows.receiving.pool import load_pool
from flows.receiving.reception import take_note
from flows.run import walk_until
from flows.workspace.job import Job
from pipeline.core.errors import DataError, UsageError
from pipeline.core.transforms import require_same_space
from pipeline.core.types import EncodedCohort, Json, Split, Task, UtilityReport, with_tasks
from pipeline.sharing.receive.pooling import Pool
from pipeline.sharing.receive.received import receive
from pipeline.store import Made
from pipeline.validation.paired import PairedScore, compare_sets
from pipeline.validation.utility import TrainingSet, measure_utility

RECEIVED: Final = "received"
OWN: Final = "own_training_stays"
POOLED: Final = "pooled"
BOTH: Final = "own_and_pooled"
WITHOUT: Final = "pooled_without "


def evaluate(
    job: Job,
    bundle: Path,
    root: Path,
    *,
    all_stays: bool,
    today: datetime.date,
    identity: Path | None = None,
    recipient: str | None = None,
) -> UtilityReport:
    """Models trained on the bundle, tested on the held-out stays of the job's run, beside models trained at home.

    Risks are corrected for the set's balanced labels; a teacher that came with it has a row of its own.

    Args:
        all_stays: test on every stay of the run; then nothing is trained at home.
        identity: the age identity file that opens an encrypted payload.
        recipient: this institution's name, for a bundle to named recipients.

    Raises:
        ReleaseRefused: the bundle does not verify.
        UsageError: the bundle holds no rows to train on, or no task that the run has.
        DataError: none of the run's encodings is the bundle's; the sentence says what differs.
    """
    received = receive(bundle, root, today=today, identity=identity, recipient=recipient)
    if received.manifest["release"]["kind"] == "moments":
        raise UsageError("this bundle holds moments, not rows; condense them first")
    take_note("evaluate", received.bundle, root)
    made = walk_until(dataclasses.replace(job, resume=True), "encode")
    name, own = _alike(job, made, received.manifest["data"]["transforms"], received.channels)
    tasks = tuple(task for task in own.tasks if task.name in received.tasks)
    if not tasks:
        raise UsageError(f"the bundle's tasks ({', '.join(received.tasks)}) are not among this run's")
    own = with_tasks(own, tasks)
    columns = [received.tasks.index(task.name) for task in tasks]
    test = own if all_stays else own.part(Split.HELD_OUT)
    shift = None if received.label_shift is None else received.label_shift[columns]
    taught = None if received.teacher is None else received.score(test.features)[:, columns]
    received_rows = received.features, received.labels[:, columns]
    sets = {RECEIVED: TrainingSet(name, *received_rows, test, label_shift=shift, teacher_risks=taught)}
    if not all_stays:
        training = own.part(Split.TRAIN)
        sets[OWN] = TrainingSet(name, training.features, training.labels, test)
    table = job.config.utility
    with steps("training the panel", "") as on_step:
        return measure_utility(
            sets,
            models=table.models,
            n_seeds=table.n_seeds,
            epochs=table.epochs,
            seed=job.seed("evaluate"),
            device=device(job.config.device),
            on_step=on_step,
        )


def evaluate_pool(job: Job, pooled: Path, *, today: datetime.date) -> tuple[PairedScore, ...]:
    """Models trained on a pool, tested on the held-out stays of the job's run, beside one's own training stays.

    Rows: one's own training stays (the reference of all differences), the pool, both together, and the pool without
    each institution in turn. Together means one set: many own stays outweigh a few samples.

    Raises:
        UsageError: no pool, or no task of it that the run has.
        ReleaseRefused: a bundle of the pool has expired.
        DataError: none of the run's encodings is the pool's, or a label is defined otherwise here.
    """
    pool = load_pool(pooled, today=today)
    made = walk_until(dataclasses.replace(job, resume=True), "encode")
    _, own = _alike(job, made, pool.data["transforms"], pool.channels)
    if (own.features.shape[1], own.step_hours) != (pool.features.shape[1], pool.data["step_hours"]):
        raise DataError("the pool's series have another number or length of steps than this run's")
    tasks = _common_tasks(own, pool)
    own = with_tasks(own, tasks)
    training, test = own.part(Split.TRAIN), own.part(Split.HELD_OUT)
    columns = [pool.tasks.index(task.name) for task in tasks]
    sets = {OWN: (training.features, training.labels), POOLED: (pool.features, pool.labels[:, columns])}
    sets[BOTH] = (
        np.concatenate([training.features, pool.features]),
        np.concatenate([training.labels, pool.labels[:, columns]]),
    )
    for institution, features, labels in pool.without_each():
        sets[WITHOUT + institution] = (features, labels[:, columns])
    table = job.config.utility
    with steps("training the panel", "") as on_step:
        return compare_sets(
            sets,
            OWN,
            test,
            models=table.models,
            n_seeds=table.n_seeds,
            epochs=table.epochs,
            seed=job.seed("evaluate"),
            device=device(job.config.device),
            on_step=on_step,
        )


def _common_tasks(own: EncodedCohort, pool: Pool) -> tuple[Task, ...]:
    tasks = tuple(task for task in own.tasks if task.name in pool.tasks)
    if not tasks:
        raise UsageError(f"the pool's tasks ({', '.join(pool.tasks)}) are not among this run's")
    meanings = {task["name"]: task["description"] for task in pool.data["tasks"]}
    for task in tasks:
        if task.description != meanings[task.name]:
            raise DataError(
                f"the label {task.name} means {task.description!r} in this run and {meanings[task.name]!r} in the pool"
            )
    return tasks


def _alike(
    job: Job, made: Mapping[str, Made[object]], theirs: Sequence[Json], channels: Sequence[str]
) -> tuple[str, EncodedCohort]:
    """The run's encoding that lives in the received set's space, and its name."""
    near: list[str] = []  # the same kind of encoding, but another one
    different: list[str] = []
    for name in job.config.encode:
        own = job.only(made[f"encode {name}"], EncodedCohort)
        try:
            require_same_space(own.transforms, theirs, own.channels, channels)
        except DataError as error:
            alike = own.transforms[-1]["kind"] == theirs[-1]["kind"]
            (near if alike else different).append(f"[encode.{name}]: {error}")
        else:
            say(f"  the set lives in the space of [encode.{name}]")
            return name, own
    raise DataError("; ".join(near or different))
