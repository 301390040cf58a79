"""What a task's clinical score reads: the mapping's list of variables, each with a window, a statistic and a side.

The list belongs to a task, and to the literature: it is written down before any patient is looked at, so that a private
teacher may take it for public. What a list leaves out costs no noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

from pipeline.core.errors import ConfigError
from pipeline.core.types import ScoreItem, ScoreWindow, Side, StaticVariable, Statistic, Variable
from pipeline.ingest.mapping.toml_table import TomlTable, did_you_mean

KEY: Final = "score_items"
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "statistic": get_args(Statistic),
    "window": get_args(ScoreWindow),
    "side": get_args(Side),
}


def parse_score_items(
    raw: Any, spot: str, variables: tuple[Variable, ...], statics: tuple[StaticVariable, ...]
) -> tuple[ScoreItem, ...]:
    """The items of one task; `spot` names it in errors.

    Raises:
        ConfigError: no list of tables, a variable that the mapping does not have, a window, statistic or side that is
            none, a window of a static, a side of categories, or an item twice.
    """
    if not isinstance(raw, list) or not raw:
        raise ConfigError(f"{spot}: {KEY} must be a list of tables, each with a variable")
    names = {*(variable.name for variable in variables), *(static.name for static in statics)}
    of_statics = {static.name: static for static in statics}
    found = list[ScoreItem]()
    for number, entry in enumerate(raw, 1):
        table = TomlTable(entry, f"{spot}: {KEY} {number}")
        name = table.take("variable", str)
        if name not in names:
            raise ConfigError(f"{table.where}: {name} is no variable of the mapping{did_you_mean([name], names)}")
        chosen = {key: table.take(key, str) for key in _CHOICES if key in table.raw}
        table.taken |= set(_CHOICES)
        table.done()
        for key, value in chosen.items():
            if value not in _CHOICES[key]:
                raise ConfigError(f"{table.where}: {key} is one of {', '.join(_CHOICES[key])}")
        static = of_statics.get(name)
        if static is not None and {"window", "statistic"} & set(chosen):
            raise ConfigError(f"{table.where}: {name} is the same in every step: it has no window and no statistic")
        if static is not None and static.categories and "side" in chosen:
            raise ConfigError(f"{table.where}: {name} has categories, which lie on no side of a normal value")
        found.append(ScoreItem(name, **chosen))
    if len(set(found)) < len(found):
        raise ConfigError(f"{spot}: {KEY} lists an item twice")
    return tuple(found)


def without_lacking(raw: dict[str, Any]) -> dict[str, Any]:
    """A mapping's tables on its base: of the base's lists, items of variables that it does not have are left out."""
    names = {*raw.get("variables", {}), *raw.get("statics", {})}
    tasks = {}
    for name, entry in raw.get("tasks", {}).items():
        items = [item for item in entry.get(KEY, ()) if item["variable"] in names]
        rest = {key: value for key, value in entry.items() if key != KEY}
        tasks[name] = {**rest, KEY: items} if items else rest
    return {**raw, "tasks": tasks}
