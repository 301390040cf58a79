"""Work that is a map, cut into pieces and given out to the engine that the [compute] table names.

What travels is the path of the run's folder, digests, seeds, rows of stays and what a table of the configuration says:
no key and no patient's value, and no job: a worker opens its own in that folder. It reads keys and stays from the
workspace, so it has to see it, at the same path; one that does not is refused before it makes anything. Work is cut the
same way whatever the engine, and every piece depends on its own arguments alone: results are the same bits for any
number of workers, and a piece whose worker died is made again by another.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from flows.compute import cluster, pieces, processes
from flows.environment import memory_gib
from flows.stopping import begun
from flows.workspace.job import Job
from pipeline.core.files.mapped import new_array, take_room

BLOCK_STAYS: Final = 4096
"""Stays made at a time: what a worker holds does not grow with the cohort."""

MANY_STAYS: Final = 1000
"""From so many stays on, a stage of long pieces is worth the seconds that processes take to start."""

MOST_WORKERS: Final = 8
GIB_A_WORKER: Final = 2

MakeRows = Callable[..., np.ndarray]
"""(job, slice of stays, ...) -> their rows of an array; a function of a module, so that a worker finds it."""


def calls(
    job: Job, function: Callable[..., Any], told: Sequence[tuple[Any, ...]], costs: Sequence[float] | None = None
) -> Iterator[Any]:
    """`function` of each tuple of arguments, in order, by the engine that the [compute] table names.

    All are begun at once, and each is given out when it and those before it are there. `function` and its arguments
    travel to other machines: nothing among them may be secret or a patient's. Where the job is an argument, a worker
    is given the one that it opens itself.

    Args:
        costs: of each in any unit; processes of this machine begin with the dearest, so that none waits for one at the
            end.

    Raises:
        EnvironmentProblem: there is no such scheduler, or a worker does not share the workspace or the code.
        DecoctError: whatever a call raises.
    """
    table = job.config.compute
    if table.by_workers and not pieces.in_a_worker():
        folder, checks = str(job.folder), pieces.tell(job)
        away = [tuple(pieces.ItsJob.HERE if isinstance(one, Job) else one for one in call) for call in told]
        travelling = [(folder, checks, function, call) for call in away]
        if table.kind == "local":
            begin = None if costs is None else sorted(range(len(told)), key=lambda place: -costs[place])
            yield from processes.by_processes(table.workers, pieces.checked, travelling, begin)
        else:
            yield from cluster.by_workers(table.address, pieces.checked, travelling)
    elif table.workers == 1 or len(told) < 2 or pieces.in_a_worker():
        yield from (function(*call) for call in told)
    else:
        pool = ThreadPoolExecutor(table.workers)
        try:
            yield from pool.map(lambda call: function(*call), told)
        finally:
            pool.shutdown(wait=not begun(), cancel_futures=True)


def map_calls(job: Job, function: Callable[..., Any], told: Sequence[tuple[Any, ...]]) -> list[Any]:
    """All that `calls` gives."""
    return list(calls(job, function, told))


def everywhere(job: Job, function: Callable[[], None]) -> None:
    """`function` on every worker, if there are any; what goes wrong there is no matter any more.

    Processes of this machine end instead: what they hold goes with them.
    """
    table = job.config.compute
    if table.kind == "local":
        processes.end()
    elif table.kind == "dask" and not pieces.in_a_worker():
        cluster.everywhere(table.address, function)


def for_much_work(job: Job, n_stays: int) -> Job:
    """The job for a stage of many long pieces: where the [compute] table leaves it open, on the machine's cores."""
    table = job.config.compute
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, MOST_WORKERS, memory_gib() // GIB_A_WORKER)
    if table.kind != "auto" or n_stays < MANY_STAYS or workers < 2 or pieces.in_a_worker():
        return job
    chosen = table.model_copy(update={"kind": "local", "workers": workers})
    return replace(job, config=job.config.model_copy(update={"compute": chosen}))


def rows_by_blocks(job: Job, make: MakeRows, n_stays: int, *told: Any) -> np.ndarray:
    """The array whose rows `make` gives, made block by block of stays; in an unnamed file where it is large.

    Raises:
        OSError: the disk is full. Otherwise as `map_calls`.
    """
    first = make(job, slice(0, min(BLOCK_STAYS, n_stays)), *told)
    shape, rest = (n_stays, *first.shape[1:]), range(len(first), n_stays, BLOCK_STAYS)
    if not job.config.compute.by_workers or not rest:
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
