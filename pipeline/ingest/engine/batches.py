"""Delimited text (also .gz) and parquet as a stream of frames or coded columns: memory does not grow with the file.

Text columns come as text, parquet columns in their type; names of files and columns match whatever their case, since
the same published schema is exported in upper and in lower case.
"""

from __future__ import annotations

import csv
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

import polars as pl
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as arrow_parquet

from pipeline.core.errors import DataError
from pipeline.ingest.containers import holder, is_sheet, seekable, sheet
from pipeline.ingest.engine.coded import Batch
from pipeline.ingest.mapping.toml_table import did_you_mean
from pipeline.ingest.number_text import NO_VALUE
from pipeline.ingest.table_files import partitions, stem
from pipeline.ingest.text_stream import (
    UTF8,
    Head,
    Lines,
    NotUtf8,
    first_record,
    holds_rows_in_quotes,
    not_utf8,
    open_text,
)

FILE_STEM: Final = "(file)"
"""The column name that stands for the file's own name without suffix, where a source has one file per stay."""

_BLOCK_BYTES: Final = 4 << 20  # small enough that what is made of a block stays in the processor's caches
_BATCH_ROWS: Final = 1 << 17
_MOST_MALFORMED: Final = 0.01
_EMPTY: Final = ("", *NO_VALUE)


@final
@dataclass
class Tally:
    """What a stream has counted so far: lines that do not have the header's number of fields, and lines within quotes.

    The first `keep` of the former are kept, with their text, for the site's quarantine.
    """

    malformed: int = 0
    quoted: int = 0
    keep: int = 0
    lines: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def header(path: Path, encoding: str = UTF8) -> list[str]:
    """The names of the columns, those of the folders' partitions last.

    Raises:
        DataError: unreadable, empty, not of the encoding, or with a column twice.
    """
    names = _own_names(path, encoding)
    lower = [name.lower() for name in names if name]
    if len(set(lower)) < len(lower):
        raise DataError(f"{path}: {len(lower) - len(set(lower))} column names appear more than once")
    return [*names, *(name for name in partitions(path) if name.lower() not in lower)]


def _own_names(path: Path, encoding: str) -> list[str]:
    if is_sheet(path):
        return sheet(path)[0]
    if holder(path).stat().st_size == 0:
        raise DataError(f"{path} is an empty file")
    try:
        if path.suffix.lower() == ".parquet":
            return list(arrow_parquet.read_schema(seekable(path)).names)
        names = [name.strip() for name in first_record(path, encoding).names]
        if any("\x00" in name for name in names):
            raise DataError(
                f'{path} has null bytes in its header; if it is UTF-16, say so: layout.encoding = "utf-16-le"'
            )
        return names
    except (NotUtf8, UnicodeDecodeError):
        raise not_utf8(path, encoding) from None
    except (OSError, EOFError, pa.ArrowException, csv.Error):
        raise DataError(damaged(path)) from None


def batches(path: Path, columns: tuple[str, ...], tally: Tally, encoding: str = UTF8) -> Iterator[pl.DataFrame]:
    """Frames with exactly `columns`, named as asked for; `FILE_STEM` gives the file's own name in every row.

    Lines of text with too few or too many fields are passed over and counted in `tally`; blank lines are no lines.

    Raises:
        DataError: not found, damaged, cut off, not of the encoding, a column is missing, or more than 1 % malformed
            lines (and more than one).
    """
    constants = _constants(path, columns, encoding)
    for table in _tables(path, columns, (), tally, encoding, ()):
        try:
            frame = pl.DataFrame(pl.from_arrow(table))
        except (pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException):
            raise DataError(damaged(path)) from None
        yield frame.with_columns(pl.lit(value).alias(name) for name, value in constants.items()).select(columns)


def coded_batches(
    path: Path,
    columns: tuple[str, ...],
    coded: tuple[str, ...],
    tally: Tally,
    encoding: str = UTF8,
    codes: Collection[str] = (),
) -> Iterator[Batch]:
    """As `batches`, with the columns `coded` as codes of their distinct texts; columns are decoded when asked for.

    A text among `codes` means something, even where it looks like a missing value ("NA" for sodium).

    Raises:
        DataError: as `batches`.
    """
    first, constants = 0, _constants(path, columns, encoding)
    for table in _tables(path, columns, coded, tally, encoding, codes):
        arrays = {name: table.column(name).combine_chunks() for name in table.column_names}
        yield Batch(path, first, table.num_rows, arrays, constants)
        first += table.num_rows


def _constants(path: Path, columns: tuple[str, ...], encoding: str) -> dict[str, str]:
    """The asked-for columns that are not in the file but in its name or its folders' names."""
    here = {FILE_STEM.lower(): stem(path), **{name.lower(): value for name, value in partitions(path).items()}}
    inside = set() if len(here) == 1 else {name.lower() for name in _own_names(path, encoding)}
    return {name: here[name.lower()] for name in columns if name.lower() in here and name.lower() not in inside}


