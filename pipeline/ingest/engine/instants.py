"""Times of a source as microseconds since 1970 in UTC, so that a duration never depends on a clock change."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, final

import numpy as np
import polars as pl

from pipeline.core.errors import DataError

MICROSECONDS_PER_HOUR: Final = 3_600_000_000
_OFFSET: Final = r"\s*(Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)$"
_COMMON: Final = "%Y-%m-%d %H:%M:%S"
_DATES: Final = ("%Y-%m-%d", "%Y%m%d")
_FORMATS: Final = (
    "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d %I:%M:%S %p", "%Y-%m-%d %I:%M %p", *_DATES
)  # fmt: skip
_FIRST_YEAR: Final = 1000  # "24" is no year of four digits
_REWRITTEN: Final = (  # to the form of `_FORMATS`, in this order
    (r"^(\d{4})[/.](\d{1,2})[/.](\d{1,2})", "${1}-${2}-${3}"),
    (r"^(\d{4}-\d{1,2}-\d{1,2})[Tt]", "${1} "),
    (r"^(\d{4})(\d{2})(\d{2}) (\d{1,2}:)", "${1}-${2}-${3} ${4}"),
    (r"^(\d{4})(\d{2})(\d{2})[Tt ]?(\d{2}):?(\d{2})(?::?(\d{2}))?$", "${1}-${2}-${3} ${4}:${5}:${6}"),
    (r":$", ":00"),
    (r"^(\d{4}-\d{1,2}-\d{1,2} \d{1,2}:\d{2}:\d{2}),(\d+)$", "${1}.${2}"),
)
_MONTHS: Final = 12
_MINUTES: Final = 60
_FEWEST: Final = 20
_MOST_MIDNIGHTS: Final = 0.05
_MOST_USUAL: Final = 8  # times as many as of another hour: charting by the hour, or every six, is less
_LOCK: Final = threading.Lock()
_MIDNIGHT: Final = r" 24:00(?::00(?:\.0+)?)?$"
_ORDERED: Final = {"day_first": "${3}-${2}-${1}", "month_first": "${3}-${1}-${2}"}


@final
@dataclass
class ClockKinds:
    """What times a source has shown: with an offset from UTC, or without one.

    `days`: how many are a date alone and were taken as its midnight. `twice`: how many lie in the hour that a clock
    change repeats.
    """

    offset: bool = False
    local: bool = False
    days: int = 0
    twice: int = 0
    dated: int = 0  # rows without a time, taken at the last second of their date
    contrary: int = 0  # dates that can be read only in the other order than the layout's
    hourly: int = 0  # times in hours since the start, other than 0
    sixtieths: int = 0  # of these the multiples of 60
    clocks: int = 0  # local times with a time of day
    midnights: int = 0  # of these exactly midnight
    hours: int = 0  # of these any other whole hour; not counted where none is midnight

    def add(self, other: ClockKinds) -> None:
        """Also what another part of the source has shown."""
        self.offset |= other.offset
        self.local |= other.local
        self.days += other.days
        self.twice += other.twice
        self.dated += other.dated
        self.contrary += other.contrary
        self.hourly += other.hourly
        self.sixtieths += other.sixtieths
        self.clocks += other.clocks
        self.midnights += other.midnights
        self.hours += other.hours

    def look(self, local: pl.Series) -> None:
        """Count the local times that may be a date to which a program has put a midnight."""
        since = local.dt.epoch("us")
        whole = since.filter(since % MICROSECONDS_PER_HOUR == 0)
        midnights = int((whole % (24 * MICROSECONDS_PER_HOUR) == 0).sum())
        self.clocks += len(local) - local.null_count()
        self.midnights += midnights
        self.hours += len(whole) - midnights if midnights else 0

    def note_dated(self, rows: int) -> None:
        """Also so many rows that have a date and no time; files are read by several threads."""
        with _LOCK:
            self.dated += rows

    def note_hours(self, hours: np.ndarray) -> None:
        """Also these times since the start, said to be hours."""
        hours = hours[np.isfinite(hours) & (hours != 0)]
        with _LOCK:
            self.hourly += len(hours)
            self.sixtieths += int((hours % _MINUTES == 0).sum())

    def require_zone(self, zone: str | None) -> None:
        """Raise `DataError` at times with and without an offset, where no zone says what the latter mean."""
        if self.offset and self.local and zone is None:
            raise DataError(
                "some times carry an offset from UTC and some do not; name the latter's zone: layout.timezone"
            )

    def notes(self) -> tuple[str, ...]:
        """What was assumed of times that do not say when exactly."""
        days = f"{self.days} times are a date without a time of day, taken as its midnight"
        twice = f"{self.twice} times lie in an hour that a clock change repeats, taken as the first"
        dated = f"{self.dated} rows have a date and no time: taken at the last second of that day"
        contrary = (
            f"{self.contrary} dates are none in the order that layout.dates says, and some in the other: which is it?"
        )
        minutes = f"all {self.hourly} times in hours since the start are multiples of 60: are they minutes?"
        midnights = (
            f"{self.midnights} of {self.clocks} times are exactly midnight: are they dates without a time of day?"
        )
        usual = max(_MOST_USUAL * self.hours / 23, _MOST_MIDNIGHTS * self.clocks, _FEWEST)
        few = self.hourly < _FEWEST or self.sixtieths < self.hourly
        told = (
            (self.days, days),
            (self.twice, twice),
            (self.dated, dated),
            (self.contrary, contrary),
            (not few, minutes),
            (self.midnights > usual, midnights),
        )
        return tuple(note for count, note in told if count)


def instants(column: pl.Series, zone: str | None, seen: ClockKinds, dates: str | None = None) -> pl.Series:
    """Int64, null where a time is missing or is not of the form YYYY-MM-DD[ HH:MM[:SS[.f]]][offset].

    Slashes or dots for dashes, T for the blank, 24:00 for the next midnight, YYYYMMDD[HHMM[SS]] (as whole numbers,
    too), AM and PM, and offsets of hours alone are read as well. Local times are of `zone`; of a time that a clock
    change makes ambiguous the earlier is meant, one that a clock change leaves out is null. Day-first and month-first
    dates cannot be told apart: they are null unless `dates` says which they are.

    Raises:
        DataError: times with and without an offset from UTC, and no `zone` to tell what the latter mean.
    """
    own = ClockKinds(seen.offset, seen.local)
    parsed = _parsed(column, zone, own, dates)
    with _LOCK:  # files are read by several threads
        seen.add(own)
    seen.require_zone(zone)
    return parsed.dt.epoch("us").alias(column.name)


def _parsed(column: pl.Series, zone: str | None, seen: ClockKinds, dates: str | None) -> pl.Series:
    if column.dtype.is_integer() or column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)  # of an epoch nobody knows the unit: its text is of no known form
    if column.dtype == pl.String:
        return _from_text(column, zone, seen, dates)
    if isinstance(column.dtype, pl.Datetime):
        seen.offset |= column.dtype.time_zone is not None
        seen.local |= column.dtype.time_zone is None
        if column.dtype.time_zone is None:
            seen.look(column)
        return _utc(column.cast(pl.Datetime("us", column.dtype.time_zone)), zone, seen)
    if column.dtype == pl.Date:
        seen.local = True
        seen.days += len(column) - column.null_count()
        return _utc(column.cast(pl.Datetime("us")), zone, seen)
    return pl.Series(column.name, [None] * len(column), dtype=pl.Datetime("us"))


def _from_text(column: pl.Series, zone: str | None, seen: ClockKinds, dates: str | None) -> pl.Series:
    plain = _of_four_digits(column.str.to_datetime(_COMMON, strict=False, time_unit="us", exact=True))
    others = plain.is_null() & column.is_not_null()
    seen.look(plain)
    if not others.any():  # by far the most columns; what is below looks at every text several times
        seen.local |= plain.null_count() < len(plain)
        return _utc(plain, zone, seen)
    rows = others.arg_true()
    seen.local |= plain.null_count() < len(plain)
    rest = _any_text(column.gather(rows), zone, seen, dates)
    return _utc(plain, zone, seen).scatter(rows, rest)


def _any_text(column: pl.Series, zone: str | None, seen: ClockKinds, dates: str | None) -> pl.Series:
    text = column.str.strip_chars()
    seen.contrary += 0 if dates is None else _contrary(text, dates)
    text = _rewritten(text, dates)
    with_offset = (text.str.contains(_OFFSET) & text.str.contains(":")).fill_null(False)
    local = _first_that_reads(text.set(with_offset, None) if with_offset.any() else text, seen)
    seen.local |= local.null_count() < len(local)
    if zone is None and seen.local:  # a word among local times: not enough to say that these are of another zone
        with_offset &= ~text.str.contains("UTC|GMT").fill_null(False)
    seen.offset |= bool(with_offset.any())
    parsed = _utc(local, zone, seen)
    if not with_offset.any():
        return parsed
    bare = text.str.replace(_OFFSET, "")
    offset = text.str.extract(_OFFSET).str.to_uppercase().str.replace("^(Z|UTC|GMT)$", "+00:00")
    offset = offset.str.replace(r"^([+-]\d{2})$", "${1}:00")
    hours, minutes = (offset.str.slice(at, 2).cast(pl.Int64, strict=False) for at in (1, -2))
    ahead = pl.DataFrame({"minutes": hours * 60 + minutes, "west": offset.str.starts_with("-")})
    signed = pl.when("west").then(-pl.col("minutes")).otherwise("minutes")
    shifted = _first_that_reads(bare, ClockKinds()) - ahead.select(pl.duration(minutes=signed)).to_series()
    return parsed.zip_with(~with_offset, shifted)


def _contrary(text: pl.Series, dates: str) -> int:
    parts = text.str.extract_groups(r"^(\d{1,2})[./-](\d{1,2})[./-]\d{4}").struct.unnest().cast(pl.Int64)
    first, second = parts.to_series(0), parts.to_series(1)
    month, day = (second, first) if dates == "day_first" else (first, second)
    return int(((month > _MONTHS) & (day <= _MONTHS)).sum())


def _rewritten(text: pl.Series, dates: str | None) -> pl.Series:
    if dates is not None:
        text = text.str.replace(r"^(\d{1,2})[./-](\d{1,2})[./-](\d{4})", _ORDERED[dates])
    for pattern, by in _REWRITTEN:
        text = text.str.replace(pattern, by)
    text = text.str.replace(r"^(\d{4})-(\d)-", "${1}-0${2}-").str.replace(r"^(\d{4}-\d{2})-(\d)( |$)", "${1}-0${2}${3}")
    text = text.str.replace(r"^(\d{4}-\d{2}-\d{2}) (\d):", "${1} 0${2}:")
    return text.str.replace(r"(?i)(:\d{2}) ?([ap])\.?m\.?$", "${1} ${2}m")


def _first_that_reads(text: pl.Series, seen: ClockKinds) -> pl.Series:
    next_day = text.str.contains(_MIDNIGHT).fill_null(False)
    if next_day.any():
        read = _first_that_reads(text.str.replace(_MIDNIGHT, " 00:00"), seen)
        return read.zip_with(~next_day, read + timedelta(days=1))
    parsed = pl.Series(text.name, [None] * len(text), dtype=pl.Datetime("us"))
    for form in _FORMATS:
        if parsed.null_count() == text.null_count():
            break
        read = _of_four_digits(text.str.to_datetime(form, strict=False, time_unit="us", exact=True))
        before = parsed.null_count()
        parsed = parsed.zip_with(parsed.is_not_null(), read)
        seen.days += before - parsed.null_count() if form in _DATES else 0
    return parsed


def _of_four_digits(read: pl.Series) -> pl.Series:
    """Without the times whose year was written with fewer than four digits."""
    first = read.min()
    early = isinstance(first, datetime) and first.year < _FIRST_YEAR
    return read.set(read.dt.year() < _FIRST_YEAR, None) if early else read


def _utc(local: pl.Series, zone: str | None, seen: ClockKinds) -> pl.Series:
    if isinstance(local.dtype, pl.Datetime) and local.dtype.time_zone is not None:
        return local.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if zone is None:
        return local
    placed = local.dt.replace_time_zone(zone, ambiguous="null", non_existent="null")
    rows = (placed.is_null() & local.is_not_null()).arg_true()
    if len(rows):
        first = local.gather(rows).dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
        seen.twice += len(first) - first.null_count()
        placed = placed.scatter(rows, first)
    return placed.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
