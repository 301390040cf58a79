"""Which stays a cohort is made of: the `[inclusion]` table of a mapping, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from pipeline.ingest.mapping.toml_table import TomlTable


@final
@dataclass(frozen=True)
class Inclusion:
    """Which stays enter the cohort; what leaves is counted by reason. Limits are inclusive."""

    age: tuple[float, float] | None = None
    hours: tuple[float, float] | None = None
    units: tuple[str, ...] = ()
    first_stay: bool = False


def parse_inclusion(raw: Any, where: str) -> Inclusion:
    """Check the table; `where` names the mapping in errors.

    Raises:
        ConfigError: a misspelt key, or one of a wrong type.
    """
    table = TomlTable(raw, f"mapping {where}: inclusion")
    inclusion = Inclusion(
        age=table.range("age") if "age" in table.raw else None,
        hours=table.range("hours") if "hours" in table.raw else None,
        units=tuple(map(str, table.take("units", list, []))),
        first_stay=table.take("first_stay", bool, False),
    )
    table.done()
    return inclusion
