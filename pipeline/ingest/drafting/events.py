"""The draft of a table of events: whose, when, and which of its codes or columns are variables that are known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, final

import polars as pl

from pipeline.core.types import Variable
from pipeline.ingest.drafting.looks import Look, mostly_numbers, numbers_in, texts, time_kind
from pipeline.ingest.drafting.stays import Stays
from pipeline.ingest.drafting.synonyms import plain, role, roles, variable_named
from pipeline.ingest.drafting.units_in_use import likely_unit
from pipeline.ingest.engine.batches import FILE_STEM, Tally, batches
from pipeline.ingest.engine.coded import plain_text
from pipeline.ingest.engine.event_units import shown
from pipeline.ingest.mapping.layout import ROW_NUMBER
from pipeline.ingest.mapping.load import shipped_codes
from pipeline.ingest.mapping.named_units import named_unit
from pipeline.ingest.mapping.unit_text import NO_CONCEPT
from pipeline.ingest.mapping.units import read_unit
from pipeline.ingest.number_text import NO_VALUE

Raw = dict[str, Any]
ROWS_LOOKED_AT: Final = 2_000_000
FEWEST_ROWS: Final = 10
_LONGEST_CODE: Final = 60
_MOST_WITHOUT_KEY: Final = 0.2
_TIME_UNITS: Final = {"minute": "minutes", "minutes": "minutes", "min": "minutes", "offset": "minutes",
                      "observationoffset": "minutes", "day": "days", "days": "days"}  # fmt: skip


@final
@dataclass
class Events:
    """`layout` is a `[[layout.events]]`; `codes` leads from source names to (variable, unit that is not the row's)."""

    layout: Raw
    times: list[pl.Series] = field(default_factory=list)
    values: list[pl.Series] = field(default_factory=list)
    codes: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    unknown_units: list[str] = field(default_factory=list)
    unplaced: list[str] = field(default_factory=list)
    rare: int = 0
    notes: list[str] = field(default_factory=list)


def events_of(
    item: Look, stays: Stays | None, prefix: str, meanings: Mapping[str, str], base: Mapping[str, Variable],
    *, per_file: bool, encoding: str,
) -> Events | None:  # fmt: skip
    """The draft of a table; None where it does not say whose its rows are, and when."""
    owner = (FILE_STEM, "stay") if per_file else _owner(item, stays)
    time = next((name for name in roles(item.columns, "time") if time_kind(item.head[name]) is not None), None)
    time = time or item.role("time")
    if owner is None or time is None:
        return None
    kind = time_kind(item.head[time])
    file = "." if per_file else item.name
    layout: Raw = {
        "file": file,
        **({"prefix": prefix} if prefix else {}),
        "link": owner[1],
        "key": owner[0],
        "time": time,
    }
    found = Events(layout)
    if kind in ("datetime", "date") or (kind is None and stays is not None and stays.dated):
        layout["time_unit"] = "datetime"
        found.times.append(item.head[time])
        clock = _clock(item, time) if kind == "date" else None
        if clock is not None:
            layout["clock"] = clock
        known = next((name for name in roles(item.columns, "available") if time_kind(item.head[name]) == kind), None)
        if known not in (None, time) and clock is None:
            layout["available"] = known
            found.notes.append(
                f"values of {file} are inputs from {known} on, when they were known, and lie where {time} says that "
                "they were taken; a row without it is no input"
            )
    else:
        layout["time_unit"] = _TIME_UNITS.get(plain(time), "hours")
        found.notes.append(f"times of {file} are taken as {layout['time_unit']} since the start of the stay")
    code = _code(item, [owner[0], time], meanings) if item.role("value") else None
    if code is None:
        apart = {owner[0], time, layout.get("clock")}
        apart |= stays.used if stays is not None and stays.look is item else set()
        _place_columns(found, item, prefix, [name for name in item.columns if name not in apart], base)
        return found
    values = [name for name in roles(item.columns, "value") if name not in (code, time, owner[0])]
    value = next((name for name in values if mostly_numbers(item.head[name])), values[0] if values else None)
    if value is None:
        return None
    unit = next((name for name in roles(item.columns, "unit") if name != code and len(texts(item.head[name]))), None)
    layout |= {"code": code, "value": value, **({"unit": unit} if unit else {})}
    found.values.append(item.head[value])
    _place_codes(found, item, prefix, meanings, base, encoding)
    return found


def _owner(item: Look, stays: Stays | None) -> tuple[str, str] | None:
    """The column that says whose a row is, and how it is linked."""
    if stays is None:
        key = item.role("stay") or item.role("subject")
        return None if key is None else (key, "stay")
    layout = stays.layout
    stay = layout.get("subject_key") if layout["stay"] == ROW_NUMBER else layout["stay"]
    subject = None if layout["stay"] == ROW_NUMBER and "subject_key" in layout else layout.get("subject")
    by_stay, by_subject = (_same(item, name, stays) for name in (stay, subject))
    if by_stay is not None and by_subject is not None and stays.dated and layout["stay"] != ROW_NUMBER:
        empty = item.head[by_stay].null_count() > _MOST_WITHOUT_KEY * max(item.head.height, 1)
        by_stay = None if empty else by_stay
    if by_stay is not None:
        return by_stay, "subject" if layout["stay"] == ROW_NUMBER else "stay"
    if by_subject is not None and stays.dated:
        return by_subject, "subject"
    for other in roles(item.columns, "stay"):  # an admission that several stays are part of
        if stays.dated and "subject_key" not in layout and _same_name(stays.columns, other) is not None:
            layout["subject_key"] = _same_name(stays.columns, other)
            return other, "subject"
    return None


def _same(item: Look, name: str | None, stays: Stays) -> str | None:
    """The column of this name, or else the only one of the same role that holds some of the same ids."""
    if name is None:
        return None
    same = _same_name(item.columns, name)
    wanted = next((kind for kind in ("stay", "subject") if role([name], kind) is not None), None)
    if same is not None or wanted is None:
        return same
    found = roles(item.columns, wanted)
    if len(found) != 1 or _same_name(stays.columns, found[0]) is not None:
        return None
    ids, known = plain_text(item.head[found[0]]).drop_nulls(), plain_text(stays.columns[name]).drop_nulls()
    return found[0] if ids.is_in(known.implode()).any() else None


def _same_name(columns: Iterable[str], name: str) -> str | None:
    return next((column for column in columns if plain(column) == plain(name)), None)


def _clock(item: Look, time: str) -> str | None:
    for name in roles(item.columns, "clock"):
        if (
            name != time
            and len(texts(item.head[name]))
            and texts(item.head[name]).str.contains(r"^\d{1,2}:?\d{2}").all()
        ):
            return name
    return None


def _code(item: Look, apart: list[str], meanings: Mapping[str, str]) -> str | None:
    """The column of codes of which the most rows are known."""
    found = [name for name in roles(item.columns, "code") if name not in apart]
    found = [name for name in found if name not in roles(item.columns, "value")]

    def known(name: str) -> int:
        codes = plain_text(item.head[name]).drop_nulls()
        return sum(rows for code, rows in codes.value_counts().iter_rows() if _meant(code, meanings) is not None)

    return max(found, key=known, default=None)


@cache
def _shipped() -> Mapping[str, tuple[str, str | None]]:
    return shipped_codes()


def _meant(code: str, meanings: Mapping[str, str]) -> tuple[str, str | None] | None:
    """The variable of a code: by its name, by what the source says of it, or since a shipped mapping knows it."""
    said = meanings.get(code)
    return variable_named(code) or (variable_named(said) if said else None) or _shipped().get(code)


def _place_columns(found: Events, item: Look, prefix: str, names: list[str], base: Mapping[str, Variable]) -> None:
    for name in names:
        meant = variable_named(name)
        if meant is None or not (mostly_numbers(item.head[name]) or not len(texts(item.head[name]))):
            found.unplaced.append(prefix + name)
            continue
        found.values.append(item.head[name])
        variable = base[meant[0]]
        unit = meant[1] or named_unit(variable.name, name, variable.unit)
        if unit is None:
            unit = likely_unit(variable, numbers_in(item.head[name]))
            _guessed(found, prefix + name, variable, unit)
        found.codes[prefix + name] = (variable.name, unit)


def _guessed(found: Events, name: str, variable: Variable, unit: str | None) -> None:
    if unit is not None:
        found.notes.append(
            f"{name} says no unit; the middle of its values is ordinary for {variable.name} in {unit} and implausible "
            f"in {variable.unit}, so {unit} is declared: check it"
        )


def _place_codes(
    found: Events, item: Look, prefix: str, meanings: Mapping[str, str], base: Mapping[str, Variable], encoding: str
) -> None:
    code, unit, value = (found.layout.get(key) for key in ("code", "unit", "value"))
    counts = _counts(item, str(code), unit, encoding)
    head = plain_text(item.head[str(code)])
    for name, rows, said in counts:
        meant = _meant(name, meanings)
        if meant is None:
            shy = rows < FEWEST_ROWS or len(name) > _LONGEST_CODE
            found.rare += shy
            found.unplaced += [] if shy else [prefix + name + (f" ({meanings[name]})" if name in meanings else "")]
            continue
        variable = base[meant[0]]
        there = [text for text in said if text.strip() and text not in (NO_CONCEPT, *NO_VALUE)]
        own = meant[1] or named_unit(variable.name, name, variable.unit)
        if own is None and not there:
            own = likely_unit(variable, numbers_in(item.head[str(value)].filter(head == name)))
            _guessed(found, prefix + name, variable, own)
        found.codes[prefix + name] = (variable.name, own)
        for text in there:
            known = read_unit(variable.name, text, variable.unit)
            if known is None:
                found.unknown_units.append(text)
                looks = f"the unit text {shown(text)!r} of {prefix + name} is not known"
                found.notes.append(f"{looks}: say what it means in layout.units")
            elif known[1] is None:
                found.notes.append(
                    f"{prefix + name} looks like {variable.name}, but its unit {known[0]} has no conversion to "
                    f"{variable.unit}"
                )


def _counts(item: Look, code: str, unit: str | None, encoding: str) -> list[tuple[str, int, tuple[str, ...]]]:
    """Codes by falling number of rows, each with its rows' unit texts."""
    parts, rows = list[pl.DataFrame](), 0
    for frame in batches(item.path, (code, unit) if unit is not None else (code,), Tally(), encoding):
        said = frame[unit].cast(pl.String) if unit is not None else pl.lit(None, pl.String)
        named = frame.select(code=plain_text(frame[code]), unit=said)
        parts.append(named.group_by("code", "unit").len())
        rows += frame.height
        if rows >= ROWS_LOOKED_AT:
            break
    if not parts:
        return []
    counts = pl.concat(parts).drop_nulls("code").group_by("code", "unit").agg(pl.col("len").sum())
    by_code = counts.sort("len", "unit", descending=[True, False], nulls_last=True).group_by("code").agg("len", "unit")
    found = [(str(name), sum(n), tuple(text for text in said if text)) for name, n, said in by_code.iter_rows()]
    return sorted((item for item in found if item[0]), key=lambda item: (-item[1], item[0]))
