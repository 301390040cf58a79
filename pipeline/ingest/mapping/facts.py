"""Public facts about what a mapping names, by which values are doubted and never changed.

Keys of a variable: `resolution`, the step that its values are given in (below 1: they have decimals), and `below`, the
variables that it does not exceed in one person at one time (a diastolic pressure the mean one, and that the systolic).
Of a static: `over_stays`, "same" where it is one in all stays of a person, "rising" where it never falls, such as an
age. Of a task: `final = true` where who has it has it in every later stay, too, such as a death.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

from pipeline.core.errors import ConfigError
from pipeline.ingest.mapping.toml_table import TomlTable

_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "variables": frozenset({"resolution", "below"}),
    "statics": frozenset({"over_stays"}),
    "tasks": frozenset({"final"}),
}
_OVER_STAYS: Final = ("same", "rising")


@final
@dataclass(frozen=True)
class Facts:
    """The facts of all variables, statics and tasks, by the mapping's own names."""

    decimal: frozenset[str] = frozenset()  # variables whose values have decimals
    below: tuple[tuple[str, str], ...] = ()  # (variable, one that it does not exceed)
    over_stays: Mapping[str, str] = field(default_factory=dict)  # of statics
    final: frozenset[str] = frozenset()  # tasks


def take_facts(raw: Mapping[str, Any], where: str) -> tuple[dict[str, Any], Facts]:
    """A mapping without the keys that are facts, and the facts; where a variable has no resolution it is read off.

    A normal value or a limit of the clinical range that is no whole number says that the variable has decimals.

    Raises:
        ConfigError: a fact of the wrong type.
    """
    rest, decimal, below, over_stays, lasting = dict(raw), set[str](), list[tuple[str, str]](), dict[str, str](), set()
    for kind, keys in _KEYS.items():
        if not isinstance(raw.get(kind), dict):
            continue  # said where the rest is read
        rest[kind] = {}
        for name, entry in raw[kind].items():
            known = {key: entry[key] for key in keys & set(entry)} if isinstance(entry, dict) else {}
            rest[kind][name] = {key: value for key, value in entry.items() if key not in known} if known else entry
            table = TomlTable(known, f"mapping {where}: {kind}.{name}")
            if kind == "variables" and table.take("resolution", (int, float), _resolution(entry)) < 1:
                decimal.add(name)
            below += [(name, other) for other in (table.names("below", ()) if "below" in known else ())]
            if "over_stays" in known:
                over_stays[name] = table.take("over_stays", str)
                if over_stays[name] not in _OVER_STAYS:
                    raise ConfigError(f"{table.where}: over_stays is one of {', '.join(_OVER_STAYS)}")
            if table.take("final", bool, False):
                lasting.add(name)
    there = rest["variables"] if isinstance(rest.get("variables"), dict) else {}
    pairs = tuple(pair for pair in below if pair[1] in there)  # a mapping may take some variables of another alone
    return rest, Facts(frozenset(decimal), pairs, over_stays, frozenset(lasting))


def _resolution(entry: Any) -> float:
    """0.1 where a public constant of the variable is no whole number, else 1."""
    scale, normal = (entry.get("scale"), entry.get("normal")) if isinstance(entry, dict) else (None, None)
    constants = [*(scale if isinstance(scale, list) else ()), normal]
    return 0.1 if any(isinstance(number, float) and number % 1 for number in constants) else 1.0
