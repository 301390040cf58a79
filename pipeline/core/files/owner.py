"""Files for their owner alone: made with mode 0600, never overwriting, on the disk before the call returns."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from pipeline.core.errors import EnvironmentProblem
from pipeline.core.files.whole import sync_folder

OTHERS = 0o077


def write_owner_file(path: Path, data: bytes, what: str = "file") -> None:
    """Write a new file that only its owner can read, and wait until it is on the disk.

    It appears whole or not at all, so that of several processes that start together one makes it and all read it.

    Raises:
        EnvironmentProblem: it exists already (and stays as it is), or the disk refuses; then nothing is left behind.
    """
    draft = path.parent / f".{path.name}.{secrets.token_hex(8)}.draft"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            _write(draft, data)
            _appear(draft, path, data)
        finally:
            draft.unlink(missing_ok=True)
        sync_folder(path.parent)
    except FileExistsError:
        raise EnvironmentProblem(f"{what} {path} exists already and is never overwritten") from None
    except OSError as error:
        raise EnvironmentProblem(f"{what} {path} cannot be written: {error.strerror}") from None


def _appear(draft: Path, path: Path, data: bytes) -> None:
    """Give the draft its name, unless that is taken; without hard links (some network disks), write it once more."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:
        _write(path, data)


def _write(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def read_owner_file(path: Path, what: str = "file", if_missing: str = "") -> bytes:
    """The content of a file that nobody but its owner can read; `if_missing` ends the sentence when there is none.

    Raises:
        EnvironmentProblem: missing, not readable, or open to group or others.
    """
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            data = stream.read()
    except FileNotFoundError:
        raise EnvironmentProblem(f"{what} {path} not found{if_missing}") from None
    except OSError as error:
        raise EnvironmentProblem(f"{what} {path} cannot be read: {error.strerror}") from None
    if stat.S_IMODE(mode) & OTHERS:
        raise EnvironmentProblem(f"{what} {path} is open to group or others; run: chmod 600 {path}")
    return data
