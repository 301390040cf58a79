"""One at a time: an exclusive lock in a file beside what it protects."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.errors import EnvironmentProblem


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, `path` beside what it protects; the file stays, as removing it would let two in.

    Raises:
        EnvironmentProblem: the disk refuses.
    """
    import fcntl  # not on Windows, where bundles are verified and nothing is kept

    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise EnvironmentProblem(f"{path} cannot be written: {error.strerror}") from None
    with os.fdopen(handle, "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
