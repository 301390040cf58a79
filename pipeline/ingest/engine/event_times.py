"""When the rows of a batch were taken, and when they were known: of times as they are written, or counted."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import polars as pl

from pipeline.core.errors import DataError
from pipeline.ingest.engine.coded import Batch, plain_text
from pipeline.ingest.engine.instants import MICROSECONDS_PER_HOUR, ClockKinds, instants
from pipeline.ingest.engine.reading import Reading
from pipeline.ingest.mapping.layout import EventsLayout
from pipeline.ingest.number_text import read_numbers
from pipeline.ingest.source_tables import TIME_MISSING, TIME_NOT_FINITE

TIME_UNREADABLE: Final = "unreadable time"
_CLOCKS: Final = ((r"^(\d{1,2})(\d{2})$", "${1}:${2}"), (r"^(\d{1,2})(\d{2})(\d{2})$", "${1}:${2}:${3}"))  # 905
_MIDNIGHT: Final = r"^(\S+?)[T ]00:00(?::00(?:\.0+)?)?$"
_HOURS: Final = {"hours": 1.0, "minutes": 1.0 / 60.0, "days": 24.0}


def times_of(batch: Batch, table: EventsLayout, rows: np.ndarray, seen: ClockKinds) -> pl.Series:
    """The times of rows as they are written: of one column, or of a date's and a time of day's together; or the last
    second of a date, where the layout names one for rows without a time."""
    time = batch.series(table.time, rows)
    if table.date is not None:
        absent = plain_text(time).fill_null("") == ""
        if not absent.any():
            return time
        day = plain_text(batch.series(table.date, rows)).str.replace(_MIDNIGHT, "${1}")
        dated = pl.select(pl.when(absent & (day != "")).then(day + " 23:59:59").otherwise(plain_text(time))).to_series()
        seen.note_dated(int((absent & (day != "")).sum()))
        return dated
    if table.clock is None:
        return time
    clock = plain_text(batch.series(table.clock, rows)).str.replace(r"\.0+$", "")
    for digits, by in _CLOCKS:
        clock = clock.str.replace(digits, by)
    day = plain_text(time).str.replace(_MIDNIGHT, "${1}")
    return pl.select(pl.when((day != "") & (clock != "")).then(day + " " + clock)).to_series()


def moments(
    time: pl.Series,
    table: EventsLayout,
    reading: Reading,
    rows: np.ndarray,
    codes: np.ndarray,
    lost: list[tuple[str, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`rows` and `codes` of the rows whose time can be read, and the times in microseconds."""
    clock = instants(time, reading.layout.timezone, reading.clock, reading.layout.dates)
    moment = clock.fill_null(0).to_numpy() + round(table.shift_hours * MICROSECONDS_PER_HOUR)
    if not clock.null_count():
        return rows, codes, moment
    absent = (plain_text(time).fill_null("") == "").to_numpy()
    rows, codes, moment, clock = kept(~absent, TIME_MISSING, lost, rows, codes, moment, clock)
    left: tuple[np.ndarray, np.ndarray, np.ndarray]
    left = kept(clock.is_not_null().to_numpy(), TIME_UNREADABLE, lost, rows, codes, moment)
    return left


def hours_since_start(
    time: pl.Series,
    table: EventsLayout,
    rows: np.ndarray,
    stay: np.ndarray,
    lost: list[tuple[str, np.ndarray]],
    reading: Reading,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`rows`, `stay`, and hours that count from the stay's start, of times in the table's unit or in their own.

    Raises:
        DataError: the column holds dates.
    """
    decimal_comma = reading.layout.decimal_comma
    if isinstance(time.dtype, pl.Duration):
        read = time.dt.total_microseconds() / (MICROSECONDS_PER_HOUR * _HOURS[table.time_unit])
    elif time.dtype.is_numeric() or time.dtype in (pl.String, pl.Null):
        read = time.cast(pl.Float64, strict=False)
        if decimal_comma and time.dtype == pl.String:
            read = read_numbers(time, decimal_comma=True)[0]
    else:
        raise DataError(
            f"{table.file}: column {table.time} holds values of type {time.dtype}, and the layout says that it counts "
            f'{table.time_unit} since the start; a time stamp needs time_unit = "datetime"'
        )
    if read.null_count():
        text = plain_text(time)
        read = read if decimal_comma else text.cast(pl.Float64, strict=False)
        absent = (text.is_null() | (text == "")).fill_null(True).to_numpy()
        rows, stay, read = kept(~absent, TIME_MISSING, lost, rows, stay, read)
        rows, stay, read = kept(read.is_not_null().to_numpy(), TIME_UNREADABLE, lost, rows, stay, read)
    if table.time_unit == "hours" and not isinstance(time.dtype, pl.Duration):
        reading.clock.note_hours(read.to_numpy())
    hours = read.to_numpy() * _HOURS[table.time_unit] + table.shift_hours
    left: tuple[np.ndarray, np.ndarray, np.ndarray]
    left = kept(np.isfinite(hours), TIME_NOT_FINITE, lost, rows, stay, hours)
    return left


def when_known(
    batch: Batch, table: EventsLayout, reading: Reading, rows: np.ndarray, stay: np.ndarray, hours: np.ndarray
) -> np.ndarray:
    """When each row was known, in hours since its stay's start: never before it was taken; inf = it does not say."""
    if table.available is None:
        return hours
    said = batch.series(table.available, rows)
    if table.time_unit == "datetime":
        clock = instants(said, reading.layout.timezone, reading.clock, reading.layout.dates)
        since = (clock.fill_null(0).to_numpy() - reading.keys.start[stay]) / MICROSECONDS_PER_HOUR
        found, lacks = since, clock.is_null().to_numpy()
    else:
        numbers = plain_text(said).cast(pl.Float64, strict=False)
        found, lacks = numbers.fill_null(0.0).to_numpy() * _HOURS[table.time_unit], numbers.is_null().to_numpy()
    known: np.ndarray = np.where(lacks, np.inf, np.maximum(found + table.shift_hours, hours))
    return known


def kept(keep: np.ndarray, reason: str, lost: list[tuple[str, np.ndarray]], rows: np.ndarray, *others: Any) -> Any:
    """`rows` and what lies beside them, less the rows that are not to be kept, which go to `lost`."""
    if keep.all():
        return rows, *others
    lost.append((reason, rows[~keep]))
    return tuple(rows_of(item, keep) for item in (rows, *others))


def rows_of(item: Any, keep: np.ndarray) -> Any:
    """The rows of a series or an array where `keep` `(row,)` is true."""
    return item.filter(pl.Series(keep)) if isinstance(item, pl.Series) else item[keep]
