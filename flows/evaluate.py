"""At the receiver: train on a verified bundle, test on one's own stays, prepared and encoded alike."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from flows.job import Job, open_job
from flows.progress import say, steps
from flows.run import walk_until
from flows.stages.learn import device, with_tasks
from pipeline.core.errors import DataError, UsageError
from pipeline.core.transforms import require_same_space
from pipeline.core.types import EncodedCohort, Split, UtilityReport
from pipeline.sharing.receive import Received, receive
from pipeline.store import Made
from pipeline.validation.utility import TrainingSet, measure_utility

RECEIVED: Final = "received"
OWN: Final = "own_training_stays"


def evaluate(folder: str, bundle: Path, root: Path, *, all_stays: bool, today: datetime.date) -> UtilityReport:
    """Models trained on the bundle, tested on the held-out stays of the run at `folder`, beside models trained at home.

    Args:
        all_stays: test on every stay of the run; then nothing is trained at home.

    Raises:
        ReleaseRefused: the bundle does not verify.
        UsageError: the bundle holds no rows to train on, or no task that the run has.
        DataError: none of the run's encodings is the bundle's; the sentence says what differs.
    """
    received = receive(bundle, root, today=today)
    if received.manifest["release"]["kind"] == "moments":
        raise UsageError("this bundle holds moments, not rows; condense them first")
    job = open_job(folder, resume=True)
    made = walk_until(folder, "encode", resume=True)
    name, own = _alike(job, made, received)
    tasks = tuple(task for task in own.tasks if task.name in received.tasks)
    if not tasks:
        raise UsageError(f"the bundle's tasks ({', '.join(received.tasks)}) are not among this run's")
    own = with_tasks(own, tasks)
    columns = [received.tasks.index(task.name) for task in tasks]
    test = own if all_stays else own.part(Split.HELD_OUT)
    sets = {RECEIVED: TrainingSet(name, received.features, received.labels[:, columns], test)}
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


def _alike(job: Job, made: Mapping[str, Made], received: Received) -> tuple[str, EncodedCohort]:
    """The run's encoding that lives in the bundle's space, and its name."""
    theirs = received.manifest["data"]["transforms"]
    near: list[str] = []  # the same kind of encoding, but another one
    different: list[str] = []
    for name in job.config.encode:
        own = job.only(made[f"encode {name}"], EncodedCohort)
        try:
            require_same_space(own.transforms, theirs, own.channels, received.channels)
        except DataError as error:
            alike = own.transforms[-1]["kind"] == theirs[-1]["kind"]
            (near if alike else different).append(f"[encode.{name}]: {error}")
        else:
            say(f"  the bundle lives in the space of [encode.{name}]")
            return name, own
    raise DataError("; ".join(near or different))
