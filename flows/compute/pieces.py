"""A piece of a map as it travels to a worker, and what the worker must be like to make the same bits of it."""

from __future__ import annotations

import functools
import secrets
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, final

from flows.compute import processes
from flows.environment import code_version
from flows.workspace.job import Job, open_job
from pipeline.core.errors import EnvironmentProblem
from pipeline.core.files.whole import put_whole
from pipeline.core.redaction import scrubbed
from pipeline.core.threads import blas_kernels

_NONCE: Final = ".shared-with-workers"


@final
class ItsJob(Enum):
    """Stands among the arguments that travel where the job stood."""

    HERE = "the worker's own job"


@final
@dataclass(frozen=True)
class Told:
    """What a worker must find in the run's folder, and what it must be like itself, to make the same bits."""

    nonce: str
    code: str
    config: str  # the configuration's digest
    kernels: tuple[str, ...]
    resume: bool


def tell(job: Job) -> Told:
    path = job.folder / _NONCE
    if not path.exists():
        put_whole(path, secrets.token_hex(16).encode())
    return Told(path.read_text(encoding="ascii"), code_version(), job.config_digest, blas_kernels(), job.resume)


def checked(folder: str, told: Told, function: Callable[..., Any], call: Iterable[Any]) -> Any:
    """On the worker: refuse before anything is read or made, else call."""
    try:
        shares = (Path(folder) / _NONCE).read_text(encoding="ascii") == told.nonce
    except OSError:
        shares = False
    if not shares:
        raise EnvironmentProblem(
            "a worker does not see the run's workspace; put it on a file system that all workers share, at one path "
            "(keys and records are read there, they are never sent)"
        )
    if code_version() != told.code:
        raise EnvironmentProblem("a worker runs another version of Decoct; install the same one everywhere")
    if (kernels := blas_kernels()) != told.kernels:
        raise EnvironmentProblem(
            f"a worker computes by other BLAS kernels ({', '.join(kernels) or 'none'}) than the run began with "
            f"({', '.join(told.kernels) or 'none'}), and would make other bits: set OPENBLAS_CORETYPE to one value "
            "everywhere, or use machines of one kind"
        )
    if _worker_threads() > 1:
        raise EnvironmentProblem(
            "a worker has several threads, which would share random state: start it with --nthreads 1"
        )
    with scrubbed(function.__name__.strip("_")):  # an exception's text may hold a patient's value, and travels
        return function(*(_job_there(folder, told.config, told.resume) if one is ItsJob.HERE else one for one in call))


@functools.lru_cache(maxsize=2)
def _job_there(folder: str, config: str, resume: bool) -> Job:
    """On the worker: the job of the run's folder, opened once.

    Raises:
        EnvironmentProblem: the worker sees another configuration.
    """
    job = open_job(folder, resume=resume)
    if job.config_digest != config:
        raise EnvironmentProblem("a worker finds another configuration in the run's folder than the run began with")
    return job


def in_a_worker() -> bool:
    """Whether this is a piece of a map already: pieces are not cut again."""
    return processes.is_one() or _dask_worker() is not None


def _worker_threads() -> int:
    """Of the Dask worker that this is; 1 where it is none."""
    worker = _dask_worker()
    return 1 if worker is None else int(worker.state.nthreads)


def _dask_worker() -> Any:
    """That this is; None where it is none."""
    distributed = sys.modules.get("distributed.worker")
    if distributed is None:
        return None
    try:
        return distributed.get_worker()
    except ValueError:
        return None
