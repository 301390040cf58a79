"""The `[codes]` and `[mend]` tables of a mapping: which of a source's codes mean a variable, and in which unit.

With `[codes]` a mapping takes its variables, ranges and constants from a base and says only what its source calls
them: `Temp = ["chart/223762", { code = "chart/223761", unit = "degF" }]`. Variables without a code are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

from pipeline.core.errors import ConfigError
from pipeline.ingest.mapping.named_units import named_unit
from pipeline.ingest.mapping.toml_table import TomlTable, did_you_mean
from pipeline.ingest.mapping.unit_text import spell
from pipeline.ingest.mapping.units import UNITS, Line, require_conversion

DROP: Final = "drop"
"""In place of a unit in `[layout.units]`: rows that carry this text are dropped and counted."""


@final
@dataclass(frozen=True)
class SourceCodes:
    """`declared`: source name -> the unit that the mapping declares for it, which serves rows that carry none.

    `named`: source name -> the unit that the name itself says, where the mapping declares none. `units`: source name ->
    the variable's or static's name and unit. `texts`: a row's unit text -> the unit that the mapping says it means, or
    `DROP`. `mends`: source name -> lines that are tried, in order, on a value outside the
    plausible range.
    """

    declared: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    mends: Mapping[str, tuple[Line, ...]] = field(default_factory=dict)
    named: Mapping[str, str] = field(default_factory=dict)


def apply_codes(raw: Mapping[str, Any], where: str) -> tuple[dict[str, Any], SourceCodes]:
    """The mapping with every variable's `sources` in place, and the declared units.

    Raises:
        ConfigError: a code of a variable that does not exist, a malformed entry, or a unit without a conversion.
    """
    rest = {key: value for key, value in raw.items() if key not in ("codes", "mend")}
    declared: dict[str, str] = {}
    if "codes" in raw:
        codes = TomlTable(raw["codes"], f"mapping {where}: codes").raw
        known = {**rest.get("label_variables", {}), **rest.get("variables", {})}
        strange = sorted(set(codes) - set(known))
        if strange:
            meant = did_you_mean(strange, known)
            raise ConfigError(f"mapping {where}: codes.{strange[0]} is no variable of the mapping or its base{meant}")
        for name, entries in codes.items():
            sources = _entries(entries, f"mapping {where}: codes.{name}", declared)
            kind = "variables" if name in rest.get("variables", {}) else "label_variables"
            rest[kind] = {**rest[kind], name: {**rest[kind][name], "sources": sources}}
        for kind in ("variables", "label_variables"):
            if kind in rest:
                rest[kind] = {name: entry for name, entry in rest[kind].items() if name in codes}
    return rest, _source_codes(rest, declared, raw.get("mend", {}), where)


def _entries(entries: Any, where: str, declared: dict[str, str]) -> list[str]:
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{where} must be a list of codes")
    sources = []
    for entry in entries:
        if isinstance(entry, dict):
            table = TomlTable(entry, where)
            source = table.take("code", str)
            declared[source] = table.take("unit", str)
            table.done()
        else:
            source = str(entry)
        sources.append(source)
    return sources


def _source_codes(raw: Mapping[str, Any], declared: Mapping[str, str], mend: Any, where: str) -> SourceCodes:
    units: dict[str, tuple[str, str]] = {}
    mends: dict[str, tuple[Line, ...]] = {}
    known = {**raw.get("label_variables", {}), **raw.get("variables", {})}
    strange = sorted(set(TomlTable(mend, f"mapping {where}: mend").raw) - set(known))
    if strange:
        raise ConfigError(f"mapping {where}: mend.{strange[0]} is no variable of the mapping")
    for name, entry in known.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("unit"), str):
            continue  # the mapping's own check says so
        tried = mend.get(name, [])
        if not isinstance(tried, list) or not all(isinstance(unit, str) for unit in tried):
            raise ConfigError(f"mapping {where}: mend.{name} must be a list of units")
        slips = tuple(require_conversion(name, unit, entry["unit"], f"mapping {where}: mend.{name}") for unit in tried)
        for source in entry.get("sources", [name]):
            units[source] = (name, entry["unit"])
            if source in declared:
                require_conversion(name, declared[source], entry["unit"], f"mapping {where}: codes.{name}")
            if slips:
                mends[source] = slips
    for name, entry in raw.get("statics", {}).items():
        if isinstance(entry, dict) and isinstance(entry.get("unit"), str):
            units.setdefault(str(entry.get("source", name)), (name, entry["unit"]))
    said = {source: named_unit(meant[0], source, meant[1]) for source, meant in units.items() if source not in declared}
    named = {source: unit for source, unit in said.items() if unit is not None}
    return SourceCodes(declared, units, _texts(raw.get("layout", {}), where), mends, named)


def _texts(layout: Any, where: str) -> dict[str, str]:
    """`[layout.units]`: what the unit texts of rows mean, beyond those that are known."""
    raw = layout.get("units", {}) if isinstance(layout, dict) else {}
    texts: dict[str, str] = {}
    for text, unit in TomlTable(raw, f"mapping {where}: layout.units").raw.items():
        known = spell(unit) if isinstance(unit, str) else None
        if unit != DROP and known is None:
            some = ", ".join(UNITS[:3])
            raise ConfigError(
                f'mapping {where}: layout.units: {text!r} leads to no unit such as {some}, nor to "{DROP}"'
            )
        texts[text.strip()] = DROP if known is None else known
    return texts
