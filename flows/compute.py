"""Where the stages that are maps run: in this process, on a local cluster, or on a Dask scheduler's workers.

What travels is the path of the run's folder, digests, seeds, rows of stays and what a table of the configuration says:
no key and no patient's value, and no job: a worker opens its own in that folder. It reads keys and stays from the
workspace, so it has to see it, at the same path; one that does not is refused before it makes anything. Work is cut the
same way whatever the engine, and every piece depends on its own arguments alone: results are the same bits for any
number of workers, and a piece whose worker died is made again by another.
"""

from __future__ import annotations

import atexit
import functools
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from flows.environment import code_version
from flows.stopping import begun
from flows.workspace.job import Job, open_job
from pipeline.core.config.compute import ComputeConfig
from pipeline.core.errors import DecoctError, EnvironmentProblem
from pipeline.core.files.mapped import new_array, take_room
from pipeline.core.files.whole import put_whole
from pipeline.core.redaction import scrubbed
from pipeline.core.threads import blas_kernels

BLOCK_STAYS: Final = 4096
"""Stays made at a time: what a worker holds does not grow with the cohort."""

MakeRows = Callable[..., np.ndarray]
"""(job, slice of stays, ...) -> their rows of an array; a function of a module, so that a worker finds it."""

ANSWER_SECONDS: Final = 20
"""How long a scheduler may take to answer."""

_NONCE: Final = ".shared-with-workers"


@final
class _ItsJob(Enum):
    """Stands among the arguments that travel where the job stood."""

    HERE = "the worker's own job"


_ITS_JOB: Final = _ItsJob.HERE


