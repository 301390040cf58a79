"""Rows of events that are more than memory: put in as files are read, in any order of stays, and got back by block."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Final, final

import numpy as np
import polars as pl

from pipeline.core.files.mapped import LARGE_BYTES

BLOCK_STAYS: Final = 4096
"""Stays taken together: their events, some hundreds a stay, are what is held at a time."""

_COLUMNS: Final = {"row": "<u4", "hours": "<f8", "variable": "<u4", "value": "<f8"}


@final
@dataclass(frozen=True)
class _Batch:
    """Rows that came together, by block: where their columns begin, and the row at which each block does.

    `edges` are of the blocks from `first` to the last that the rows are of: mostly of one, however many there are.
    """

    order: int
    place: int
    rows: int
    first: int
    edges: np.ndarray  # (block + 1,)


@final
class SpilledRows:
    """Rows (row of the table of stays, hours, variable, value, or also when known) by block of stays.

    They are in memory, or if many in a file. The file lies in `folder`, has no name and is gone with this object;
    without a folder all stay in memory. Any number of threads may add.
    """

    def __init__(
        self, n_stays: int, names: Sequence[str], folder: Path | None, size: int | None = None, *, known: bool = False
    ) -> None:
        self._known = known
        self._columns = {**_COLUMNS, "known": "<f8"} if known else _COLUMNS
        self.size = BLOCK_STAYS if size is None else size
        self.n_blocks = -(-n_stays // self.size)
        self._folder = folder
        self.height = 0
        self._kind = pl.Enum(list(names))
        most, place = (0, None) if folder is None else (LARGE_BYTES, str(folder))  # 0 = no limit
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(most, dir=place)  # noqa: SIM115 (closed by `close`)
        self._batches: list[_Batch] = []
        self._end = 0
        self._lock = Lock()

    def add(self, order: int, frame: pl.DataFrame) -> None:
        """Put rows; a block gives them back by `order`, and of one order as they were added.

        Raises:
            OSError: the disk is full.
        """
        if not frame.height:
            return
        block = frame["row"].to_numpy() // self.size
        sorted_by: slice | np.ndarray = slice(None)
        if (block[1:] < block[:-1]).any():
            sorted_by = np.argsort(block, kind="stable")
            block = block[sorted_by]
        first = int(block[0])
        edges = np.searchsorted(block, np.arange(first, int(block[-1]) + 2))
        columns = [_bytes(frame[name], kind)[sorted_by] for name, kind in self._columns.items()]
        with self._lock:
            self._file.seek(self._end)
            for column in columns:
                self._file.write(column.data)
            self._batches.append(_Batch(order, self._end, frame.height, first, edges))
            self._end += sum(column.nbytes for column in columns)
            self.height += frame.height

    def block(self, number: int) -> pl.DataFrame:
        """The rows of a block of stays."""
        found: dict[str, list[np.ndarray]] = {name: [] for name in self._columns}
        with self._lock:
            here = [batch for batch in self._batches if 0 <= number - batch.first < len(batch.edges) - 1]
            for batch in sorted(here, key=lambda batch: batch.order):
                first, last = batch.edges[number - batch.first : number - batch.first + 2].tolist()
                place = batch.place
                for name, kind in self._columns.items() if last > first else ():
                    width = np.dtype(kind).itemsize
                    self._file.seek(place + first * width)
                    found[name].append(np.frombuffer(self._file.read((last - first) * width), kind))
                    place += batch.rows * width
        columns = {name: np.concatenate([np.zeros(0, self._columns[name]), *parts]) for name, parts in found.items()}
        codes = columns["variable"].astype(np.uint32)
        return pl.DataFrame(columns).with_columns(pl.Series("variable", codes).cat.to(self._kind))

    def changed(self, change: Callable[[pl.DataFrame], pl.DataFrame], n_stays: int) -> SpilledRows:
        """Every block after `change`, which may drop rows and move them to others of `n_stays`; these here are gone."""
        made = SpilledRows(n_stays, self._kind.categories.to_list(), self._folder, self.size, known=self._known)
        for number in range(self.n_blocks):
            made.add(number, change(self.block(number)))
        self.close()
        return made

    def moved(self, place: np.ndarray, n_stays: int) -> SpilledRows:
        """The rows of stays that have a place among `n_stays`, `place` `(stay,)` (-1 = none); these here are gone."""

        def move(frame: pl.DataFrame) -> pl.DataFrame:
            found = place[frame["row"].to_numpy()]
            return frame.with_columns(row=pl.Series(found)).filter(pl.Series(found >= 0))

        return self.changed(move, n_stays)

    def close(self) -> None:
        """Give memory and disk back."""
        self._file.close()
        self._batches = []


def are_large(n_bytes: int) -> bool:
    """Whether so many bytes of rows are more than memory should hold."""
    return n_bytes >= LARGE_BYTES


def _bytes(column: pl.Series, kind: str) -> np.ndarray:
    values = column.to_physical() if isinstance(column.dtype, pl.Enum) else column
    return values.to_numpy().astype(kind, copy=False)
