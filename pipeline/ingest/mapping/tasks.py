"""Rules that make a label from a source: 1 = the event, 0 = not, or a number in public limits; NaN = missing.

A label is missing only where a rule says so (a missing code, an empty cell, a variable never measured in the label
window); it is never guessed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol, final

import numpy as np
import polars as pl

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.types import Task
from pipeline.ingest.source_tables import as_numbers
from pipeline.ingest.windows import FROM_START, LENGTH, TIME_TOLERANCE_HOURS, TO_END, before

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
    if isinstance(rule, TimeRule) and rule.part != "within":
        high, unit = (rule.within_hours, "h") if rule.part == "hours" else (1.0, "1 = event, 0 = censored")
        return Task(rule.name, rule.description, "time_to_event", 0.0, high, unit)
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


@final
@dataclass(frozen=True)
class TimeRule:
    """The time from the prediction to the first event, in right-censored form; one entry makes three tasks (`parts`).

    NAME: 1 where the event came within `within_hours`, 0 where it had not and the stay was followed for as long, NaN
    where it was followed for less (censored). NAME_hours: the hours to the event, or to where it was last known not to
    have come, at most `within_hours`. NAME_observed: 1 where these are the hours of the event, 0 where they are
    censored. All three are NaN where the stay had ended when the prediction is made, or nobody knows when it ended and
    no event was seen.

    The event is the first of `variables` that satisfies `op threshold`, or at the hour (since the start of the stay)
    that `column` says; an hour before the prediction is NaN, for it is no event to come. Stays are followed to the hour
    in `followed`, or to their end. `unit` is that of both columns.
    """

    name: str
    within_hours: float
    variables: tuple[str, ...] = ()
    op: str = ">="
    threshold: float = 1.0
    column: str = ""
    followed: str = ""
    missing: tuple[float, ...] = ()
    unit: str = "hours"
    description: str = ""
    predicted_hours: float = 0.0  # the prediction's own hour; no key of a mapping, and neither is the next
    part: Literal["within", "hours", "observed"] = "within"

    def __post_init__(self) -> None:
        _comparison(self.op, self.name)
        if not 0 < self.within_hours < math.inf:
            raise ConfigError(f"task {self.name}: within_hours must be a finite number above 0")
        if bool(self.variables) == bool(self.column):
            raise ConfigError(f"task {self.name}: a time to an event needs either variables or a column")
        if self.unit not in _UNIT_HOURS:
            raise ConfigError(f"task {self.name}: unit is one of {', '.join(_UNIT_HOURS)}")

    def parts(self) -> tuple[TimeRule, ...]:
        """The three tasks that the entry makes."""
        hours = replace(self, name=f"{self.name}_hours", part="hours")
        return self, hours, replace(self, name=f"{self.name}_observed", part="observed")

    def later(self, hours: float) -> TimeRule:
        """The rule of a prediction that is made so much later."""
        return replace(self, predicted_hours=self.predicted_hours + hours)

    @property
    def windows(self) -> tuple[Window, ...]:
        if self.column:
            return ()
        return ((self.variables, self.predicted_hours, self.predicted_hours + self.within_hours),)

    def labels(self, source: LabelSource) -> np.ndarray:
        event, followed = self._event(source), self._followed(source)
        seen = np.isfinite(event) & ~(event > followed + TIME_TOLERANCE_HOURS)
        seen &= before(event, self.within_hours, closed=source.closed)
        hours = np.where(seen, event, np.minimum(followed, self.within_hours))
        lost = np.isnan(hours) | np.isnan(event) | ((followed <= 0) & ~seen)
        if self.part == "hours":
            return np.where(lost, np.nan, hours / self.within_hours)
        known = seen | (self.part == "observed") | (hours >= self.within_hours)
        return np.where(lost | ~known, np.nan, seen.astype(np.float64))

    def _event(self, source: LabelSource) -> np.ndarray:
        """Hours from the prediction to the event `(stay,)`; inf = none is known of, NaN = before the prediction."""
        if self.column:
            at = source.number(self.column, self.missing) * _UNIT_HOURS[self.unit] - self._predicted(source)
            too_soon = at < 0 if not source.closed else at <= 0
            return np.where(np.isnan(at), np.inf, np.where(too_soon, np.nan, at))
        met = source.in_window(*self.windows[0]) & _comparison(self.op, self.name)(source.value, self.threshold)
        first = np.full(source.stays.height, np.inf)
        np.minimum.at(first, source.stay[met], source.hours[met] - self.predicted_hours)
        return first

    def _followed(self, source: LabelSource) -> np.ndarray:
        """Hours from the prediction `(stay,)` to where it is last known whether the event had come; NaN = unknown."""
        if self.followed:
            return source.number(self.followed, self.missing) * _UNIT_HOURS[self.unit] - self._predicted(source)
        if TO_END in source.stays.columns:
            return source.number(TO_END, ())
        if LENGTH in source.stays.columns:
            return source.number(LENGTH, ()) - self.predicted_hours
        raise DataError(
            f"{source.source}: task {self.name} needs to know how long a stay was followed: name layout.stays.end, or "
            "a column as followed"
        )

    def _predicted(self, source: LabelSource) -> np.ndarray | float:
        """The hour of the stay at which the prediction is made."""
        there = FROM_START in source.stays.columns
        return source.number(FROM_START, ()) if there else self.predicted_hours


_UNIT_HOURS: Final[Mapping[str, float]] = {"hours": 1.0, "days": 24.0}

RULES: Final[Mapping[str, type[BinaryRule | ColumnRule | SurvivalRule | EventRule | NumberRule | TimeRule]]] = {
    "binary": BinaryRule,
    "column": ColumnRule,
    "survival": SurvivalRule,
    "event": EventRule,
    "number": NumberRule,
    "time_to_event": TimeRule,
}
