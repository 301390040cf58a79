"""Candidate groups of tasks, trained by whichever workers are free."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from flows.compute import calls
from flows.workspace.job import Job, open_job
from pipeline.grouping.batched_trainer import Trained
from pipeline.grouping.trainings import Training, trained


def train_by_workers(
    job: Job, inputs: np.ndarray, labels: np.ndarray, asked: Sequence[Training], *, device: str
) -> Iterator[Trained]:
    """As `train_here`; stays and predictions go through files of the store's scratch, rows and seeds are told.

    Raises:
        EnvironmentProblem: as `calls`. DataError: as `train_groups`. OSError: the disk is full.
    """
    name = secrets.token_hex(8)
    try:
        np.savez(_file(job, name), inputs=inputs, labels=labels)
        told = [(str(job.folder), name, number, one, device) for number, one in enumerate(asked)]
        for made in calls(job, _train_there, told):
            with np.load(_file(job, made)) as arrays:
                found = Trained(**{field.name: arrays[field.name] for field in fields(Trained)})
            _file(job, made).unlink()
            yield found
    finally:
        for path in job.store.scratch.glob(f"{name}*"):
            path.unlink(missing_ok=True)


def _train_there(folder: str, name: str, number: int, one: Training, device: str) -> str:
    """On a worker: one training; the name of the file with what came of it, unless nobody waits for it any more."""
    job = open_job(folder, resume=False)
    with np.load(_file(job, name)) as stays:
        found = trained(stays["inputs"], stays["labels"], one, device=device)
    made = f"{name}-{number}"
    np.savez(_file(job, made), **{field.name: getattr(found, field.name) for field in fields(Trained)})
    if not _file(job, name).exists():  # another training failed, and its files were taken away
        _file(job, made).unlink(missing_ok=True)
    return made


def _file(job: Job, name: str) -> Path:
    return job.store.scratch / f"{name}.npz"
