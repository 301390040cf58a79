"""Who may work in a workspace at the same time: many who only add to it, or one who takes something out of it.

    workspace/locks/workspace     locked by the system (flock), shared or exclusive, for as long as somebody works
    workspace/locks/<pid>-<n>     a note of each of them, locked as long as it holds: what, which process, since when

The system gives a lock back when its process ends, however it ends: nothing is left that somebody must remove by hand.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import count
from pathlib import Path
from typing import BinaryIO, Concatenate, Final, ParamSpec, TypeVar

from pipeline.core.config import Config
from pipeline.core.errors import EnvironmentProblem
from pipeline.core.files.chained import now

P = ParamSpec("P")
R = TypeVar("R")

FOLDER: Final = "locks"
_LOCK_FILE: Final = "workspace"
_numbers: Final = count(1)
_held: Final[dict[Path, list[bool]]] = {}  # of this process: workspace -> one `shared` for each who is inside
_guard: Final = threading.Lock()


@contextmanager
def workspace_lock(workspace: Path, what: str, *, shared: bool = False) -> Iterator[None]:
    """Work in `workspace` under its lock: `shared` with others who are, or alone; never waits.

    Within one process locks nest: who holds the workspace alone may take it again, and who shares it may share it
    again, so that a night can hold it around a run that takes it, too.

    Args:
        what: what is being done, for the sentence that others get: "decoct night", "decoct store gc".

    Raises:
        EnvironmentProblem: somebody else works there; the sentence says who, in which process, since when. Or the disk
            refuses.
    """
    root = workspace.resolve()
    with _guard:
        inside = _held.get(root, [])
        nested = bool(inside) and (shared or not all(inside))
        if nested:
            inside.append(shared)
    if nested:
        try:
            yield
        finally:
            with _guard:
                inside.remove(shared)
        return
    stream = _open(root / FOLDER / _LOCK_FILE)
    note: tuple[Path, BinaryIO] | None = None
    try:
        if not _try_lock(stream, shared=shared):
            raise EnvironmentProblem(f"{workspace} is in use{_by_whom(root)}; wait until that ends, then try again")
        note = _leave_note(root, what)
        with _guard:
            _held[root] = inside = [shared]
        yield
    finally:
        with _guard:
            if note is not None and _held.get(root) is inside:
                del _held[root]
        if note is not None:
            note[0].unlink(missing_ok=True)
            note[1].close()
        _unlock(stream)


def holders(workspace: Path) -> tuple[str, ...]:
    """Who works in the workspace right now, a phrase each: "decoct night (process 4711, since ...)"."""
    found = []
    for path in sorted((workspace / FOLDER).glob("[0-9]*-[0-9]*")):
        try:
            with path.open("r+b") as stream:
                if _try_lock(stream, shared=True):  # its holder is gone
                    path.unlink(missing_ok=True)
                    continue
                told = json.loads(stream.read())
                found.append(f"{told['what']} (process {told['pid']}, since {told['since']})")
        except (OSError, ValueError, KeyError):
            continue
    return tuple(found)


def _by_whom(root: Path) -> str:
    found = holders(root)
    return f" by {' and '.join(found)}" if found else ""


def _leave_note(root: Path, what: str) -> tuple[Path, BinaryIO]:
    path = root / FOLDER / f"{os.getpid()}-{next(_numbers)}"
    stream = _open(path)
    _try_lock(stream, shared=False)
    try:
        stream.truncate(0)
        stream.write(json.dumps({"what": what, "pid": os.getpid(), "since": now()}).encode())
        stream.flush()
    except OSError as error:
        stream.close()
        path.unlink(missing_ok=True)
        raise EnvironmentProblem(f"{path} cannot be written: {error.strerror}") from None
    return path, stream


def _open(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    except OSError as error:
        raise EnvironmentProblem(f"{path} cannot be written: {error.strerror}") from None


def _try_lock(stream: BinaryIO, *, shared: bool) -> bool:
    import fcntl  # not on Windows, where bundles are verified and nothing is kept

    try:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise EnvironmentProblem(f"the workspace's disk cannot hold locks: {error.strerror}") from None
    return True


def _unlock(stream: BinaryIO) -> None:
    import fcntl

    fcntl.flock(stream, fcntl.LOCK_UN)  # at once, though a child process may still have the file open
    stream.close()


def shares_workspace(
    what: str,
) -> Callable[[Callable[Concatenate[Config, P], R]], Callable[Concatenate[Config, P], R]]:
    """A function of a configuration that holds its workspace's lock, shared, while it runs."""

    def around(does: Callable[Concatenate[Config, P], R]) -> Callable[Concatenate[Config, P], R]:
        @wraps(does)
        def locked(config: Config, /, *args: P.args, **kwargs: P.kwargs) -> R:
            with workspace_lock(config.workspace, what, shared=True):
                return does(config, *args, **kwargs)

        return locked

    return around
