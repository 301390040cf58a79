"""Columns as codes of their distinct texts: what is done with a text is done once for each, not for every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import polars as pl
import pyarrow as pa

from pipeline.ingest.mapping.toml_table import id_columns
from pipeline.ingest.source_tables import require_exact

ABSENT: Final = -1
ID_FORMS: Final = "zeros in front, `.0` behind, case, blanks, marks or Unicode form"
"""What `loose_ids` does not look at."""
LOOSE_HINT: Final = f"name one whose id differs only by {ID_FORMS}"


@final
@dataclass(frozen=True, eq=False, repr=False)
class Coded:
    """`codes` `(row,)` int32 index `distinct`; `ABSENT` where the row has none."""

    codes: np.ndarray
    distinct: pl.Series

    def look_up(self, table: np.ndarray, absent: Any) -> np.ndarray:
        """`table` `(distinct,)` row by row, and `absent` where there is no code."""
        found: np.ndarray = np.append(table, np.array([absent], dtype=table.dtype))[self.codes]
        return found


@final
@dataclass(frozen=True, eq=False, repr=False)
class Batch:
    """Some rows of a file; a column is decoded when it is asked for."""

    path: Path
    first: int  # how many rows of the file came before
    height: int
    arrays: Mapping[str, Any]
    constants: Mapping[str, str] = field(default_factory=dict)

    def head(self, rows: int) -> Batch:
        """The first rows alone."""
        arrays = {name: array.slice(0, rows) for name, array in self.arrays.items()}
        return Batch(self.path, self.first, min(rows, self.height), arrays, self.constants)

    def with_id(self, name: str) -> Batch:
        """With the id that the columns of its name are together, where they are several (see `joined_ids`)."""
        parts = id_columns(name)
        if len(parts) == 1:
            return self
        made = joined_ids([self.series(part) for part in parts]).to_arrow()
        return Batch(self.path, self.first, self.height, {**self.arrays, name: made}, self.constants)

    def coded(self, name: str) -> Coded:
        """A column as codes; numbers are coded, too."""
        if name in self.constants:
            return Coded(np.zeros(self.height, np.int32), pl.Series([self.constants[name]], dtype=pl.String))
        array = self.arrays[name]
        if not pa.types.is_dictionary(array.type):
            array = array.dictionary_encode()
        codes = array.indices.fill_null(ABSENT) if array.indices.null_count else array.indices
        return Coded(codes.to_numpy(zero_copy_only=False).astype(np.int32, copy=False), _series(array.dictionary))

    def series(self, name: str, rows: np.ndarray | None = None) -> pl.Series:
        """A column's values at `rows` (None = all); a row may be asked for more than once."""
        if name in self.constants:
            return pl.Series([self.constants[name]], dtype=pl.String).new_from_index(
                0, self.height if rows is None else len(rows)
            )
        array = self.arrays[name]
        column = _series(array.dictionary_decode() if pa.types.is_dictionary(array.type) else array)
        return column if rows is None or self.all_rows(rows) else column.gather(rows)

    def all_rows(self, rows: np.ndarray) -> bool:
        """Whether `rows` are all of the batch's, each once and in order."""
        return len(rows) == self.height and bool((rows == np.arange(self.height)).all())


def joined_ids(parts: Sequence[pl.Series]) -> pl.Series:
    """Ids of several columns as one text, null where one of them is missing; a mark within a part is doubled.

    So no two ids are written alike.
    """
    texts = [plain_text(part).str.replace_all("/", "//", literal=True) for part in parts]
    frame = pl.DataFrame({str(i): text.set(text == "", None) for i, text in enumerate(texts)})
    return frame.select(pl.concat_str(pl.all(), separator=" / ")).to_series()


def plain_text(column: pl.Series) -> pl.Series:
    """Ids, codes and times as trimmed text in one Unicode form; whole numbers stored as floats lose their `.0`."""
    if column.dtype.is_float() and bool((column.drop_nulls() == column.drop_nulls().round()).all()):
        column = column.cast(pl.Int64, strict=False)
    if isinstance(column.dtype, pl.Duration):
        column = column.cast(pl.Int64)
    text = column.cast(pl.String).str.strip_chars()
    return text.str.normalize("NFC") if text.str.contains(r"[^\x00-\x7f]").any() else text


def id_text(column: pl.Series, where: str) -> pl.Series:
    """As `plain_text`, of ids.

    Raises:
        DataError: floats so large that neighbouring ids are the same float.
    """
    require_exact(column, where)
    return plain_text(column)


def loose_ids(texts: pl.Series) -> pl.Series:
    """Ids without what typing and programs change: case, form, blanks, marks, zeros in front and `.0` behind."""
    plain = texts.cast(pl.String).str.normalize("NFKC").str.replace_all(r"[\s\pC_',-]", "").str.to_lowercase()
    return plain.str.replace(r"\.0+$", "").str.replace(r"^0+(.)", "${1}")


def _series(array: Any) -> pl.Series:
    return pl.Series(pl.from_arrow(array))
