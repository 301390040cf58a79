"""What becomes of the rows of a batch: whose, when, how much, in which unit; or the reason that bars their use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, final

import polars as pl

from pipeline.core.errors import DataError
from pipeline.ingest.batches import Tally
from pipeline.ingest.event_values import Conversions, in_units, mend, numbers
from pipeline.ingest.grid import TIME_TOLERANCE_HOURS
from pipeline.ingest.instants import MICROSECONDS_PER_HOUR, ClockKinds, instants
from pipeline.ingest.layout import EventsLayout, Layout
from pipeline.ingest.mapping import SourceMapping
from pipeline.ingest.splits import START
from pipeline.ingest.stay_table import END, EXCLUDED, KEY, StayTable
from pipeline.ingest.tables import (
    OUTSIDE_WINDOW,
    TIME_MISSING,
    TIME_NOT_FINITE,
    UNKNOWN_VARIABLE,
    UNNAMED,
    VARIABLE_MISSING,
    CountsByVariable,
)

STAY_MISSING: Final = "stay or subject missing"
STAY_UNKNOWN: Final = "no such stay or subject"
STAY_EXCLUDED: Final = "stay excluded"
BETWEEN_STAYS: Final = "outside every stay"
TIME_UNREADABLE: Final = "unreadable time"

_HOURS: Final = {"hours": 1.0, "minutes": 1.0 / 60.0, "days": 24.0}


@final
@dataclass
class Reading:
    """What the batches of all files share."""

    mapping: SourceMapping
    layout: Layout
    stays: StayTable | None
    until_hours: float
    clock: ClockKinds = field(default_factory=ClockKinds)
    tally: Tally = field(default_factory=Tally)


def usable_rows(
    frame: pl.DataFrame, table: EventsLayout, reading: Reading, counts: CountsByVariable, done: Conversions
) -> pl.DataFrame:
    """The rows of `frame` (key, time, variable, raw, unit) that can be used, as row, hours, variable, value.

    `row` is that of the table of stays. Every other row is counted in `counts`, conversions in `done`.
    """
    frame = _with_stay(frame, table, reading, counts)
    return _with_value(_with_hours(frame, table, reading, counts), reading, counts, done)


def known_rows(
    frame: pl.DataFrame, table: EventsLayout, mapping: SourceMapping, counts: CountsByVariable
) -> pl.DataFrame:
    """The rows whose code means something, as key, time, variable, raw, unit; the others are counted.

    The first step, since most rows of a large table end here: codes are compared as they are written, each distinct
    one having been trimmed once.

    Raises:
        DataError: codes that the mapping does not know, unless it says to drop them.
    """
    assert table.code is not None
    names = {**mapping.source_names, **mapping.static_sources}
    code = frame[table.code]
    distinct = code.value_counts(name="(rows)")
    written, rows = distinct[table.code], distinct["(rows)"].to_list()
    meant = plain_text(written).to_list()
    empty = sum(n for text, n in zip(meant, rows, strict=True) if not text)
    strange = [n for text, n in zip(meant, rows, strict=True) if text and table.prefix + text not in names]
    if mapping.unknown_variables == "error" and strange:
        raise DataError(
            f"{sum(strange)} rows of {len(strange)} codes that mapping {mapping.name} does not know; "
            'add them, or set unknown_variables = "drop" to drop and count them'
        )
    for reason, gone in ((VARIABLE_MISSING, empty), (UNKNOWN_VARIABLE, sum(strange))):
        if gone:
            add_count(counts, UNNAMED, reason, gone)
    pairs = [(i, table.prefix + text) for i, text in enumerate(meant) if text and table.prefix + text in names]
    kept = written.gather([i for i, _ in pairs])
    frame = frame.filter(code.is_in(kept.implode()))
    named = (
        frame[table.code].replace_strict(kept, [name for _, name in pairs], return_dtype=pl.String) if pairs else None
    )
    return frame.select(
        pl.col(table.key).alias("key"),
        pl.col(table.time).alias("time"),
        (pl.lit(None, pl.String) if named is None else named).alias("variable"),
        pl.col(table.value).alias("raw"),
        (pl.col(table.unit).cast(pl.String) if table.unit else pl.lit(None, pl.String)).alias("unit"),
    )


def _with_stay(frame: pl.DataFrame, table: EventsLayout, reading: Reading, counts: CountsByVariable) -> pl.DataFrame:
    """Adds `row` (of the table of stays), `instant` (microseconds, null for relative times) and the stay's start."""
    assert reading.stays is not None
    key = plain_text(frame["key"])
    frame = frame.with_columns(key.alias("key"))
    frame = _without(frame, key.is_null() | (key == ""), STAY_MISSING, counts)
    if table.time_unit == "datetime":
        clock = instants(frame["time"], reading.layout.timezone, reading.clock)
        shift = round(table.shift_hours * MICROSECONDS_PER_HOUR)
        frame = frame.with_columns(clock.alias("instant") + shift)
        absent = plain_text(frame["time"]).fill_null("") == ""
        frame = _without(frame, absent, TIME_MISSING, counts)
        frame = _without(frame, frame["instant"].is_null(), TIME_UNREADABLE, counts)
    else:
        frame = frame.with_columns(pl.lit(None, pl.Int64).alias("instant"))
    stays = reading.stays.frame.with_row_index("row")
    if table.link == "stay":
        found = stays.select(pl.col("stay_id").alias("key"), "row", START, END, EXCLUDED)
        frame = frame.join(found, on="key", how="left", maintain_order="left")
        frame = _without(frame, frame["row"].is_null(), STAY_UNKNOWN, counts)
    else:
        frame = _by_subject(frame, stays, counts)
    frame = _without(frame, frame[EXCLUDED].is_not_null(), STAY_EXCLUDED, counts)
    return frame.drop("key", EXCLUDED, END)


