"""Arrays larger than memory: they stay in their files, are read in chunks and are never copied whole.

A mapped array is a numpy array whose bytes lie in a file (`np.memmap` or a view of one), read-only here. Everything
that takes arrays takes it; what must not be done is to make something of its size in memory.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

CHUNK_BYTES: Final = 1 << 26  # read at a time
LARGE_BYTES: Final = 1 << 28  # an array of this size stays in its file, and so do rows of it that are as large


def row_chunks(array: np.ndarray, chunk_bytes: int | None = None) -> Iterator[slice]:
    """Slices of the first axis, of about `chunk_bytes` (None = `CHUNK_BYTES`) each and one row at least."""
    row = max(array.itemsize * int(np.prod(array.shape[1:], dtype=np.int64)), 1)
    size = max((CHUNK_BYTES if chunk_bytes is None else chunk_bytes) // row, 1)
    return (slice(start, start + size) for start in range(0, len(array), size))


def all_finite(array: np.ndarray) -> bool:
    """Whether no value is NaN or infinite, without a mask of the array's size."""
    return all(bool(np.isfinite(array[part]).all()) for part in row_chunks(array))


def file_of(array: np.ndarray) -> Path | None:
    """The file that the array's bytes lie in; None = they lie in memory."""
    found: object = array
    while found is not None:
        if isinstance(found, np.memmap) and found.filename is not None:
            return Path(os.fspath(found.filename))
        found = getattr(found, "base", None)
    return None


def folder_of(array: np.ndarray) -> Path | None:
    """The folder of the array's file, where what is made of it may lie, too; None = it lies in memory."""
    file = file_of(array)
    return None if file is None else file.parent


def new_array(shape: tuple[int, ...], dtype: Any, folder: Path | None) -> np.ndarray:
    """An array to be filled: in memory, but where it is large and there is a `folder`, in a file there.

    The file was never given a name and is gone with the last view of it. Its room is taken at once: a full disk is an
    error here, and not the end of the process when the array is written.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    size = np.dtype(dtype).itemsize * math.prod(shape)
    if folder is None or size < LARGE_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        take_room(file.fileno(), size)
        made: np.ndarray = np.memmap(file, dtype, "r+", shape=shape)
    vars(made)["filename"] = os.fspath(folder / "(unnamed)")
    return made


def take_room(handle: int, size: int) -> None:
    """Make an open file `size` bytes long, all of them on the disk.

    Raises:
        OSError: they do not fit.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:  # macOS
        os.truncate(handle, size)


def rows_of(array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`array[rows]`; of a mapped array a view where the rows lie together, and a file where they are large.

    That file is beside the array's own, was never given a name and is gone with the last view of it: records do not
    leave their folder, and nothing is left behind by a kill.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    source = file_of(array)
    if source is None:
        return np.asarray(array[rows])
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and bool((np.diff(rows) == 1).all()):
        return np.asarray(array[rows[0] : rows[-1] + 1])
    shape = (len(rows), *array.shape[1:])
    if array.itemsize * int(np.prod(shape, dtype=np.int64)) < LARGE_BYTES:
        return np.asarray(array[rows])
    with tempfile.TemporaryFile(dir=source.parent) as file:
        for part in row_chunks(np.broadcast_to(array[:1], shape)):
            file.write(np.ascontiguousarray(array[rows[part]]).data)
        file.flush()
        taken: np.ndarray = np.memmap(file, array.dtype, "r", shape=shape)
    vars(taken)["filename"] = os.fspath(source)  # rows of these rows go to the same folder
    return taken
