"""Rules that make a label from a source: 1 = the event, 0 = not, or a number in public limits; NaN = missing.

A label is missing only where a rule says so (a missing code, an empty cell, a variable never measured in the label
window); it is never guessed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, final

import numpy as np
import polars as pl

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.types import Task
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


def task_of(rule: TaskRule) -> Task:
    """The task as later stages know it."""
    if isinstance(rule, NumberRule):
        return Task(rule.name, rule.description, "regression", rule.low, rule.high, rule.unit)
    return Task(rule.name, rule.description)


def _comparison(op: str, name: str) -> Callable[[Any, Any], Any]:
    if op not in OPS:
        raise ConfigError(f"task {name}: op is one of {', '.join(OPS)}")
    return OPS[op]


@final
@dataclass(frozen=True)
class BinaryRule:
    """The column itself, which must hold 0, 1 or a missing code."""

    name: str
    column: str
    missing: tuple[float, ...] = ()
    description: str = ""

    @property
    def windows(self) -> tuple[Window, ...]:
        return ()

    def labels(self, source: LabelSource) -> np.ndarray:
        numbers = source.number(self.column, self.missing)
        strange = int((~np.isnan(numbers) & (numbers != 0) & (numbers != 1)).sum())
        if strange:
            raise DataError(f"{source.source}: {strange} stays have neither 0 nor 1 in the label column {self.column}")
        return numbers


@final
@dataclass(frozen=True)
class ColumnRule:
    """`column op threshold`; missing codes give a missing label."""

    name: str
    column: str
    op: str
    threshold: float
    missing: tuple[float, ...] = ()
    description: str = ""

    def __post_init__(self) -> None:
        _comparison(self.op, self.name)

    @property
    def windows(self) -> tuple[Window, ...]:
        return ()

    def labels(self, source: LabelSource) -> np.ndarray:
        numbers = source.number(self.column, self.missing)
        return np.where(np.isnan(numbers), np.nan, _comparison(self.op, self.name)(numbers, self.threshold))


@final
@dataclass(frozen=True)
class SurvivalRule:
    """1 when 0 < days survived <= `within_days`; anything else known, a code for "no death recorded" too, is 0."""

    name: str
    column: str
    within_days: float
    missing: tuple[float, ...] = ()
    description: str = ""

    @property
    def windows(self) -> tuple[Window, ...]:
        return ()

    def labels(self, source: LabelSource) -> np.ndarray:
        days = source.number(self.column, self.missing)
        return np.where(np.isnan(days), np.nan, (days > 0) & (days <= self.within_days))


@final
@dataclass(frozen=True)
class EventRule:
    """1 when any plausible event of `variables` in the label window satisfies `op threshold`, else 0.

    A stay without such an event has a missing label, or 0 with `unmeasured_is_zero` (for what is charted only while it
    lasts, such as ventilation).
    """

    name: str
    variables: tuple[str, ...]
    op: str
    threshold: float
    after_hours: float
    to_hours: float
    unmeasured_is_zero: bool = False
    description: str = ""

    def __post_init__(self) -> None:
        _comparison(self.op, self.name)
        if not self.after_hours < self.to_hours:
            raise ConfigError(f"task {self.name}: after_hours must be smaller than to_hours")

    def later(self, hours: float) -> EventRule:
        """The rule with its window so much later."""
        return replace(self, after_hours=self.after_hours + hours, to_hours=self.to_hours + hours)

    @property
    def windows(self) -> tuple[Window, ...]:
        return ((self.variables, self.after_hours, self.to_hours),)

    def labels(self, source: LabelSource) -> np.ndarray:
        used = source.in_window(self.variables, self.after_hours, self.to_hours)
        stay, met = source.stay[used], _comparison(self.op, self.name)(source.value[used], self.threshold)
        stays = source.stays.height
        measured = np.bincount(stay, minlength=stays) > 0
        positive = np.bincount(stay[met], minlength=stays) > 0
        return np.where(measured | self.unmeasured_is_zero, positive.astype(np.float64), np.nan)


@final
@dataclass(frozen=True)
class NumberRule:
    """The column as a regression target: [low, high], public limits in `unit`, become [0, 1]; beyond, the nearer limit.

    A cohort holds it only where its tasks are named: it never comes by default.
    """

    name: str
    column: str
    low: float
    high: float
    missing: tuple[float, ...] = ()
    unit: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigError(f"task {self.name}: low must be smaller than high")

    @property
    def windows(self) -> tuple[Window, ...]:
        return ()

    def labels(self, source: LabelSource) -> np.ndarray:
        clipped: np.ndarray = np.clip(self._scaled(source), 0.0, 1.0)
        return clipped

    def beyond(self, source: LabelSource) -> int:
        """How many stays have a value outside the limits."""
        scaled = self._scaled(source)
        return int(((scaled < 0) | (scaled > 1)).sum())

    def _scaled(self, source: LabelSource) -> np.ndarray:
        numbers = source.number(self.column, self.missing)
        scaled: np.ndarray = (numbers - self.low) / (self.high - self.low)
        return scaled


RULES: Final[Mapping[str, type[BinaryRule | ColumnRule | SurvivalRule | EventRule | NumberRule]]] = {
    "binary": BinaryRule,
    "column": ColumnRule,
    "survival": SurvivalRule,
    "event": EventRule,
    "number": NumberRule,
}
