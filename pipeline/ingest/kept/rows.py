"""Rows of events that memory holds: as `SpilledRows`, but nothing is copied or cut up by block."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import final

import polars as pl


@final
class KeptRows:
    """Rows (row of the table of stays, hours, variable, value, or also when known) in the order of files.

    Any number of threads may add.
    """

    def __init__(self, kind: pl.Enum, *, known: bool = False) -> None:
        self._schema = {"row": pl.UInt32(), "hours": pl.Float64(), "variable": kind, "value": pl.Float64()}
        self._schema |= {"known": pl.Float64()} if known else {}
        self._frames: dict[int, list[pl.DataFrame]] = {}
        self._lock = Lock()

    def add(self, order: int, frame: pl.DataFrame) -> None:
        """Put rows; they come back by `order`, and of one order as they were added."""
        with self._lock:
            self._frames.setdefault(order, []).append(frame)

    def changed(self, change: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.DataFrame:
        """All rows after `change`; these here are gone."""
        frames = [frame for order in sorted(self._frames) for frame in self._frames[order]]
        self._frames = {}
        return change(pl.concat([pl.DataFrame(schema=self._schema), *frames]))
