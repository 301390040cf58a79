"""Times of a source as microseconds since 1970 in UTC, so that a duration never depends on a clock change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import polars as pl

from pipeline.core.errors import DataError

MICROSECONDS_PER_HOUR: Final = 3_600_000_000
_OFFSET: Final = r"\s*(Z|z|[+-]\d{2}:?\d{2})$"
_COMMON: Final = "%Y-%m-%d %H:%M:%S"
_FORMATS: Final = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%Y%m%d")


@final
@dataclass
class ClockKinds:
    """Whether a source has shown times with an offset from UTC, and times without one."""

    offset: bool = False
    local: bool = False


def instants(column: pl.Series, zone: str | None, seen: ClockKinds) -> pl.Series:
    """Int64, null where a time is missing or is not of the form YYYY-MM-DD[ HH:MM[:SS[.f]]][offset].

    Local times are of `zone`; of a time that a clock change makes ambiguous the earlier is meant, one that a clock
    change leaves out is null. Day-first and month-first dates cannot be told apart, and are null.

    Raises:
        DataError: times with and without an offset from UTC, and no `zone` to tell what the latter mean.
    """
    if column.dtype == pl.String:
        parsed = _from_text(column, zone, seen)
    elif isinstance(column.dtype, pl.Datetime):
        seen.offset |= column.dtype.time_zone is not None
        seen.local |= column.dtype.time_zone is None
        parsed = _utc(column.cast(pl.Datetime("us", column.dtype.time_zone)), zone)
    elif column.dtype == pl.Date:
        seen.local = True
        parsed = _utc(column.cast(pl.Datetime("us")), zone)
    else:
        return pl.Series(column.name, [None] * len(column), dtype=pl.Int64)
    if seen.offset and seen.local and zone is None:
        raise DataError("some times carry an offset from UTC and some do not; name the latter's zone: layout.timezone")
    return parsed.dt.epoch("us").alias(column.name)


def _from_text(column: pl.Series, zone: str | None, seen: ClockKinds) -> pl.Series:
    plain = column.str.to_datetime(_COMMON, strict=False, time_unit="us", exact=True)
    others = plain.is_null() & column.is_not_null()
    if not others.any():  # by far the most columns; what is below looks at every text several times
        seen.local |= plain.null_count() < len(plain)
        return _utc(plain, zone)
    rows = others.arg_true()
    rest = _any_text(column.gather(rows), zone, seen)
    seen.local |= plain.null_count() < len(plain)
    return _utc(plain, zone).scatter(rows, rest)


def _any_text(column: pl.Series, zone: str | None, seen: ClockKinds) -> pl.Series:
    text = column.str.strip_chars().str.replace(r"^(\d{4}-\d{2}-\d{2})[Tt]", "${1} ")
    with_offset = text.str.contains(_OFFSET) & text.str.contains(":")
    seen.offset |= bool(with_offset.any())
    plain = text.set(with_offset, None) if with_offset.any() else text
    local = _first_that_reads(plain)
    seen.local |= local.null_count() < len(local)
    parsed = _utc(local, zone)
    if not with_offset.any():
        return parsed
    bare = text.str.replace(_OFFSET, "")
    offset = text.str.extract(_OFFSET).str.to_uppercase().str.replace("^Z$", "+00:00")
    hours, minutes = (offset.str.slice(at, 2).cast(pl.Int64, strict=False) for at in (1, -2))
    ahead = pl.DataFrame({"minutes": hours * 60 + minutes, "west": offset.str.starts_with("-")})
    signed = pl.when("west").then(-pl.col("minutes")).otherwise("minutes")
    shifted = _first_that_reads(bare) - ahead.select(pl.duration(minutes=signed)).to_series()
    return parsed.zip_with(~with_offset.fill_null(False), shifted)


def _first_that_reads(text: pl.Series) -> pl.Series:
    parsed = pl.Series(text.name, [None] * len(text), dtype=pl.Datetime("us"))
    for form in _FORMATS:
        if parsed.null_count() == text.null_count():
            break
        read = text.str.to_datetime(form, strict=False, time_unit="us", exact=True)
        parsed = parsed.zip_with(parsed.is_not_null(), read)
    return parsed


def _utc(local: pl.Series, zone: str | None) -> pl.Series:
    if isinstance(local.dtype, pl.Datetime) and local.dtype.time_zone is not None:
        return local.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if zone is None:
        return local
    placed = local.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return placed.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
