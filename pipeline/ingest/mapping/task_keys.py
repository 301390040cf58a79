"""The tasks of a mapping as their TOML tables say them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, Final

from pipeline.core.errors import ConfigError
from pipeline.ingest.mapping.label_source import TaskRule
from pipeline.ingest.mapping.prediction import duration
from pipeline.ingest.mapping.score_items import KEY
from pipeline.ingest.mapping.tasks import RULES
from pipeline.ingest.mapping.time_to_event import TimeRule
from pipeline.ingest.mapping.toml_table import TomlTable, did_you_mean

_NUMBER: Final = (int, float)
_TASK_KEYS: Final[Mapping[str, tuple[Any, Any]]] = {  # key -> type, type of a list's entries
    "column": (str, None),
    "op": (str, None),
    "threshold": (_NUMBER, None),
    "within_days": (_NUMBER, None),
    "within_hours": (_NUMBER, None),
    "followed": (str, None),
    "after_hours": (_NUMBER, None),
    "to_hours": (_NUMBER, None),
    "unmeasured_is_zero": (bool, None),
    "low": (_NUMBER, None),
    "high": (_NUMBER, None),
    "unit": (str, None),
    "description": (str, None),
    "missing": (list, _NUMBER),
    "variables": (list, str),
}


def parse_tasks(raw: dict[str, Any], where: str, variables: set[str], *, of_times: bool) -> tuple[TaskRule, ...]:
    tasks = list[TaskRule]()
    for name, entry in raw.items():
        spot = f"mapping {where}: tasks.{name}"
        table = TomlTable(_with_hours(entry, spot) if of_times else entry, spot)
        table.taken.add(KEY)  # of the task's score, not of its label
        kind = table.take("kind", str)
        if kind not in RULES:
            raise ConfigError(f"{spot}: kind is one of {', '.join(RULES)}")
        rule = RULES[kind]
        defaults = {item.name: item.default for item in fields(rule) if item.name in _TASK_KEYS}
        options: dict[str, Any] = {key: _task_option(table, key) for key in defaults if key in table.raw}
        for key in (key for key, default in defaults.items() if default is MISSING):
            table.take(key, object)
        table.done()
        try:
            task = rule(name=name, **options)
        except ConfigError as error:
            raise ConfigError(f"mapping {where}: {error}") from None
        unknown = sorted({name for window in task.windows for name in window[0]} - variables)
        if unknown:
            raise ConfigError(f"{spot}: {unknown[0]} is no variable of the mapping{did_you_mean(unknown, variables)}")
        tasks += task.parts() if isinstance(task, TimeRule) else (task,)
        if len({task.name for task in tasks}) < len(tasks):
            raise ConfigError(f"{spot}: another task has the name of one that a time to an event makes")
    return tuple(tasks)


def _with_hours(entry: Any, spot: str) -> Any:
    """A task with `gap` and `label_window` as one with `after_hours` and `to_hours`, from the prediction time on."""
    if not isinstance(entry, dict) or "label_window" not in entry:
        return entry
    table = TomlTable(entry, spot)
    after, window = duration(table, "gap", 0.0), duration(table, "label_window")
    twice = {"after_hours", "to_hours"} & set(entry)
    if twice:
        raise ConfigError(f"{spot}: label_window and {min(twice)} say the same thing; leave one out")
    rest = {key: value for key, value in entry.items() if key not in ("gap", "label_window")}
    return {**rest, "after_hours": after, "to_hours": after + window}


def _task_option(table: TomlTable, key: str) -> Any:
    kind, item = _TASK_KEYS[key]
    value = table.take(key, kind)
    if kind is not list:
        return value
    if not all(isinstance(entry, item) and not isinstance(entry, bool) for entry in value):
        raise ConfigError(f"{table.where}: the key {key} has an entry of the wrong type")
    return tuple(value)
