"""What is publicly known of a prepared series' channels, read off the transforms and never off the values.

Everything that a private teacher and a public process take for granted stands here: the range, the constant of a
variable that nobody measured, which channels are statics, shares or skewed, which hold their values. A rule reads it
off what the mapping states in public, so no data set is named and no list is made for a task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, final

import numpy as np
from jaxtyping import Bool, Float64

from condensation.private.feature_map import LevelAndTrend, public_range
from condensation.roles import roles_of
from pipeline.core.digest import digest_json
from pipeline.core.errors import ConfigError
from pipeline.core.risk import features_of, logarithmic
from pipeline.core.teacher_form import STEP, described, described_items, n_features
from pipeline.core.transforms import leaves_channels
from pipeline.core.types import Json, ScoreItem, Task

KIND: Final = "late_level"
VERSION: Final = 1
SKEWED_ABOVE: Final = 4.0  # upper end of the public range over the normal value
LOG_SLOPE: Final = 15.0  # lg x = log(1 + 15 x) / log 16, from [0, 1] onto [0, 1]
CONCENTRATIONS: Final = ("/L", "/dL", "/mL", "pH")  # ends of a laboratory value's unit
OBSERVED: Final = "observed:"


@final
@dataclass(frozen=True)
class PublicChannels:
    """The public facts of `n_steps` x `channel` series in [low, high]; arrays are `(channel,)`, values in [0, 1].

    "Scaled" below means: clipped to the public range, mapped to [0, 1], and there `lg` where the channel is skewed.
    """

    names: tuple[str, ...]
    n_steps: int
    step_hours: float
    low: float
    high: float
    skewed: Bool[np.ndarray, " channel"]
    start: Float64[np.ndarray, " channel"]  # scaled; what stands where nothing was measured, NaN = no such constant
    floor: Float64[np.ndarray, " channel"]  # plausible limits, linear in [0, 1]
    ceiling: Float64[np.ndarray, " channel"]
    binary: Bool[np.ndarray, " channel"]  # 0 or 1
    held: Bool[np.ndarray, " channel"]  # a laboratory value, which stands until the next one
    static: Bool[np.ndarray, " channel"]
    mask: Bool[np.ndarray, " channel"]  # whether something was measured in that step, or the stay still lasts
    falling: Bool[np.ndarray, " channel"]  # of those, what never rises again
    items: tuple[Json, ...] = ()  # what the tasks' scores read (`pipeline.core.teacher_form`); none: late levels

    @property
    def half_range(self) -> float:
        """Largest |level - middle|."""
        return 0.5

    @property
    def n_features(self) -> int:
        """Of the teacher."""
        return n_features(self.of_features(), self.names)

    @property
    def weights(self) -> Float64[np.ndarray, " feature"]:
        """Public importance of the teacher's features: all alike."""
        return np.ones(self.n_features)

    @property
    def blocks(self) -> LevelAndTrend:
        """Where the early block ends and the late one starts."""
        return LevelAndTrend(self.n_steps, len(self.names), self.low, self.high)

    def scaled(self, linear: np.ndarray) -> np.ndarray:
        """`lg` of the skewed channels of `(..., channel)` in [0, 1]."""
        return logarithmic(linear, self.skewed, LOG_SLOPE)

    def linear(self, scaled: np.ndarray) -> np.ndarray:
        """The inverse of `scaled`."""
        return np.where(self.skewed, np.expm1(scaled * np.log1p(LOG_SLOPE)) / LOG_SLOPE, scaled)

    def shares(self, series: np.ndarray) -> Float64[np.ndarray, "stay step channel"]:
        """The series as shares of the public range, clipped to [0, 1], linear."""
        clipped = np.clip(np.asarray(series, dtype=np.float64), self.low, self.high)
        return np.asarray((clipped - self.low) / (self.high - self.low))

    def features(self, series: np.ndarray) -> Float64[np.ndarray, "stay feature"]:
        """The teacher's, in [-1/2, 1/2]: `items`, or the scaled mean of each channel's last quarter, less 1/2."""
        return features_of(self.of_features(), self.names, self.n_steps).of(series)

    def of_features(self) -> dict[str, object]:
        """What a receiver needs to compute `features`: `pipeline.core.teacher_form`."""
        skewed = self._named(self.skewed)
        if self.items:
            return described_items(self.low, self.high, self.items, LOG_SLOPE, skewed)
        return described(self.low, self.high, self.blocks.late_start, LOG_SLOPE, skewed)

    def describe(self) -> dict[str, object]:
        """All of it as plain data; a release's account names its digest."""
        return {
            "kind": KIND,
            "version": VERSION,
            "channels": list(self.names),
            "n_steps": self.n_steps,
            "step_hours": self.step_hours,
            "range": [self.low, self.high],
            "late_start": self.blocks.late_start,
            "early_end": self.blocks.early_end,
            "log_slope": LOG_SLOPE,
            "skewed": self._named(self.skewed),
            "start": [None if np.isnan(value) else round(float(value), 9) for value in self.start],
            "floor": [round(float(value), 9) for value in self.floor],
            "ceiling": [round(float(value), 9) for value in self.ceiling],
            **{kind: self._named(getattr(self, kind)) for kind in ("binary", "held", "static", "mask", "falling")},
            **({"items": [dict(item) for item in self.items]} if self.items else {}),
        }

    def digest(self) -> str:
        """Of what `describe` says."""
        return digest_json(self.describe())

    def _named(self, which: np.ndarray) -> list[str]:
        return [name for name, chosen in zip(self.names, which, strict=True) if chosen]


