"""Any source that can write one long table of events and, if it has labels, one table of stays."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import polars as pl

from pipeline.core.errors import DataError
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.ingest.source_tables import (
    SourceTables,
    as_numbers,
    as_text_ids,
    check_ids,
    drop_unusable,
    require_columns,
    totals,
)
from pipeline.ingest.sources.files import read_table

_HOURS_PER_UNIT: Final = {"hours": 1.0, "minutes": 1.0 / 60.0}


def read_long_table(
    *,
    events: Path | str,
    stays: Path | str | None = None,
    stay_column: str = "stay_id",
    subject_column: str | None = None,
    time_column: str = "hours",
    time_unit: Literal["hours", "minutes"] = "hours",
    variable_column: str = "variable",
    value_column: str = "value",
    missing_codes: tuple[float, ...] = (),
    split_column: str | None = None,
    on_step: OnStep = ignore_step,
) -> SourceTables:
    """Read the tables; stays in the order of the stays table, or of their first event when there is none.

    Stays without an event are kept. `subject_column` and `split_column` are looked up in the stays table, or in the
    events when there is no stays table.

    Raises:
        DataError: a file or column is missing or malformed, an id is repeated or missing, or events of unknown stays.
    """
    path = Path(events)
    per_stay = tuple(name for name in (subject_column, split_column) if name is not None) if stays is None else ()
    raw = read_table(path, tuple(dict.fromkeys((stay_column, time_column, variable_column, value_column, *per_stay))))
    if raw.height == 0:
        raise DataError(f"{path} holds no row")
    on_step(1, 2, float(raw.height))
    stay_id = as_text_ids(raw[stay_column], str(path)).alias("stay_id")
    hours = as_numbers(raw[time_column], str(path)) * _HOURS_PER_UNIT[time_unit]
    table = pl.DataFrame(
        {
            "stay_id": stay_id,
            "hours": hours,
            "variable": raw[variable_column].cast(pl.String),
            "value": as_numbers(raw[value_column], str(path)),
        }
    )
    kept, counts = drop_unusable(table, missing_codes)
    if stays is None:
        where, rows = path, _stays_of_events(raw.with_columns(stay_id), per_stay, path)
    else:
        where, rows = Path(stays), _stays_table(Path(stays), stay_column)
    on_step(2, 2, float(raw.height))
    return SourceTables(
        events=kept,
        stays=_with_subject_and_split(rows, subject_column, split_column, where),
        rows_read=raw.height,
        rows_dropped=totals(counts),
        dropped_by_variable=counts,
        subjects_known=subject_column is not None,
        source=path.name,
    )


def _stays_of_events(raw: pl.DataFrame, per_stay: tuple[str, ...], path: Path) -> pl.DataFrame:
    rows = raw.select("stay_id", *(name for name in per_stay if name != "stay_id")).unique(maintain_order=True)
    several = rows.height - rows["stay_id"].n_unique()
    if several:
        raise DataError(f"{path}: {several} stays have more than one value in {' or '.join(per_stay)}")
    return rows


def _stays_table(path: Path, stay_column: str) -> pl.DataFrame:
    table = read_table(path)
    require_columns(table.columns, (stay_column,), str(path))
    ids = as_text_ids(table[stay_column], str(path)).alias("stay_id")
    check_ids(ids, stay_column, str(path))
    return table.with_columns(ids)


def _with_subject_and_split(rows: pl.DataFrame, subject: str | None, split: str | None, path: Path) -> pl.DataFrame:
    require_columns(rows.columns, tuple(name for name in (subject, split) if name is not None), str(path))
    subject_id = rows["stay_id"] if subject is None else as_text_ids(rows[subject], str(path))
    columns = [subject_id.alias("subject_id")]
    if split is not None:
        columns.append(rows[split].cast(pl.String).alias("split"))
    elif "split" in rows.columns:
        rows = rows.drop("split")  # a column of that name means something only when the configuration says so
    return rows.with_columns(columns)
