"""What a released set says in public of its teacher: which features its numbers weigh. Standard library only.

A teacher is an array `(task, 1 + channel)` and this description. Version 1: the risk is
sigmoid(intercept + coefficients . x), x of a channel its mean share of the range over the steps from `late_start` on,
where the channel is `skewed` log(1 + log_slope x) / log(1 + log_slope) of that, less 1/2. `pipeline.core.risk` computes
it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

KIND: Final = "late_level_logistic"
VERSION: Final = 1
STEP: Final = 2.0**-10  # of its numbers: a logit moves by at most channels / 4096
LARGEST: Final = 2.0**10  # size of a number
_KEYS: Final = {"kind", "version", "range", "late_start", "log_slope", "skewed"}


def described(low: float, high: float, late_start: int, log_slope: float, skewed: Sequence[str]) -> dict[str, Any]:
    """The description, as plain data."""
    return {
        "kind": KIND,
        "version": VERSION,
        "range": [float(low), float(high)],
        "late_start": late_start,
        "log_slope": float(log_slope),
        "skewed": list(skewed),
    }


def problem(description: object, channels: Sequence[str], n_steps: int) -> str:
    """Why nobody can score with a teacher of this description, as the end of a sentence; empty if anybody can."""
    unknown = f"is of a kind or version that is not known here, which is {KIND} {VERSION}"
    if not isinstance(description, Mapping) or description.get("kind") != KIND:
        return unknown
    if type(version := description.get("version")) is not int or version != VERSION:
        return unknown
    if set(description) != _KEYS:
        return "has missing or unknown keys"
    limits, start = description["range"], description["late_start"]
    if not (isinstance(limits, list | tuple) and len(limits) == 2 and all(map(_finite, limits))):
        return "states a range that is none"
    if not limits[0] < limits[1]:
        return "states a range that is none"
    if not (type(start) is int and 0 <= start < n_steps):
        return "reads its levels from a step that the series do not have"
    if not (_finite(description["log_slope"]) and description["log_slope"] > 0):
        return "states a logarithm that is none"
    skewed = description["skewed"]
    if not isinstance(skewed, list | tuple) or not all(isinstance(name, str) for name in skewed):
        return "does not list its skewed channels"
    if len(set(skewed)) != len(skewed) or not set(skewed) <= set(channels):
        return "names a skewed channel that the series do not have, or one twice"
    return ""


def _finite(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