def public_channels(
    channels: Sequence[str], transforms: Sequence[Json], n_steps: int, step_hours: float, tasks: Sequence[Task] = ()
) -> PublicChannels:
    """The channels as the transforms describe them, and what the tasks' scores read of them.

    Rules: skewed = the range's upper end is more than 4 times the normal value, both above 0; binary = the mapping
    says "0 ..." as the unit of a range from 0 to 1; held = the unit is a concentration. After an encoding nothing is
    known but the range and the masks that bypass it, so no score item can be read.

    Raises:
        ConfigError: a task's score reads a variable that is not among the channels.
    """
    low, high = public_range(tuple(transforms))
    roles = roles_of(channels, transforms)
    count = len(channels)
    facts = [_Facts()] * count if (low, high) != (0.0, 1.0) else _scaling_facts(channels, transforms)
    mask = _at(roles.masks, count)
    skewed = np.array([fact.skewed for fact in facts], dtype=bool) & ~mask
    start = np.array([fact.start for fact in facts], dtype=np.float64)
    start[mask] = 0.0
    made = PublicChannels(
        names=tuple(channels),
        n_steps=n_steps,
        step_hours=float(step_hours),
        low=low,
        high=high,
        skewed=skewed,
        start=start,
        floor=np.array([fact.floor for fact in facts], dtype=np.float64),
        ceiling=np.array([fact.ceiling for fact in facts], dtype=np.float64),
        binary=np.array([fact.binary for fact in facts], dtype=bool) | mask,
        held=np.array([fact.held for fact in facts], dtype=bool) & ~mask,
        static=_at(roles.static, count),
        mask=mask,
        falling=_at(roles.falling, count),
    )
    if leaves_channels(transforms) and any(task.score_items for task in tasks):
        items = tuple(item for task in tasks for item in _items(made, task))
        first = {tuple(map(str, item.values())): item for item in reversed(items)}
        made = replace(made, items=tuple(reversed(first.values())))
    made.start[:] = made.scaled(made.start)
    return made


def _items(known: PublicChannels, task: Task) -> Iterator[dict[str, object]]:
    """Of one task, as `teacher_form` has them: its score items, or every channel's late level. `start` is linear."""
    windows = {
        "late": [known.blocks.late_start, known.n_steps],
        "first_half": [0, known.blocks.early_end],
        "second_half": [min(known.blocks.early_end, known.n_steps - 1), known.n_steps],
        "whole": [0, known.n_steps],
    }
    for item in task.score_items or [ScoreItem(name) for name in known.names]:
        places = [place for place, name in enumerate(known.names) if name in (item.variable, *_categories(known, item))]
        if not places:
            raise ConfigError(f"task {task.name}: its score reads {item.variable}, which is no channel of the series")
        for place in places:
            normal = 0.0 if np.isnan(known.start[place]) else float(known.start[place])
            yield {
                "channel": known.names[place],
                "statistic": item.statistic,
                "steps": windows[item.window],
                "side": item.side,
                "normal": 0.0 if item.side == "level" else round(normal / STEP) * STEP,
            }


def _categories(known: PublicChannels, item: ScoreItem) -> list[str]:
    """The channels of a static's categories."""
    of = zip(known.names, known.static, strict=True)
    return [name for name, static in of if static and name.startswith(f"{item.variable}:")]


@final
@dataclass(frozen=True)
class _Facts:
    """Of one channel; linear shares of its range."""

    skewed: bool = False
    start: float = np.nan
    floor: float = 0.0
    ceiling: float = 1.0
    binary: bool = False
    held: bool = False


def _scaling_facts(channels: Sequence[str], transforms: Sequence[Json]) -> list[_Facts]:
    """What scaling and imputation say of each channel; nothing where an encoding came after them."""
    scaling: Json = next((step for step in transforms if step["kind"] == "scaling"), {})
    imputation: Json = next((step for step in transforms if step["kind"] == "imputation"), {})
    normal: Mapping[str, float] = imputation.get("never_observed", {})
    place = {name: index for index, name in enumerate(scaling.get("channels", ()))}
    if not place or not leaves_channels(transforms):
        return [_Facts()] * len(channels)
    return [_facts(scaling, place[name], normal.get(name)) if name in place else _Facts() for name in channels]


def _facts(scaling: Json, place: int, normal: float | None) -> _Facts:
    low, high = float(scaling["low"][place]), float(scaling["high"][place])
    unit = str(_listed(scaling, "units", place, ""))
    floor = (float(_listed(scaling, "plausible_low", place, low)) - low) / (high - low)
    ceiling = (float(_listed(scaling, "plausible_high", place, high)) - low) / (high - low)
    floor, ceiling = max(floor, 0.0), min(ceiling, 1.0)
    return _Facts(
        skewed=normal is not None and low >= 0 and normal > 0 and high / normal > SKEWED_ABOVE,
        start=np.nan if normal is None else float(np.clip((normal - low) / (high - low), 0.0, 1.0)),
        floor=floor if floor < ceiling else 0.0,
        ceiling=ceiling if floor < ceiling else 1.0,
        binary=(low, high) == (0.0, 1.0) and unit.startswith("0"),
        held=unit.endswith(CONCENTRATIONS),
    )


def _listed(scaling: Json, name: str, place: int, otherwise: Any) -> Any:
    return scaling[name][place] if name in scaling else otherwise


def _at(places: Sequence[int], count: int) -> np.ndarray:
    found = np.zeros(count, dtype=bool)
    found[list(places)] = True
    return found
