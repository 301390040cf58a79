"""Cohort -> MEDS (Medical Event Data Standard 0.4): sharded events, labels, splits, code metadata.

MEDS knows subjects and times; a cohort has stays and hours. So the k-th stay of a subject gets an artificial start, and
a table of stays beside the standard's own files (`metadata/stays.parquet`) says which id and start belong together. The
folder also holds the mapping by which the ordinary reader reads it (`metadata/decoct_mapping.toml`). It holds patients'
records: it never leaves the site.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as arrow_parquet

from pipeline.core.errors import DataError
from pipeline.core.types import Cohort, Split, StaticVariable, Task, Variable
from pipeline.ingest.engine.instants import MICROSECONDS_PER_HOUR
from pipeline.ingest.sources.meds_mapping import STATIC_PREFIX, label_file, mapping_toml

MEDS_VERSION: Final = "0.4.1"
STAY_START: Final = "STAY_START"
"""The code that marks the (artificial) start of a stay; it has no value."""

_ARROW: Final[dict[str, pa.DataType]] = {
    "subject_id": pa.int64(),
    "time": pa.timestamp("us"),
    "code": pa.string(),
    "numeric_value": pa.float32(),
    "prediction_time": pa.timestamp("us"),
    "boolean_value": pa.bool_(),
    "split": pa.string(),
    "description": pa.string(),
    "parent_codes": pa.list_(pa.string()),
    "stay_id": pa.string(),
    "subject": pa.string(),
    "start": pa.timestamp("us"),
    "site": pa.string(),
}
_EPOCH_US: Final = 946_684_800_000_000  # 2000-01-01, in microseconds since 1970
_SPLIT_NAMES: Final = {Split.TRAIN: "train", Split.TUNING: "tuning", Split.HELD_OUT: "held_out"}
_SUBJECTS_PER_SHARD: Final = 2000
_LARGEST_ID: Final = 2**63


@final
@dataclass(frozen=True)
class _Clock:
    """Per stay: the subject's whole number, and start and prediction time in microseconds since 1970."""

    subject: np.ndarray
    start: np.ndarray
    prediction: np.ndarray


def write_meds(cohort: Cohort, folder: Path, *, subjects_per_shard: int = _SUBJECTS_PER_SHARD) -> int:
    """Write `cohort` under `folder` (which must not hold anything yet) and return the number of events.

    Every observed cell is one event in the middle of its step, with the variable's name as code; a sum beyond the
    plausible range of one measurement is written as several that add up to it. Statics are events at the stay's start.
    A label file per task, `labels/TASK/0.parquet`; a missing label has no row.

    Raises:
        DataError: the folder holds something, two names in it would clash, or a label is neither 0 nor 1.
    """
    if not np.isin(cohort.labels[np.isfinite(cohort.labels)], (0, 1)).all():
        raise DataError("only labels of 0 and 1 are written as MEDS; choose the tasks without the numbers")
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty; MEDS is written to a folder of its own")
    if len({label_file(task.name) for task in cohort.tasks}) < len(cohort.tasks):
        raise DataError("two tasks would share a label file")
    clock = _clock(cohort)
    events = 0
    for part, shard, rows in _shards(cohort, clock, subjects_per_shard):
        frame = _events(cohort, clock, rows)
        _write(frame, folder / "data" / _SPLIT_NAMES[part] / f"{shard}.parquet")
        events += frame.height
    for index, task in enumerate(cohort.tasks):
        _write(_labels(cohort.labels[:, index], task, clock), folder / label_file(task.name))
    subjects = pl.DataFrame(
        {"subject_id": clock.subject, "split": [_SPLIT_NAMES[Split(part)] for part in cohort.split]}
    )
    _write(subjects.unique(maintain_order=True).sort("subject_id"), folder / "metadata" / "subject_splits.parquet")
    _write(_codes(cohort), folder / "metadata" / "codes.parquet")
    _write(_stays(cohort, clock), folder / "metadata" / "stays.parquet")
    (folder / "metadata" / "dataset.json").write_text(json.dumps(_dataset(), indent=1) + "\n", encoding="utf-8")
    grid = {"step_hours": cohort.step_hours, "n_steps": cohort.values.shape[1]}
    (folder / "metadata" / "decoct.json").write_text(json.dumps(grid) + "\n", encoding="utf-8")
    text = mapping_toml(cohort)
    (folder / "metadata" / "decoct_mapping.toml").write_text(text, encoding="utf-8")
    return events


def _clock(cohort: Cohort) -> _Clock:
    ids = cohort.subject_ids.astype(str)
    whole = all(text.isdecimal() and str(int(text)) == text and int(text) < _LARGEST_ID for text in ids.tolist())
    subject = np.array([int(text) for text in ids.tolist()], dtype=np.int64) if whole else _numbered(ids)
    horizon = cohort.step_hours * cohort.values.shape[1]
    apart = math.ceil(horizon) + 24  # hours; the stays of a subject lie a day apart
    order = np.argsort(subject, kind="stable")
    nth = np.empty(len(subject), dtype=np.int64)
    first = np.searchsorted(subject[order], subject[order])
    nth[order] = np.arange(len(subject)) - first
    start = _EPOCH_US + nth * apart * MICROSECONDS_PER_HOUR
    return _Clock(subject, start, start + round(horizon * MICROSECONDS_PER_HOUR))


def _numbered(ids: np.ndarray) -> np.ndarray:
    return np.unique(ids, return_inverse=True)[1].astype(np.int64) + 1


