"""A look at a table: its columns, its first rows, and in what form numbers and times are written there."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, final

import polars as pl

from pipeline.ingest.drafting.synonyms import role
from pipeline.ingest.engine.batches import Tally, batches, header
from pipeline.ingest.table_files import stem

_ROWS: Final = 20_000
_BYTES: Final = 8 << 20
_COMMA: Final = r"^[<>\u2264\u2265]?=?\s*[+-]?\d+,\d+$"
_DATE: Final = r"^(\d{1,2})[./-](\d{1,2})[./-]\d{4}"
_COMPACT: Final = r"^(19|20|21)\d{2}[01]\d[0-3]\d(\d{4}|\d{6})?$"
TimeKind = Literal["datetime", "date", "number"]


@final
@dataclass(frozen=True, eq=False, repr=False)
class Look:
    """`name` is the table's as a layout gives it; `head` its first rows, in the types of the file."""

    path: Path
    name: str
    columns: tuple[str, ...]
    head: pl.DataFrame

    def role(self, wanted: str) -> str | None:
        """The column that likeliest plays a role."""
        return role(self.columns, wanted)

    @property
    def is_long(self) -> bool:
        """Whether it has a row per event."""
        return None not in (self.role("code"), self.role("value"), self.role("time"))


def look(folder: Path, path: Path, encoding: str) -> Look:
    """Raises: DataError: the file cannot be read in this encoding."""
    columns = tuple(name for name in header(path, encoding) if name)
    first = next(batches(path, columns, Tally(), encoding), None)
    empty = pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    name = path.relative_to(folder).with_name(stem(path)).as_posix()
    return Look(path, name, columns, empty if first is None else first.head(_ROWS))


def encoding_of(files: Iterable[Path]) -> str:
    """UTF-8 if all text is that; otherwise what Windows programs write, if all can be that."""
    seen = [_some_bytes(path) for path in files if path.suffix.lower() != ".parquet"]
    strange = [data for data in seen if not data.startswith((b"\xff\xfe", b"\xfe\xff")) and not _reads(data, "utf-8")]
    if not strange:
        return "utf-8"
    return "cp1252" if all(_reads(data, "cp1252") for data in strange) else "latin-1"


def _some_bytes(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            data = file.read(_BYTES)
    except (OSError, EOFError):
        return b""  # reading it says so
    return data if len(data) < _BYTES else data[: data.rfind(b"\n") + 1]


def _reads(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def texts(column: pl.Series) -> pl.Series:
    """The entries of a column that hold something, as trimmed text."""
    text = column.drop_nulls().cast(pl.String, strict=False).str.strip_chars()
    return text.filter(text != "")


def has_decimal_commas(column: pl.Series) -> bool:
    """Whether a column of text has numbers with a decimal comma."""
    return column.dtype == pl.String and bool(texts(column).str.contains(_COMMA).any())


def numbers_in(column: pl.Series) -> pl.Series:
    """The entries that are numbers, a decimal comma as a point."""
    if column.dtype.is_numeric():
        return column.cast(pl.Float64).drop_nulls()
    if column.dtype != pl.String:
        return pl.Series(dtype=pl.Float64)
    text = texts(column)
    comma = text.str.contains(_COMMA)
    return text.str.replace(",", ".").cast(pl.Float64, strict=False).zip_with(comma, _cast(text)).drop_nulls()


def _cast(text: pl.Series) -> pl.Series:
    return text.cast(pl.Float64, strict=False)


def mostly_numbers(column: pl.Series) -> bool:
    """Whether more than half of the entries are numbers."""
    there = len(texts(column)) if column.dtype == pl.String else len(column.drop_nulls())
    return there > 0 and 2 * len(numbers_in(column)) > there


def time_kind(column: pl.Series) -> TimeKind | None:
    """What a column of times holds: moments, dates alone, numbers that count from a start; None: nothing, or other."""
    if isinstance(column.dtype, pl.Datetime):
        return "datetime"
    if column.dtype == pl.Date:
        return "date"
    if isinstance(column.dtype, pl.Duration):
        return "number"
    text = texts(column)
    if not len(text) or (column.dtype not in (pl.String, pl.Categorical) and not column.dtype.is_numeric()):
        return None
    if text.str.contains(_COMPACT).all():
        return "date" if (text.str.len_chars() == 8).all() else "datetime"
    if mostly_numbers(column):
        return "number"
    dates = text.str.contains(r"\d{4}[./-]\d{1,2}[./-]\d{1,2}|\d{1,2}[./-]\d{1,2}[./-]\d{4}")
    if 2 * int(dates.sum()) <= len(text):
        return None
    return "datetime" if text.str.contains(":").any() else "date"


def date_order(columns: Sequence[pl.Series]) -> tuple[str | None, str | None]:
    """`dates` of a layout for columns of times, and what a person must look at; None where nothing needs it."""
    found = [texts(column) for column in columns if column.dtype == pl.String]
    text = pl.concat([item for item in found if len(item)]) if any(map(len, found)) else pl.Series(dtype=pl.String)
    dates = text.filter(text.str.contains(_DATE))
    if not len(dates):
        return None, None
    first, second = (dates.str.extract(_DATE, group).cast(pl.Int64).max() for group in (1, 2))
    over = [isinstance(part, int) and part > 12 for part in (first, second)]
    if over == [True, True]:
        return None, "some dates are day-first and some are month-first: they cannot all be read"
    if any(over):
        return ("day_first" if over[0] else "month_first"), None
    if dates.str.contains(r"^\d{1,2}\.").all():
        return "day_first", "no date tells whether the day or the month comes first: day_first is taken, for the points"
    return None, "no date tells whether the day or the month comes first: set layout.dates"
