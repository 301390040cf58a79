"""Delimited text (also .gz) and parquet as a stream of frames or coded columns: memory does not grow with the file.

Text columns come as text, parquet columns in their type; names of files and columns match whatever their case, since
the same published schema is exported in upper and in lower case.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

import polars as pl
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as arrow_parquet

from pipeline.core.errors import DataError
from pipeline.ingest.engine.coded import Batch

SUFFIXES: Final = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".psv", ".psv.gz")
FILE_STEM: Final = "(file)"
"""The column name that stands for the file's own name without suffix, where a source has one file per stay."""

_BLOCK_BYTES: Final = 4 << 20  # small enough that what is made of a block stays in the processor's caches
_BATCH_ROWS: Final = 1 << 17
_HEADER_BYTES: Final = 1 << 20
_MOST_MALFORMED: Final = 0.01
_EMPTY: Final = ["", "NA", "NaN", "nan", "NULL", "null", "None", r"\N"]


@final
@dataclass
class Tally:
    """What a stream has counted so far: lines that do not have the header's number of fields.

    The first `keep` of them are kept, with their text, for the site's quarantine.
    """

    malformed: int = 0
    keep: int = 0
    lines: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def find_files(folder: Path, pattern: str, *, optional: bool = False) -> list[Path]:
    """The files that `pattern` names under `folder`: a file with or without suffix, a folder of shards, or a glob.

    Raises:
        DataError: there is none, and it is not `optional`.
    """
    if any(char in pattern for char in "*?["):
        found = sorted(path for path in folder.glob(pattern) if _is_table(path))
    else:
        found = _named(folder, pattern)
    if not found and not optional:
        raise DataError(f"{folder.name} holds no table {pattern} ({', '.join(SUFFIXES)})")
    return found


def _named(folder: Path, pattern: str) -> list[Path]:
    here = folder
    parts = Path(pattern).parts
    for part in parts[:-1]:
        here = _child(here, part) or here / part
    for name in (parts[-1], *(parts[-1] + suffix for suffix in SUFFIXES)) if parts else ():
        path = _child(here, name)
        if path is not None and path.is_dir():
            return sorted(item for item in path.rglob("*") if _is_table(item))
        if path is not None and _is_table(path):
            return [path]
    return sorted(item for item in folder.rglob("*") if _is_table(item)) if pattern in ("", ".") else []


def _child(folder: Path, name: str) -> Path | None:
    if (folder / name).exists():
        return folder / name
    if not folder.is_dir():
        return None
    same = [path for path in sorted(folder.iterdir()) if path.name.lower() == name.lower()]
    return same[0] if same else None


