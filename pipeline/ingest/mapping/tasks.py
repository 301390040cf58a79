"""Rules that make a label from a source: 1 = the event, 0 = not, or a number in public limits; NaN = missing.

A label is missing only where a rule says so (a missing code, an empty cell, a variable never measured in the label
window); it is never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.types import Task
from pipeline.ingest.mapping.label_source import LabelSource, TaskRule, Window, comparison
from pipeline.ingest.mapping.time_to_event import TimeRule


def task_of(rule: TaskRule) -> Task:
    """The task as later stages know it."""
    if isinstance(rule, TimeRule) and rule.part != "within":
        high, unit = (rule.within_hours, "h") if rule.part == "hours" else (1.0, "1 = event, 0 = censored")
        return Task(rule.name, rule.description, "time_to_event", 0.0, high, unit)
    if isinstance(rule, NumberRule):
        return Task(rule.name, rule.description, "regression", rule.low, rule.high, rule.unit)
    return Task(rule.name, rule.description)


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
        comparison(self.op, self.name)

    @property
    def windows(self) -> tuple[Window, ...]:
        return ()

    def labels(self, source: LabelSource) -> np.ndarray:
        numbers = source.number(self.column, self.missing)
        return np.where(np.isnan(numbers), np.nan, comparison(self.op, self.name)(numbers, self.threshold))


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
        comparison(self.op, self.name)
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
        stay, met = source.stay[used], comparison(self.op, self.name)(source.value[used], self.threshold)
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


RULES: Final[Mapping[str, type[BinaryRule | ColumnRule | SurvivalRule | EventRule | NumberRule | TimeRule]]] = {
    "binary": BinaryRule,
    "column": ColumnRule,
    "survival": SurvivalRule,
    "event": EventRule,
    "number": NumberRule,
    "time_to_event": TimeRule,
}