def calls(job: Job, function: Callable[..., Any], told: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """`function` of each tuple of arguments, in order, by the engine that the [compute] table names.

    All are begun at once, and each is given out when it and those before it are there. `function` and its arguments
    travel to other machines: nothing among them may be secret or a patient's. Where the job is an argument, a worker
    is given the one that it opens itself.

    Raises:
        EnvironmentProblem: there is no such scheduler, or a worker does not share the workspace or the code.
        DecoctError: whatever a call raises.
    """
    table = job.config.compute
    if table.kind == "threads" or _in_a_worker():
        if table.workers == 1 or len(told) < 2 or _in_a_worker():
            yield from (function(*call) for call in told)
            return
        pool = ThreadPoolExecutor(table.workers)
        try:
            yield from pool.map(lambda call: function(*call), told)
        finally:
            pool.shutdown(wait=not begun(), cancel_futures=True)
        return
    client = _client(table)
    checked = _tell(job)
    away = [tuple(_ITS_JOB if isinstance(one, Job) else one for one in call) for call in told]
    futures = [client.submit(_checked, str(job.folder), checked, function, call, pure=False) for call in away]
    try:
        for future in futures:
            yield future.result()
    except DecoctError:  # of a call: `_checked` lets nothing else out
        raise
    except Exception as problem:  # Dask's own: the scheduler went away, or a piece killed every worker
        raise EnvironmentProblem(f"the cluster failed: {type(problem).__name__}") from None
    finally:
        client.cancel([future for future in futures if not future.done()])


def map_calls(job: Job, function: Callable[..., Any], told: Sequence[tuple[Any, ...]]) -> list[Any]:
    """All that `calls` gives."""
    return list(calls(job, function, told))


def everywhere(job: Job, function: Callable[[], None]) -> None:
    """`function` on every worker, if there are any; what goes wrong there is no matter any more."""
    if job.config.compute.kind != "threads" and not _in_a_worker():
        with suppress(Exception):
            _client(job.config.compute).run(function)


def rows_by_blocks(job: Job, make: MakeRows, n_stays: int, *told: Any) -> np.ndarray:
    """The array whose rows `make` gives, made block by block of stays; in an unnamed file where it is large.

    Raises:
        OSError: the disk is full. Otherwise as `map_calls`.
    """
    first = make(job, slice(0, min(BLOCK_STAYS, n_stays)), *told)
    shape, rest = (n_stays, *first.shape[1:]), range(len(first), n_stays, BLOCK_STAYS)
    if job.config.compute.kind == "threads" or not rest:
        whole = new_array(shape, first.dtype, job.store.scratch)
        whole[: len(first)] = first

        def fill(start: int) -> None:
            whole[start : start + BLOCK_STAYS] = make(job, slice(start, start + BLOCK_STAYS), *told)

        map_calls(job, fill, [(start,) for start in rest])
        return whole
    target = job.store.scratch / f"{secrets.token_hex(8)}.rows"
    try:
        with target.open("xb") as stream:
            take_room(stream.fileno(), first.itemsize * int(np.prod(shape, dtype=np.int64)))
        _write_rows(target, 0, first)
        map_calls(job, _made_rows, [(job, str(target), make, start, told) for start in rest])
        return np.memmap(target, first.dtype, "r", shape=shape)
    finally:
        target.unlink(missing_ok=True)  # what is mapped stays until its last view is gone


def _made_rows(job: Job, target: str, make: MakeRows, start: int, told: tuple[Any, ...]) -> None:
    _write_rows(Path(target), start, make(job, slice(start, start + BLOCK_STAYS), *told))


def _write_rows(target: Path, start: int, rows: np.ndarray) -> None:
    """A block in its place; written again it is the same."""
    data = np.ascontiguousarray(rows).data.cast("B")
    place = start * (len(data) // max(len(rows), 1))
    handle = os.open(target, os.O_WRONLY)
    try:
        while data:
            written = os.pwrite(handle, data, place)
            data, place = data[written:], place + written
    finally:
        os.close(handle)


@final
@dataclass(frozen=True)
class Told:
    """What a worker must find in the run's folder, and what it must be like itself, to make the same bits."""

    nonce: str
    code: str
    config: str  # the configuration's digest
    kernels: tuple[str, ...]
    resume: bool


def _tell(job: Job) -> Told:
    path = job.folder / _NONCE
    if not path.exists():
        put_whole(path, secrets.token_hex(16).encode())
    return Told(path.read_text(encoding="ascii"), code_version(), job.config_digest, blas_kernels(), job.resume)


def _checked(folder: str, told: Told, function: Callable[..., Any], call: Iterable[Any]) -> Any:
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
        return function(*(_job_there(folder, told.config, told.resume) if one is _ITS_JOB else one for one in call))


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


def _worker_threads() -> int:
    """Of the worker that this is; 1 where it is none."""
    import sys

    worker = sys.modules.get("distributed.worker")
    if worker is None:
        return 1
    try:
        return int(worker.get_worker().state.nthreads)
    except ValueError:
        return 1


def _in_a_worker() -> bool:
    """Whether this is a piece of a map already: pieces are not cut again."""
    import sys

    worker = sys.modules.get("distributed.worker")
    if worker is None:
        return False
    try:
        worker.get_worker()
    except ValueError:
        return False
    return True


@functools.cache
def _client(table: ComputeConfig) -> Any:
    """One client for this process, and with kind = "local" its cluster; both end with the process."""
    try:
        import dask

        dask.config.set(QUIET_DASK)  # before `distributed` is imported, which sets its loggers up
        import distributed
    except ImportError:
        raise EnvironmentProblem(f'compute.kind = "{table.kind}" needs Dask: pip install "decoct[cluster]"') from None
    dd: Any = distributed  # without annotations of its own
    try:
        if table.kind == "dask":
            client = dd.Client(table.address, timeout=ANSWER_SECONDS)  # TLS by the files in Dask's own configuration
        else:
            folder = tempfile.mkdtemp(prefix="decoct-workers-")  # nothing is put there: nothing is spilled
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            cluster = dd.LocalCluster(
                n_workers=table.workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                protocol="tls://",
                security=dd.Security.temporary(),  # who reaches a scheduler runs code: no other user of the machine may
                dashboard_address="127.0.0.1:0",
                memory_limit=0,
                preload=[DEAF],
                local_directory=folder,
            )
            atexit.register(cluster.close)
            client = cluster.get_client()
    except (OSError, ValueError, RuntimeError):
        raise EnvironmentProblem(f"no Dask scheduler answers for compute.kind = {table.kind!r}") from None
    atexit.register(client.close)
    return client


DEAF: Final = "import signal; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGHUP)]"
"""Run by each worker of ours at its start: what a terminal sends to all, this process tells them. They end with it."""

QUIET_DASK: Final = {
    "distributed.dashboard.link": "",
    "distributed.worker.http.routes": [],
    "distributed.scheduler.http.routes": [],
    "distributed.diagnostics.nvml": False,
    "distributed.scheduler.allowed-failures": 5,
    "distributed.worker.use-file-locking": True,
    "logging": {"distributed": "critical", "distributed.scheduler": "critical", "distributed.worker": "critical"},
}
"""No dashboard and no route that serves one, no log but ours; a piece may outlive so many workers."""


def device(wanted: str) -> str:
    """`auto` is the accelerator torch has, else the CPU."""
    if wanted != "auto":
        return wanted
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
