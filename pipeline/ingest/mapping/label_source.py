"""What the rules of labels look at, and what a rule is."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, final

import numpy as np
import polars as pl

from pipeline.core.errors import ConfigError, DataError
from pipeline.ingest.source_tables import as_numbers
from pipeline.ingest.windows import before

Window = tuple[tuple[str, ...], float, float]

OPS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "==": operator.eq,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


@final
@dataclass(frozen=True, eq=False, repr=False)
class LabelSource:
    """What rules look at: the table of stays, and the plausible events as flat arrays (no repr: it holds patients)."""

    stays: pl.DataFrame
    source: str
    stay: np.ndarray  # (event,) row of the stay
    variable: np.ndarray  # (event,) index into variable_names, -1 = not usable
    hours: np.ndarray  # (event,)
    value: np.ndarray  # (event,)
    variable_names: tuple[str, ...]
    closed: bool = False

    def number(self, column: str, missing: tuple[float, ...]) -> np.ndarray:
        """A column of the stays as float64 `(stay,)`; empty cells, infinities and `missing` codes are NaN."""
        if column not in self.stays.columns:
            raise DataError(f"{self.source}: the label column {column} is missing from the table of stays")
        numbers = as_numbers(self.stays[column], self.source).to_numpy().astype(np.float64)
        return np.where(np.isfinite(numbers) & ~np.isin(numbers, missing), numbers, np.nan)

    def in_window(self, names: tuple[str, ...], after_hours: float, to_hours: float) -> np.ndarray:
        """Which events are of these variables, in [after_hours, to_hours), or with `closed` in (after_hours, to_hours].

        So a window that begins where the input ends has what happens at exactly that time, which the input has not.
        """
        codes = [self.variable_names.index(name) for name in names]
        begun, ended = (before(self.hours, hour, closed=self.closed) for hour in (after_hours, to_hours))
        later = ~begun & ended
        found: np.ndarray = np.isin(self.variable, codes) & later
        return found


class TaskRule(Protocol):
    """A rule with its name; the source's columns or the mapping's variables that it reads are its own fields."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...

    def labels(self, source: LabelSource) -> np.ndarray:
        """`(stay,)` float64: 0, 1 or NaN; of a number in [0, 1]."""
        ...

    @property
    def windows(self) -> tuple[Window, ...]:
        """(variables, after_hours, to_hours) of the events that the labels rest on."""
        ...


def comparison(op: str, name: str) -> Callable[[Any, Any], Any]:
    """What `op` means, in a task's rule.

    Raises:
        ConfigError: it is none.
    """
    if op not in OPS:
        raise ConfigError(f"task {name}: op is one of {', '.join(OPS)}")
    return OPS[op]
