"""A teacher's risk of a prepared series, and a risk under another share of events: numpy alone, for receivers, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

LARGEST_LOGIT: Final = 8.0
LEAST_RISK: Final = 1e-7  # a predicted risk is taken to lie that far from 0 and 1


def logarithmic(shares: np.ndarray, skewed: np.ndarray, slope: float) -> np.ndarray:
    """log(1 + slope x) / log(1 + slope) of the skewed channels of `(..., channel)` in [0, 1]; else as they are."""
    return np.where(skewed, np.log1p(slope * shares) / np.log1p(slope), shares)


def late_levels(
    series: np.ndarray, limits: tuple[float, float], late_start: int, skewed: np.ndarray, log_slope: float
) -> np.ndarray:
    """Mean share of the range from step `late_start` on, logarithmic where skewed, less 1/2: `(stay, channel)`.

    Args:
        series: `(stay, step, channel)`; clipped to `limits`. skewed: `(channel,)`.
    """
    low, high = limits
    late = np.clip(np.asarray(series, dtype=np.float64)[:, late_start:], low, high)
    return logarithmic(((late - low) / (high - low)).mean(axis=1), skewed, log_slope) - 0.5


def teacher_risks(
    series: np.ndarray, teacher: np.ndarray, description: Mapping[str, Any], channels: Sequence[str]
) -> np.ndarray:
    """Predicted risk of every task (of a number: its mean label): `(stay, task)` of `(stay, step, channel)`.

    Args:
        teacher: `(task, 1 + channel)`, intercepts first. description: as `pipeline.core.teacher_form` says.
    """
    low, high = description["range"]
    skewed = np.isin(np.array(channels), description["skewed"])
    levels = late_levels(series, (low, high), description["late_start"], skewed, description["log_slope"])
    logits = np.clip(levels @ teacher[:, 1:].T + teacher[:, 0], -LARGEST_LOGIT, LARGEST_LOGIT)
    return np.asarray(1 / (1 + np.exp(-logits)))


def shifted(risks: np.ndarray, shift: np.ndarray | float) -> np.ndarray:
    """The risks whose log odds are higher by `shift`: from balanced labels to events as frequent as they are.

    Elkan (2001, theorem 2): a model that learnt from labels whose log odds were moved by a constant predicts log odds
    that are moved by it. Ranks stay as they are. `risks` in [0, 1], `(..., task)` beside a shift `(task,)`.
    """
    inside = np.clip(np.asarray(risks, dtype=np.float64), LEAST_RISK, 1 - LEAST_RISK)
    return np.asarray(1 / (1 + (1 - inside) / inside * np.exp(-np.asarray(shift))))