def _by_subject(frame: pl.DataFrame, stays: pl.DataFrame, counts: CountsByVariable) -> pl.DataFrame:
    begun = stays.filter(pl.col(START).is_not_null()).select(pl.col(KEY).alias("key"), "row", START, END, EXCLUDED)
    frame = _without(frame, ~frame["key"].is_in(stays[KEY].unique().implode()), STAY_UNKNOWN, counts)
    frame = frame.with_row_index("order").sort("instant", maintain_order=True)
    frame = frame.join_asof(
        begun.sort(START, "row"),
        left_on="instant",
        right_on=START,
        by="key",
        strategy="backward",
        check_sortedness=False,  # it cannot check within groups; both sides were sorted just now
        coalesce=False,
    )
    frame = frame.sort("order").drop("order")
    ended = (frame["instant"] > frame[END]).fill_null(False)
    return _without(frame, frame["row"].is_null() | ended, BETWEEN_STAYS, counts)


def _with_hours(frame: pl.DataFrame, table: EventsLayout, reading: Reading, counts: CountsByVariable) -> pl.DataFrame:
    if table.time_unit == "datetime":
        hours = (frame["instant"] - frame[START]).cast(pl.Float64) / MICROSECONDS_PER_HOUR
    else:
        text = plain_text(frame["time"])
        frame = frame.with_columns(text.alias("time"))
        empty = (text.is_null() | (text == "")).fill_null(True)
        frame = _without(frame, empty, TIME_MISSING, counts)
        hours = frame["time"].cast(pl.Float64, strict=False) * _HOURS[table.time_unit] + table.shift_hours
        frame = frame.with_columns(hours.alias("hours"))
        frame = _without(frame, frame["hours"].is_null(), TIME_UNREADABLE, counts)
        frame = _without(frame, ~frame["hours"].is_finite(), TIME_NOT_FINITE, counts)
        hours = frame["hours"]
    frame = frame.with_columns(hours.alias("hours")).drop("time", "instant", START)
    statics = list(reading.mapping.static_sources)
    early = (frame["hours"] < 0) & ~frame["variable"].is_in(statics)
    late = frame["hours"] > reading.until_hours + TIME_TOLERANCE_HOURS
    return _without(frame, early | late, OUTSIDE_WINDOW, counts)


def _with_value(frame: pl.DataFrame, reading: Reading, counts: CountsByVariable, done: Conversions) -> pl.DataFrame:
    value, reason = numbers(frame["raw"], reading.layout)
    frame = frame.with_columns(value.alias("value"), reason.alias("reason"))
    frame = in_units(frame, reading.mapping.codes, done)
    frame = mend(frame, reading.mapping.codes, _ranges(reading.mapping), done)
    for why in frame["reason"].drop_nulls().unique().sort().to_list():
        frame = _without(frame, (frame["reason"] == why).fill_null(False), why, counts)
    return frame.select("row", "hours", "variable", "value")


def _ranges(mapping: SourceMapping) -> dict[str, tuple[float, float]]:
    """The plausible range of each source name."""
    rows = {row.name: (row.plausible_low, row.plausible_high) for row in (*mapping.variables, *mapping.label_variables)}
    return {source: rows[name] for source, name in mapping.source_names.items()}


def plain_text(column: pl.Series) -> pl.Series:
    """Ids and times as trimmed text; whole numbers stored as floats lose their `.0`."""
    if column.dtype.is_float() and bool((column.drop_nulls() == column.drop_nulls().round()).all()):
        column = column.cast(pl.Int64, strict=False)
    return column.cast(pl.String).str.strip_chars()


def _without(
    frame: pl.DataFrame, drop: pl.Series, reason: str, counts: CountsByVariable, name: str | None = None
) -> pl.DataFrame:
    """`frame` less the rows of `drop`, which are counted under `reason`, by variable or all under `name`."""
    if not drop.any():
        return frame
    if name is not None:
        add_count(counts, name, reason, int(drop.sum()))
    else:
        for variable, rows in frame.filter(drop)["variable"].value_counts().iter_rows():
            add_count(counts, variable, reason, rows)
    return frame.filter(~drop)


def add_count(counts: CountsByVariable, name: str, reason: str, rows: int) -> None:
    found = counts.setdefault(name, {})
    found[reason] = found.get(reason, 0) + rows