def _tables(
    path: Path,
    columns: tuple[str, ...],
    coded: tuple[str, ...],
    tally: Tally,
    encoding: str,
    codes: Collection[str],
) -> Iterator[pa.Table]:
    there = {name.lower(): name for name in header(path, encoding)}
    constants = _constants(path, columns, encoding)
    real = [name for name in columns if name not in constants]
    missing = [name for name in real if name.lower() not in there]
    if missing:
        meant = did_you_mean(missing, there.values())
        raise DataError(f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}{meant}")
    wanted = {there[name.lower()]: name for name in real}
    dictionaries = {there[name.lower()] for name in coded if name not in constants}
    rows, before = 0, tally.malformed
    try:
        empty = [text for text in _EMPTY if text not in codes]
        if is_sheet(path):
            tables = _sheet(path, list(wanted), empty)
        elif path.suffix.lower() == ".parquet":
            tables = _parquet(path, list(wanted), dictionaries)
        else:
            tables = _text(path, wanted, dictionaries, tally, encoding, empty)
        for table in tables:
            rows += table.num_rows
            yield table.select(list(wanted)).rename_columns(list(wanted.values()))
    except NotUtf8:
        raise not_utf8(path, encoding) from None
    except (OSError, EOFError, pa.ArrowException):
        raise DataError(damaged(path)) from None
    require_mostly_well_formed(path, tally.malformed - before, rows)


def require_mostly_well_formed(path: Path, malformed: int, rows: int) -> None:
    """Raise `DataError` when more than 1 % of the lines, and more than one, have not the fields of the header."""
    if malformed > max(1.0, _MOST_MALFORMED * (rows + malformed)):
        raise DataError(f"{path}: {malformed} of {rows + malformed} lines do not have the fields that the header names")


def _parquet(path: Path, wanted: list[str], dictionaries: set[str]) -> Iterator[Any]:
    source = seekable(path)
    kinds = {field.name: field.type for field in arrow_parquet.read_schema(source) if field.name in wanted}
    nested = [name for name, kind in kinds.items() if pa.types.is_nested(kind)]
    if nested:
        raise DataError(f"{path}: column {nested[0]} holds lists or records; text, numbers and times are read")
    bytes_ = {name for name, kind in kinds.items() if pa.types.is_binary(kind) or pa.types.is_large_binary(kind)}
    with arrow_parquet.ParquetFile(source, read_dictionary=sorted(dictionaries - bytes_)) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
            table = pa.Table.from_batches([batch])
            for name in bytes_:  # how some programs write text
                table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.string()))
            yield table


def _sheet(path: Path, wanted: list[str], empty: list[str]) -> Iterator[Any]:
    names, rows = sheet(path)
    filled = rows.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines are no lines
    columns = {name: filled.to_series(names.index(name)) for name in wanted}
    yield pl.DataFrame({name: column.set(column.is_in(empty), None) for name, column in columns.items()}).to_arrow()


def _text(
    path: Path, wanted: Mapping[str, str], dictionaries: set[str], tally: Tally, encoding: str, empty: list[str]
) -> Iterator[Any]:
    head = first_record(path, encoding)
    seen, records = Lines(), 1 + head.marks + "".join(head.names).count("\n")
    stream, _ = open_text(path, encoding, seen)
    before = tally.malformed
    with stream as source:
        for table in parsed_text(source, head, wanted, dictionaries, tally, empty):
            records += table.num_rows
            yield table
    records += tally.malformed - before
    quoted = seen.in_quotes(records)
    if quoted > max(1.0, _MOST_MALFORMED * (records + quoted)):
        within = f"{quoted} of {records + quoted} lines lie within quotes"
        if seen.quotes % 2:
            raise DataError(f"{path}: a quote is not closed, and {within}")
        if holds_rows_in_quotes(path, encoding, head):
            raise DataError(f"{path}: {within}, and most of them are rows by their fields: quotes are not closed")
    tally.quoted += quoted


def parsed_text(
    source: Any,
    head: Head,
    wanted: Mapping[str, str],
    dictionaries: set[str],
    tally: Tally,
    empty: list[str],
) -> Iterator[Any]:
    """Tables of the columns `wanted`, of a stream of UTF-8 that begins as `head` says; malformed lines are counted."""

    def malformed(row: Any) -> str:
        with tally.lock:
            tally.malformed += 1
            if len(tally.lines) < tally.keep:
                tally.lines.append(row.text)
        return "skip"

    raw = {name.strip(): name for name in head.names}
    coded = pa.dictionary(pa.int32(), pa.string())
    text = {raw[name]: coded if name in dictionaries else pa.string() for name in wanted}
    reader = arrow_csv.open_csv(
        source,
        read_options=arrow_csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False, skip_rows=head.skip),
        parse_options=arrow_csv.ParseOptions(
            delimiter=head.delimiter, newlines_in_values=True, invalid_row_handler=malformed
        ),
        convert_options=arrow_csv.ConvertOptions(
            include_columns=list(text), column_types=text, strings_can_be_null=True, null_values=empty
        ),
    )
    for batch in reader:
        if batch.num_rows:
            yield pa.Table.from_batches([batch]).rename_columns(list(wanted))


def damaged(path: Path) -> str:
    """What is said of a file that cannot be parsed."""
    kind = "parquet" if path.suffix.lower() == ".parquet" else "delimited text"
    largest = f"{_BLOCK_BYTES >> 20} MiB"
    return f"{path} cannot be read as {kind}: it is damaged, ends early, or has a cell larger than {largest}"
