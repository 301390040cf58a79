"""The rule of a time to an event, in right-censored form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, final

import numpy as np

from pipeline.core.errors import ConfigError, DataError
from pipeline.ingest.mapping.label_source import LabelSource, Window, comparison
from pipeline.ingest.windows import FROM_START, LENGTH, TIME_TOLERANCE_HOURS, TO_END, before

_UNIT_HOURS: Final[Mapping[str, float]] = {"hours": 1.0, "days": 24.0}


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
        comparison(self.op, self.name)
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
        met = source.in_window(*self.windows[0]) & comparison(self.op, self.name)(source.value, self.threshold)
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
