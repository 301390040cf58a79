"""A teacher's risk of a prepared series, and a risk under another share of events: numpy alone, for receivers, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, final

import numpy as np

from pipeline.core.teacher_form import items_of

LARGEST_LOGIT: Final = 8.0
LEAST_RISK: Final = 1e-7  # a predicted risk is taken to lie that far from 0 and 1


def logarithmic(shares: np.ndarray, skewed: np.ndarray, slope: float) -> np.ndarray:
    """log(1 + slope x) / log(1 + slope) of the skewed channels of `(..., channel)` in [0, 1]; else as they are."""
    return np.where(skewed, np.log1p(slope * shares) / np.log1p(slope), shares)


class Feature(NamedTuple):
    """One number that a teacher reads off one channel."""

    channel: int
    statistic: str
    first: int  # step
    last: int  # the step after it
    side: str
    normal: float
    logarithmic: bool


@final
@dataclass(frozen=True)
class Features:
    """What a teacher reads off a prepared series: a number for each item."""

    low: float
    high: float
    log_slope: float
    items: tuple[Feature, ...]

    def of(self, series: np.ndarray) -> np.ndarray:
        """`(stay, step, channel)`, clipped to the range -> `(stay, item)` in [-1/2, 1/2]."""
        shares = (np.clip(np.asarray(series, dtype=np.float64), self.low, self.high) - self.low) / (
            self.high - self.low
        )
        channels = np.array([item.channel for item in self.items])
        found = np.empty((len(shares), len(self.items)))
        windows = [(item.statistic, item.first, item.last) for item in self.items]
        for window in dict.fromkeys(windows):
            statistic, first, last = window
            places = [place for place, other in enumerate(windows) if other == window]
            found[:, places] = getattr(shares[:, first:last, channels[places]], statistic)(axis=1)
        side, normal = np.array([item.side for item in self.items]), np.array([item.normal for item in self.items])
        levels = logarithmic(found, np.array([item.logarithmic for item in self.items]), self.log_slope)
        beyond = np.maximum(np.where(side == "above", found - normal, normal - found), 0.0)
        return np.where(side == "level", levels, beyond) - 0.5


def features_of(description: Mapping[str, Any], channels: Sequence[str], n_steps: int) -> Features:
    """The features that a description names (`pipeline.core.teacher_form`)."""
    place = {name: index for index, name in enumerate(channels)}
    low, high = description["range"]
    items = tuple(
        Feature(
            channel=place[item["channel"]],
            statistic=str(item["statistic"]),
            first=int(item["steps"][0]),
            last=int(item["steps"][1]),
            side=str(item["side"]),
            normal=float(item["normal"]),
            logarithmic=item["side"] == "level" and item["channel"] in description["skewed"],
        )
        for item in items_of(description, channels, n_steps)
    )
    return Features(float(low), float(high), float(description["log_slope"]), items)


def teacher_risks(
    series: np.ndarray, teacher: np.ndarray, description: Mapping[str, Any], channels: Sequence[str]
) -> np.ndarray:
    """Predicted risk of every task (of a number: its mean label): `(stay, task)` of `(stay, step, channel)`.

    Args:
        teacher: `(task, 1 + feature)`, intercepts first. description: as `pipeline.core.teacher_form` says.
    """
    found = features_of(description, channels, series.shape[1]).of(series)
    logits = np.clip(found @ teacher[:, 1:].T + teacher[:, 0], -LARGEST_LOGIT, LARGEST_LOGIT)
    return np.asarray(1 / (1 + np.exp(-logits)))


def shifted(risks: np.ndarray, shift: np.ndarray | float) -> np.ndarray:
    """The risks whose log odds are higher by `shift`: from balanced labels to events as frequent as they are.

    Elkan (2001, theorem 2): a model that learnt from labels whose log odds were moved by a constant predicts log odds
    that are moved by it. Ranks stay as they are. `risks` in [0, 1], `(..., task)` beside a shift `(task,)`.
    """
    inside = np.clip(np.asarray(risks, dtype=np.float64), LEAST_RISK, 1 - LEAST_RISK)
    return np.asarray(1 / (1 + (1 - inside) / inside * np.exp(-np.asarray(shift))))
