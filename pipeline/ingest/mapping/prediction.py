"""When predictions are made in a stay: the `[prediction_times]` table of a mapping, checked.

Without it one prediction is made of a stay, at the end of the first `n_steps`. With it one at every time of a regular
row, each with the input that ends there; the hours of tasks count from it. The ideas are those of ACES (trigger, gap,
target) and of YAIB's hourly tasks; no code is theirs.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Final, Literal, final, get_args

from pipeline.core.errors import ConfigError
from pipeline.ingest.mapping.toml_table import TomlTable

Until = Literal["end", "last event"]
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(min|h|d)")
_HOURS: Final = {"min": 1 / 60, "h": 1.0, "d": 24.0}


@final
@dataclass(frozen=True)
class NotYet:
    """No prediction is made once an event of `variables` satisfied `op threshold`."""

    variables: tuple[str, ...]
    op: str
    threshold: float


@final
@dataclass(frozen=True)
class PredictionTimes:
    """At `first_hours`, and each `every_hours` later, as long as the stay lasts and at most to `at_most_hours`.

    A stay lasts to before its end, or with "last event" to the last usable value of a series, that time included.
    """

    first_hours: float
    every_hours: float
    until: Until
    at_most_hours: float
    not_yet: tuple[NotYet, ...]


def parse_prediction_times(raw: Any, where: str, ops: tuple[str, ...]) -> PredictionTimes:
    """Check the table; `where` names the mapping in errors, `ops` are the comparisons that there are.

    Raises:
        ConfigError: a misspelt or missing key, no duration, or a value out of its list.
    """
    table = TomlTable(raw, f"mapping {where}: prediction_times")
    every = duration(table, "every")
    until = table.take("until", str)
    if until not in get_args(Until):
        raise ConfigError(f"{table.where}: the key until is one of {', '.join(get_args(Until))}")
    times = PredictionTimes(
        first_hours=duration(table, "first", every),
        every_hours=every,
        until=until,
        at_most_hours=duration(table, "at_most", math.inf),
        not_yet=tuple(_not_yet(item, f"{table.where}.not_yet", ops) for item in table.take("not_yet", list, [])),
    )
    table.done()
    if not every > 0:
        raise ConfigError(f"{table.where}: the key every must be longer than nothing")
    return times


def _not_yet(raw: Any, where: str, ops: tuple[str, ...]) -> NotYet:
    table = TomlTable(raw, where)
    rule = NotYet(table.names("variables", ()), table.take("op", str), table.number("threshold"))
    table.done()
    if rule.op not in ops:
        raise ConfigError(f"{where}: the key op is one of {', '.join(ops)}")
    return rule


def duration(table: TomlTable, key: str, default: float | None = None) -> float:
    """Hours of a text such as "6h", "30min" or "2d"; `default` when absent.

    Raises:
        ConfigError: another text, or none and no default.
    """
    if key not in table.raw and default is not None:
        table.taken.add(key)
        return default
    said = _DURATION.fullmatch(table.take(key, str).strip())
    if said is None:
        raise ConfigError(f'{table.where}: the key {key} is a duration such as "6h", "30min" or "2d"')
    return float(said[1]) * _HOURS[said[2]]
