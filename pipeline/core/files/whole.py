"""A file is on the disk whole, or not there: write beside, sync, rename. One place for what every writer needs."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_synced(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write a new file and wait until it is on the disk; it never has a wider `mode` than that, less the umask.

    Raises:
        OSError: it exists (FileExistsError), or the disk refuses.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def put_whole(path: Path, data: bytes, *, staged_in: Path | None = None, mode: int = 0o666) -> None:
    """Write the file, or put it in the place of an older one, in one step: a kill leaves the old one or the new one.

    What is staged lies beside the file under a hidden name, or in `staged_in` (of the same file system) where the
    file's folder must never hold anything else.

    Raises:
        OSError: the disk refuses; the old file is as it was.
    """
    staged = (staged_in or path.parent) / f".{path.name}.{secrets.token_hex(8)}.new"
    try:
        write_synced(staged, data, mode)
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the folder's entries are on the disk: a file's own fsync does not keep its name."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
