"""What a released set says in public of its teacher: which features its numbers weigh. Standard library only.

A teacher is an array `(task, 1 + feature)` and this description; the risk is sigmoid(intercept + coefficients . x).

Version 1: a feature per channel, its mean share of the range over the steps from `late_start` on, where the channel is
`skewed` log(1 + log_slope x) / log(1 + log_slope) of that, less 1/2.

Version 2: the features that `items` list, `STATISTICS` of a channel's share over the steps [first, last), less 1/2. The
side "level" is it, with that logarithm; "above" and "below" are how far it lies beyond `normal`, linear, at least 0.

`pipeline.core.risk` computes both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

KIND: Final = "late_level_logistic"
ITEMS_KIND: Final = "score_item_logistic"
VERSION: Final = 1
ITEMS_VERSION: Final = 2
STATISTICS: Final = ("mean", "min", "max")
SIDES: Final = ("level", "above", "below")
STEP: Final = 2.0**-10  # of its numbers: a logit moves by at most features / 4096
LARGEST: Final = 2.0**10  # size of a number
_KEYS: Final = {"kind", "version", "range", "late_start", "log_slope", "skewed"}
_ITEMS_KEYS: Final = {"kind", "version", "range", "items", "log_slope", "skewed"}
_ITEM_KEYS: Final = {"channel", "statistic", "steps", "side", "normal"}
_KNOWN: Final = {(KIND, VERSION): _KEYS, (ITEMS_KIND, ITEMS_VERSION): _ITEMS_KEYS}


def described(low: float, high: float, late_start: int, log_slope: float, skewed: Sequence[str]) -> dict[str, Any]:
    """The description of late levels, as plain data."""
    return {
        "kind": KIND,
        "version": VERSION,
        "range": [float(low), float(high)],
        "late_start": late_start,
        "log_slope": float(log_slope),
        "skewed": list(skewed),
    }


def described_items(
    low: float, high: float, items: Sequence[Mapping[str, Any]], log_slope: float, skewed: Sequence[str]
) -> dict[str, Any]:
    """The description of `items`, as plain data."""
    return {
        "kind": ITEMS_KIND,
        "version": ITEMS_VERSION,
        "range": [float(low), float(high)],
        "items": [dict(item) for item in items],
        "log_slope": float(log_slope),
        "skewed": list(skewed),
    }


def items_of(description: Mapping[str, Any], channels: Sequence[str], n_steps: int) -> list[Mapping[str, Any]]:
    """The items of either version, one per number of a teacher beside its intercept."""
    if "items" in description:
        return list(description["items"])
    steps = [description["late_start"], n_steps]
    return [{"channel": name, "statistic": "mean", "steps": steps, "side": "level", "normal": 0.0} for name in channels]


def n_features(description: Mapping[str, Any], channels: Sequence[str]) -> int:
    """How many coefficients a teacher of this description has, which has no `problem`."""
    return len(description.get("items", channels))


def problem(description: object, channels: Sequence[str], n_steps: int) -> str:
    """Why nobody can score with a teacher of this description, as the end of a sentence; empty if anybody can."""
    known = " or ".join(f"{kind} {version}" for kind, version in _KNOWN)
    unknown = f"is of a kind or version that is not known here, which is {known}"
    if not isinstance(description, Mapping) or type(description.get("version")) is not int:
        return unknown
    kind, version = description.get("kind"), description["version"]
    if not isinstance(kind, str) or (kind, version) not in _KNOWN:
        return unknown
    if set(description) != _KNOWN[kind, version]:
        return "has missing or unknown keys"
    limits = description["range"]
    if not (isinstance(limits, list | tuple) and len(limits) == 2 and all(map(_finite, limits))):
        return "states a range that is none"
    if not limits[0] < limits[1]:
        return "states a range that is none"
    if not (_finite(description["log_slope"]) and description["log_slope"] > 0):
        return "states a logarithm that is none"
    skewed = description["skewed"]
    if not isinstance(skewed, list | tuple) or not all(isinstance(name, str) for name in skewed):
        return "does not list its skewed channels"
    if len(set(skewed)) != len(skewed) or not set(skewed) <= set(channels):
        return "names a skewed channel that the series do not have, or one twice"
    if kind == KIND:
        start = description["late_start"]
        if type(start) is int and 0 <= start < n_steps:
            return ""
        return "reads its levels from a step that the series do not have"
    return _problem_of_items(description["items"], channels, n_steps)


def _problem_of_items(items: object, channels: Sequence[str], n_steps: int) -> str:
    if not (isinstance(items, list | tuple) and items):
        return "does not list its items"
    seen = set[tuple[Any, ...]]()
    for item in items:
        if not isinstance(item, Mapping) or set(item) != _ITEM_KEYS:
            return "has an item with missing or unknown keys"
        name, steps, normal = item["channel"], item["steps"], item["normal"]
        if not isinstance(name, str) or name not in channels:
            return "has an item of a channel that the series do not have"
        if item["statistic"] not in STATISTICS or item["side"] not in SIDES:
            return "has an item of a statistic or a side that is not known here"
        if not (isinstance(steps, list | tuple) and len(steps) == 2 and all(type(step) is int for step in steps)):
            return "has an item whose steps are none"
        if not 0 <= steps[0] < steps[1] <= n_steps:
            return "has an item of steps that the series do not have"
        # on a grid, and 0 where it does not matter: a number with free decimals has room for words
        if not (_finite(normal) and 0 <= normal <= 1 and (normal / STEP).is_integer()):
            return "has an item whose normal value is none"
        if item["side"] == "level" and normal != 0:
            return "has an item with a normal value that it does not use"
        seen.add((name, item["statistic"], *steps, item["side"]))
    return "" if len(seen) == len(items) else "lists an item twice"


def _finite(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
