"""One table from a CSV or parquet file; what is wrong is said in one sentence, without a value."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import polars as pl

from pipeline.core.errors import DataError
from pipeline.ingest.source_tables import require_columns

_PARQUET_MAGIC: Final = b"PAR1"


def read_table(path: Path, columns: tuple[str, ...] | None = None) -> pl.DataFrame:
    """The table in `path`; CSV columns come as text, parquet columns in their type. `columns` = only these.

    Raises:
        DataError: not found, empty, not a table, or without one of `columns`.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; expected a CSV or parquet file")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except FileNotFoundError:
        raise DataError(f"{path} not found") from None
    except OSError:
        raise DataError(f"{path} cannot be read") from None
    if not magic:
        raise DataError(f"{path} is an empty file")
    kind, read = ("parquet", _parquet) if magic == _PARQUET_MAGIC else ("CSV", _csv)
    try:
        return read(path, columns)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):  # it panics on some damaged parquet
        raise DataError(f"{path} cannot be read as {kind}: it is damaged, ends early or is of another format") from None


def _parquet(path: Path, columns: tuple[str, ...] | None) -> pl.DataFrame:
    if columns is not None:
        require_columns(list(pl.read_parquet_schema(path)), columns, str(path))
    return pl.read_parquet(path, columns=None if columns is None else list(columns))


def _csv(path: Path, columns: tuple[str, ...] | None) -> pl.DataFrame:
    separator = "\t" if ".tsv" in path.suffixes else ","
    if columns is not None:
        header = pl.read_csv(path, n_rows=0, infer_schema=False, separator=separator)
        require_columns(header.columns, columns, str(path))
    wanted = None if columns is None else list(columns)
    return pl.read_csv(path, columns=wanted, infer_schema=False, separator=separator)