def _shards(cohort: Cohort, clock: _Clock, per_shard: int) -> Iterator[tuple[Split, int, np.ndarray]]:
    """(split, number, rows of stays): no subject is in two shards, as the standard asks."""
    for part in _SPLIT_NAMES:
        inside = np.flatnonzero(cohort.split == int(part))
        subjects = np.unique(clock.subject[inside])
        for shard, first in enumerate(range(0, len(subjects), per_shard)):
            chosen = subjects[first : first + per_shard]
            yield part, shard, inside[np.isin(clock.subject[inside], chosen)]


def _events(cohort: Cohort, clock: _Clock, rows: np.ndarray) -> pl.DataFrame:
    stay, step, variable = np.nonzero(cohort.observed[rows])
    value = cohort.values[rows][stay, step, variable]
    middle = np.round((step + 0.5) * cohort.step_hours * MICROSECONDS_PER_HOUR).astype(np.int64)
    at, static = np.nonzero(np.isfinite(cohort.static[rows]))
    names = np.array([item.name for item in cohort.variables], dtype=object)
    static_names = np.array([STATIC_PREFIX + item.name for item in cohort.static_variables], dtype=object)
    series = _frame(clock.subject[rows[stay]], clock.start[rows[stay]] + middle, names[variable], value)
    parts = [
        _frame(clock.subject[rows], clock.start[rows], np.full(len(rows), STAY_START, dtype=object), None),
        _frame(clock.subject[rows[at]], clock.start[rows[at]], static_names[static], cohort.static[rows][at, static]),
        *_within_range(series, cohort.variables),
    ]
    return pl.concat(parts).sort("subject_id", "time", maintain_order=True)


def _within_range(series: pl.DataFrame, variables: tuple[Variable, ...]) -> list[pl.DataFrame]:
    """Sums may lie beyond what one measurement can be: such an event becomes several that add up to it."""
    parts = []
    for variable in variables:
        if variable.aggregation != "sum" or variable.plausible_high <= 0:
            continue
        while True:
            beyond = (pl.col("code") == variable.name) & (pl.col("numeric_value") > variable.plausible_high)
            large = series.filter(beyond)
            if large.height == 0:
                break
            piece = pl.lit(variable.plausible_high, pl.Float32)
            parts.append(large.with_columns(piece.alias("numeric_value")))
            rest = pl.when(beyond).then(pl.col("numeric_value") - piece).otherwise("numeric_value")
            series = series.with_columns(rest.alias("numeric_value"))
    return [series, *parts]


def _frame(subject: np.ndarray, time: np.ndarray, code: np.ndarray, value: np.ndarray | None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "subject_id": pl.Series(subject, dtype=pl.Int64),
            "time": pl.Series(time, dtype=pl.Int64).cast(pl.Datetime("us")),
            "code": pl.Series(code.tolist(), dtype=pl.String),
            "numeric_value": pl.Series([None] * len(code) if value is None else value, dtype=pl.Float32),
        }
    )


def _labels(labels: np.ndarray, task: Task, clock: _Clock) -> pl.DataFrame:
    known = np.isfinite(labels)
    return pl.DataFrame(
        {
            "subject_id": pl.Series(clock.subject[known], dtype=pl.Int64),
            "prediction_time": pl.Series(clock.prediction[known], dtype=pl.Int64).cast(pl.Datetime("us")),
            "boolean_value": pl.Series(labels[known] == 1, dtype=pl.Boolean),
        }
    ).sort("subject_id", "prediction_time")


def _codes(cohort: Cohort) -> pl.DataFrame:
    rows: list[tuple[str, str]] = [(STAY_START, "start of a stay")]
    kinds: tuple[Variable | StaticVariable, ...] = (*cohort.variables, *cohort.static_variables)
    for item in kinds:
        prefix = STATIC_PREFIX if isinstance(item, StaticVariable) else ""
        rows.append((prefix + item.name, f"{item.name} in {item.unit}"))
    table = pl.DataFrame(rows, schema={"code": pl.String, "description": pl.String}, orient="row")
    return table.with_columns(pl.lit(None, pl.List(pl.String)).alias("parent_codes"))


def _stays(cohort: Cohort, clock: _Clock) -> pl.DataFrame:
    times = {"start": clock.start, "prediction_time": clock.prediction}
    return pl.DataFrame(
        {
            "stay_id": cohort.stay_ids.astype(str).tolist(),
            "subject": cohort.subject_ids.astype(str).tolist(),
            "subject_id": pl.Series(clock.subject, dtype=pl.Int64),
            **({} if cohort.sites is None else {"site": cohort.sites.astype(str).tolist()}),
            **{name: pl.Series(value, dtype=pl.Int64).cast(pl.Datetime("us")) for name, value in times.items()},
        }
    )


def _dataset() -> dict[str, Any]:
    return {
        "dataset_name": "Decoct cohort",
        "etl_name": "decoct",
        "meds_version": MEDS_VERSION,
        "other_extension_columns": [],
    }


def _write(frame: pl.DataFrame, path: Path) -> None:
    """Parquet in the standard's own types (polars would write large strings)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_arrays(
        [frame[name].to_arrow().cast(_ARROW[name]) for name in frame.columns],
        schema=pa.schema([pa.field(name, _ARROW[name]) for name in frame.columns]),
    )
    arrow_parquet.write_table(table, path, compression="zstd")
