"""Pieces of a map made by processes of this machine, which are forks of one that has imported what they need.

A worker that dies, whatever kills it, costs its piece, which another makes again. Workers are kept for the next map,
and end with this process: by its word, or because it is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Final, final

from flows.stopping import at_the_latest
from pipeline.core.errors import EnvironmentProblem

MOST_DEATHS: Final = 5
"""A run ends when more workers than these died under one map: by want of memory, or by hand."""

PRELOADED: Final = (
    "flows.compute.one_thread",
    "flows.stages.attacks.scenes",
    "encoders.calibrate",
    "pipeline.grouping.trainings",
    "pipeline.validation.utility",
)
"""Modules that all workers share; the first one before any library starts threads."""

dumps: Callable[[object], bytes] = pickle.dumps


@final
@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    pipe: Connection
    place: int | None = None  # of the piece that it is at


_crew: Final[list[_Worker]] = []
_parent: Final[list[int]] = []  # in a worker: the process that it works for


def is_one() -> bool:
    """Whether this process is such a worker."""
    return bool(_parent)


def by_processes(
    workers: int, function: Callable[..., Any], told: Sequence[tuple[Any, ...]], begin: Sequence[int] | None = None
) -> Iterator[Any]:
    """`function` of each tuple of arguments, in order, by as many processes as `workers`; `begin`: which first.

    Raises:
        EnvironmentProblem: workers died again and again.
        Exception: whatever a call raises; what is under way then is ended.
    """
    found: dict[int, tuple[bool, Any]] = {}
    waiting, deaths = deque(range(len(told)) if begin is None else begin), 0
    try:
        _enough(min(workers, len(told)))
        for place in range(len(told)):
            while place not in found:
                died = [worker for worker in _crew if not _at_work(worker, waiting, function, told, found)]
                for worker in died:
                    deaths += 1
                    _remove(worker)
                if deaths > MOST_DEATHS:
                    raise EnvironmentProblem(f"{deaths} worker processes died under one stage")
                _enough(min(workers, len(told)))
                if not died and place not in found:
                    wait([worker.pipe for worker in _crew if worker.place is not None])
            held, value = found.pop(place)
            if not held:
                raise value
            yield value
    except BaseException:
        end()
        raise


def _at_work(
    worker: _Worker,
    waiting: deque[int],
    function: Callable[..., Any],
    told: Sequence[tuple[Any, ...]],
    found: dict[int, tuple[bool, Any]],
) -> bool:
    """Take what it has made and give it the next piece; False when it has died, and its piece waits again."""
    try:
        if worker.place is not None:
            if not worker.pipe.poll():
                return True
            found[worker.place] = pickle.loads(worker.pipe.recv_bytes())
            worker.place = None
        if waiting:
            worker.place = waiting.popleft()
            worker.pipe.send_bytes(dumps((function, told[worker.place])))
    except (EOFError, OSError):
        if worker.place is not None:
            waiting.appendleft(worker.place)
        return False
    return True


def end() -> None:
    """At once: a piece that is under way is not waited for."""
    for worker in list(_crew):
        _remove(worker)


at_the_latest(end)


def _enough(workers: int) -> None:
    while len(_crew) < workers:
        context: Any = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
        if hasattr(os, "fork"):
            context.set_forkserver_preload(list(PRELOADED))
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(there, os.getpid()), daemon=True)
        process.start()
        there.close()  # so that the pipe ends when the worker does
        _crew.append(_Worker(process, here))


def _remove(worker: _Worker) -> None:
    _crew.remove(worker)
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


def _work(pipe: Connection, parent: int) -> None:
    """In a worker: what a terminal sends to all, the parent tells it, and it ends with the parent."""
    for number in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
        signal.signal(number, signal.SIG_IGN)
    _parent.append(parent)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            function, call = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            answer: tuple[bool, Any] = True, function(*call)
        except Exception as problem:
            answer = False, problem
        pipe.send_bytes(dumps(answer))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