def _is_table(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.name.lower().endswith(SUFFIXES)


def stem(path: Path) -> str:
    """The file's name without any of the known suffixes."""
    return next((path.name[: -len(end)] for end in SUFFIXES[::-1] if path.name.lower().endswith(end)), path.name)


def header(path: Path) -> list[str]:
    """The names of the columns as the file writes them.

    Raises:
        DataError: unreadable, empty, or with a column twice.
    """
    if path.stat().st_size == 0:
        raise DataError(f"{path} is an empty file")
    try:
        if path.suffix.lower() == ".parquet":
            names = list(arrow_parquet.read_schema(path).names)
        else:
            with _stream(path) as source:
                first = source.read(_HEADER_BYTES).split(b"\n", 1)[0].decode("utf-8-sig")
            names = [name.strip().strip('"') for name in first.rstrip("\r").split(_delimiter(path, first))]
    except (OSError, EOFError, pa.ArrowException, UnicodeDecodeError):
        raise DataError(_damaged(path)) from None
    lower = [name.lower() for name in names]
    if len(set(lower)) < len(lower):
        raise DataError(f"{path}: {len(lower) - len(set(lower))} column names appear more than once")
    return names


def batches(path: Path, columns: tuple[str, ...], tally: Tally) -> Iterator[pl.DataFrame]:
    """Frames with exactly `columns`, named as asked for; `FILE_STEM` gives the file's own name in every row.

    Lines of text with too few or too many fields are passed over and counted in `tally`; blank lines are no lines.

    Raises:
        DataError: not found, damaged, cut off, not UTF-8, a column is missing, or more than 1 % malformed lines (and
            more than one).
    """
    for table in _tables(path, columns, (), tally):
        try:
            frame = pl.DataFrame(pl.from_arrow(table))
        except (pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException):
            raise DataError(_damaged(path)) from None
        if FILE_STEM in columns:
            frame = frame.with_columns(pl.lit(stem(path)).alias(FILE_STEM))
        yield frame.select(columns)


def coded_batches(path: Path, columns: tuple[str, ...], coded: tuple[str, ...], tally: Tally) -> Iterator[Batch]:
    """As `batches`, with the columns `coded` as codes of their distinct texts; columns are decoded when asked for.

    Raises:
        DataError: as `batches`.
    """
    first = 0
    for table in _tables(path, columns, coded, tally):
        arrays = {name: table.column(name).combine_chunks() for name in table.column_names}
        constants = {FILE_STEM: stem(path)} if FILE_STEM in columns else {}
        yield Batch(path, first, table.num_rows, arrays, constants)
        first += table.num_rows


def _tables(path: Path, columns: tuple[str, ...], coded: tuple[str, ...], tally: Tally) -> Iterator[pa.Table]:
    there = {name.lower(): name for name in header(path)}
    real = [name for name in columns if name != FILE_STEM]
    missing = [name for name in real if name.lower() not in there]
    if missing:
        raise DataError(f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    wanted = {there[name.lower()]: name for name in real}
    dictionaries = {there[name.lower()] for name in coded if name != FILE_STEM}
    reader = _parquet if path.suffix.lower() == ".parquet" else _text
    rows, before = 0, tally.malformed
    try:
        for table in reader(path, list(wanted), dictionaries, tally):
            rows += table.num_rows
            yield table.select(list(wanted)).rename_columns(list(wanted.values()))
    except (OSError, EOFError, pa.ArrowException):
        raise DataError(_damaged(path)) from None
    malformed = tally.malformed - before
    if malformed > max(1.0, _MOST_MALFORMED * (rows + malformed)):
        raise DataError(f"{path}: {malformed} of {rows + malformed} lines do not have the fields that the header names")


def _parquet(path: Path, wanted: list[str], dictionaries: set[str], tally: Tally) -> Iterator[Any]:
    with arrow_parquet.ParquetFile(path, read_dictionary=sorted(dictionaries)) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
            yield pa.Table.from_batches([batch])


def _text(path: Path, wanted: list[str], dictionaries: set[str], tally: Tally) -> Iterator[Any]:
    def malformed(row: Any) -> str:
        with tally.lock:
            tally.malformed += 1
            if len(tally.lines) < tally.keep:
                tally.lines.append(row.text)
        return "skip"

    with _stream(path) as peek:
        delimiter = _delimiter(path, peek.read(_HEADER_BYTES).split(b"\n", 1)[0].decode("utf-8-sig"))
    coded = pa.dictionary(pa.int32(), pa.string())
    text = {name: coded if name in dictionaries else pa.string() for name in wanted}
    with _stream(path) as source:
        reader = arrow_csv.open_csv(
            source,
            read_options=arrow_csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=malformed
            ),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=wanted, column_types=text, strings_can_be_null=True, null_values=_EMPTY
            ),
        )
        for batch in reader:
            if batch.num_rows:
                yield pa.Table.from_batches([batch])


def _stream(path: Path) -> Any:
    file = pa.OSFile(str(path))
    return pa.CompressedInputStream(file, "gzip") if path.name.lower().endswith(".gz") else file


def _delimiter(path: Path, first: str) -> str:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".psv"):
        return "|"
    if name.endswith(".tsv"):
        return "\t"
    return ";" if ";" in first and "," not in first else ","


def _damaged(path: Path) -> str:
    kind = "parquet" if path.suffix.lower() == ".parquet" else "delimited UTF-8 text"
    largest = f"{_BLOCK_BYTES >> 20} MiB"
    return f"{path} cannot be read as {kind}: it is damaged, ends early, or has a cell larger than {largest}"
