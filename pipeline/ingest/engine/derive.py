"""Numeric columns of the stays by fixed public rules: codes as numbers, ages, durations, "is there an entry"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl

from pipeline.ingest.engine.coded import plain_text
from pipeline.ingest.engine.instants import MICROSECONDS_PER_HOUR
from pipeline.ingest.mapping.layout import Derived, Layout
from pipeline.ingest.number_text import read_numbers

_HOURS_PER_DAY: Final = 24.0
_YEAR: Final = r"(?:^|\D)((?:1[89]|2\d)\d{2})(?:\d{4}|\D|$)"
_START: Final = "(start)"


def derive(item: Derived, frame: pl.DataFrame, clocks: Mapping[str, pl.Series], layout: Layout) -> pl.Series:
    """Float64 `(stay,)`, null, or the rule's `otherwise`, where it has nothing to go by.

    number: the first number in the text ("> 89" is 89), read as numbers of the source are. codes: the text's code.
    present: 1 where there is an entry, else 0. age: the year of the start less the year of birth (or the anchor's age
    moved to the start's year). hours_between, days_between: of two times.
    """
    values = _derive(item, frame, clocks, layout)
    return values if item.otherwise is None else values.fill_null(item.otherwise)


def underived(item: Derived, frame: pl.DataFrame, made: pl.Series) -> list[str]:
    """How many stays have entries that the rule makes nothing of."""
    if item.kind == "present" or item.otherwise is not None:
        return []
    there = [plain_text(frame[name]).fill_null("") != "" for name in item.columns]
    there += [frame[_START].is_not_null()] if item.kind == "age" else []
    lost = int((pl.select(pl.all_horizontal(there)).to_series() & made.is_null()).sum())
    if not lost:
        return []
    return [f"{lost} stays have an entry of {', '.join(item.columns)} that gives no {item.name}, taken as missing"]


def _derive(item: Derived, frame: pl.DataFrame, clocks: Mapping[str, pl.Series], layout: Layout) -> pl.Series:
    if item.kind == "number":
        return _number(frame[item.columns[0]], layout)
    if item.kind == "codes":
        text = frame[item.columns[0]].cast(pl.String).str.strip_chars()
        return text.replace_strict(dict(item.codes), default=None, return_dtype=pl.Float64)
    if item.kind == "present":
        column = frame[item.columns[0]]
        return (plain_text(column).fill_null("") != "").cast(pl.Float64)
    if item.kind == "age":
        year = pl.from_epoch(frame[_START], time_unit="us").dt.year().cast(pl.Float64)
        if len(item.columns) == 1:
            return year - _year(frame[item.columns[0]])
        age, anchor = (_number(frame[name], layout) for name in item.columns)
        return age + year - anchor
    first, last = (clocks[name] for name in item.columns)
    hours = (last - first).cast(pl.Float64) / MICROSECONDS_PER_HOUR
    return hours if item.kind == "hours_between" else hours / _HOURS_PER_DAY


def _number(column: pl.Series, layout: Layout) -> pl.Series:
    if column.dtype.is_numeric():
        return column.cast(pl.Float64)
    first = column.cast(pl.String).str.extract(r"(-?\d+(?:[.,]\d+)*)")
    return read_numbers(first, decimal_comma=layout.decimal_comma, no_thousands=layout.no_thousands)[0]


def _year(column: pl.Series) -> pl.Series:
    """The year of a date, or the first number of four digits in a text that can be one (also YYYYMMDD)."""
    if column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
        return column.dt.year().cast(pl.Float64)
    return column.cast(pl.String).str.extract(_YEAR).cast(pl.Float64, strict=False)
