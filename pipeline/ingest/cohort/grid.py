"""From flat events to a regular grid: stable sort by cell and time, then one reduction per aggregation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from pipeline.core.types import Aggregation
from pipeline.ingest.windows import TIME_TOLERANCE_HOURS, before

Reduction = Callable[[np.ndarray, np.ndarray], np.ndarray]


def step_of(hours: np.ndarray, step_hours: float, n_steps: int, *, closed: bool = False) -> np.ndarray:
    """The grid step of each time `(event,)`: floor(hours / step_hours), -1 outside the window [0, end).

    With `closed` an event at exactly the end belongs to the last step (PhysioNet 2012's records run from 00:00 to
    48:00); otherwise it comes after the input: the row of hour 24 of an hourly table begins at the prediction time.
    """
    step = np.floor((hours + TIME_TOLERANCE_HOURS) / step_hours)
    inside = (hours >= 0) & before(hours, n_steps * step_hours, closed=closed)
    return np.where(inside, np.minimum(step, n_steps - 1), -1).astype(np.int32)


def _sum(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    total: np.ndarray = np.add.reduceat(values, starts, dtype=np.float64)
    return total


def _mean(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    mean: np.ndarray = _sum(values, starts) / np.diff(np.append(starts, len(values)))
    return mean


def _last(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    last: np.ndarray = values[np.append(starts[1:], len(values)) - 1]
    return last


REDUCTIONS: Final[Mapping[Aggregation, Reduction]] = {
    "mean": _mean,
    "last": _last,
    "sum": _sum,
    "max": np.maximum.reduceat,
    "min": np.minimum.reduceat,
}


def to_grid(
    stay: np.ndarray,
    step: np.ndarray,
    variable: np.ndarray,
    hours: np.ndarray,
    value: np.ndarray,
    aggregations: tuple[Aggregation, ...],
    shape: tuple[int, int, int],
) -> np.ndarray:
    """float32 `shape` = (stay, step, variable), NaN where there was no event.

    Sums run in float64 over the events of a cell in the order of the source, so that the result does not depend on
    threads; "last" is the last in time, then in the order of the source. Fresh memory costs more than arithmetic here,
    hence the narrow integers.
    """
    grid = np.full(shape, np.nan, dtype=np.float32)
    if not len(value):
        return grid
    index_type = np.int32 if grid.size < np.iinfo(np.int32).max else np.int64
    cell = (stay.astype(index_type) * shape[1] + step) * shape[2] + variable
    in_time = "last" in aggregations  # the others do not ask for the order of time
    order = np.lexsort((hours, cell)) if in_time else np.argsort(cell, kind="stable")
    cells, values = cell[order], value[order]
    starts = np.flatnonzero(np.append(True, cells[1:] != cells[:-1]))
    cells = cells[starts]
    kinds = tuple(dict.fromkeys(aggregations))
    kind_of_cell = np.array([kinds.index(kind) for kind in aggregations], dtype=np.int8)[cells % shape[2]]
    for index, kind in enumerate(kinds):
        chosen = kind_of_cell == index
        grid.reshape(-1)[cells[chosen]] = REDUCTIONS[kind](values, starts)[chosen]
    return grid
