"""Profiles: what rules can look at instead of a tensor; a row per variable, channel, task or split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from pipeline.core.errors import DataError
from pipeline.core.files.mapped import row_chunks
from pipeline.core.types import Cohort, Json, Split, Variable

PLAUSIBLE_SLACK: Final = 1e-5  # of a range: single precision moves a value at a limit by less
Columns = dict[str, np.ndarray]
EVENT_COLUMNS = ("stay_id", "hours", "variable", "value")


def event_columns(events: Any, variables: tuple[Variable, ...], source_names: Mapping[str, str]) -> Columns:
    """Events as numbers: stay and variable coded, `plausible` = value placed on its plausible range (0 to 1).

    `repeat` numbers each distinct (stay, hours, variable); `code` is -1 for a name that is not in `variables`.

    Raises:
        DataError: a column is missing.
    """
    missing = [name for name in EVENT_COLUMNS if name not in events.columns]
    if missing:
        raise DataError(f"the events lack the column {missing[0]}")
    stay = _coded(events["stay_id"])[0]
    hours, value = (_numbers(events[name]) for name in ("hours", "value"))
    raw, names = _coded(events["variable"])
    index = {variable.name: i for i, variable in enumerate(variables)}
    own = np.array([index.get(source_names.get(str(name), str(name)), -1) for name in names], dtype=np.int64)
    code = np.append(own, -1)[raw]  # a missing name is coded -1, which picks the appended entry
    low = np.array([variable.plausible_low for variable in variables] + [0.0])
    span = np.array([variable.plausible_high for variable in variables] + [np.inf]) - low
    with np.errstate(invalid="ignore"):
        plausible = np.where(code >= 0, (value - low[code]) / span[code], np.nan)
    return {
        "stay_id": _or_nan(stay, stay >= 0),
        "hours": hours,
        "value": value,
        "variable": _or_nan(raw, raw >= 0),
        "code": _or_nan(code, raw >= 0),
        "plausible": plausible,
        "repeat": _row_codes(stay, hours, raw),
    }


def stay_columns(cohort: Cohort) -> Columns:
    """A row per stay: id and subject coded, split, observed cells, and the labels as `label:TASK`."""
    _, codes = np.unique(cohort.stay_ids, return_inverse=True)
    named = np.char.strip(cohort.stay_ids.astype(str)) != ""
    columns = {
        "stay_id": _or_nan(codes, named),
        "observed_cells": cohort.observed.sum(axis=(1, 2)).astype(np.float64),
        "split": cohort.split.astype(np.float64),
        "splits_of_subject": _splits_of_subject(cohort.subject_index, cohort.split),
    }
    return columns | label_columns(cohort.labels, tuple(task.name for task in cohort.tasks))


def label_columns(labels: np.ndarray, tasks: tuple[str, ...]) -> Columns:
    """The labels, a column `label:TASK` each."""
    return {f"label:{task}": labels[:, i].astype(np.float64) for i, task in enumerate(tasks)}


def variable_profile(cohort: Cohort) -> Columns:
    """A row per variable: shares of stays and of cells observed, extremes on the plausible range (0 to 1), spread.

    The plausible range is of one event: the sum of several in a step may leave it, so sums have no extremes here.
    """
    low = np.array([v.plausible_low for v in cohort.variables])
    span = np.array([v.plausible_high for v in cohort.variables], dtype=np.float64) - low
    minimum, maximum, sd = _finite_profile(cohort.values)
    span[[v.aggregation == "sum" for v in cohort.variables]] = np.nan
    return {
        "stays_observed": cohort.observed.any(axis=1).mean(axis=0),
        "cells_observed": cohort.observed.mean(axis=(0, 1)),
        "plausible_min": (minimum - low) / span,
        "plausible_max": (maximum - low) / span,
        "sd": sd,
    }


def channel_profile(features: np.ndarray) -> Columns:
    """A row per channel of `(row, step, channel)`: cells that are not finite, extremes, standard deviation."""
    minimum, maximum, sd = _finite_profile(features)
    finite = sum((np.isfinite(features[part]).sum(axis=(0, 1)) for part in row_chunks(features)), start=np.int64(0))
    not_finite = np.broadcast_to(features.shape[0] * features.shape[1] - finite, features.shape[2:]).astype(np.float64)
    return {"not_finite": not_finite, "min": minimum, "max": maximum, "sd": sd}


def task_profile(labels: np.ndarray, split: np.ndarray) -> Columns:
    """A row per task: share of labels known and of ones, stays of the rarer class in train and held out.

    The classes of a number are the halves of its public range.
    """
    train, held_out = labels[split == Split.TRAIN], labels[split == Split.HELD_OUT]
    known = np.isfinite(labels).sum(axis=0)
    ones = (labels >= 0.5).sum(axis=0)
    return {
        "known_share": known / max(len(labels), 1),
        "prevalence": np.divide(ones, known, out=np.full(len(known), np.nan), where=known > 0),
        "train_rarer_class": _rarer_class(train),
        "held_out_rarer_class": _rarer_class(held_out),
    }


def testable_tasks(labels: np.ndarray, split: np.ndarray) -> Columns:
    """One row: how many tasks have two different labels among the held-out stays, so that models can be told apart."""
    held_out = labels[split == Split.HELD_OUT]
    varied = [len(np.unique(column[np.isfinite(column)])) > 1 for column in held_out.T]
    return {"testable_tasks": np.array([sum(varied)], dtype=np.float64)}


def split_profile(split: np.ndarray) -> Columns:
    """A row per split: its stays and its share of them."""
    counts = np.array([(split == part).sum() for part in Split], dtype=np.float64)
    return {"stays": counts, "share": counts / max(len(split), 1)}


def implausible_cells(features: np.ndarray, channels: tuple[str, ...], transforms: Sequence[Json]) -> np.ndarray:
    """Cells beyond the plausible limits that the scaling records, `(row, channel)`; none where it records none."""
    scaling = next((step for step in transforms if step["kind"] == "scaling" and "plausible_low" in step), None)
    found = np.zeros((len(features), len(channels)))
    if scaling is None:
        return found
    place = {name: index for index, name in enumerate(scaling["channels"])}
    for column, name in enumerate(channels):
        if name in place:
            low, high, bottom, top = (
                scaling[key][place[name]] for key in ("low", "high", "plausible_low", "plausible_high")
            )
            values = low + features[:, :, column].astype(np.float64) * (high - low)
            slack = PLAUSIBLE_SLACK * (high - low)
            found[:, column] = ((values < bottom - slack) | (values > top + slack)).sum(axis=1)
    return found


def distinct_rows(features: np.ndarray) -> np.ndarray:
    """A code per row, equal for rows of equal bytes."""
    flat = np.ascontiguousarray(features).reshape(len(features), -1)
    codes: dict[bytes, int] = {}
    return np.array([codes.setdefault(row.tobytes(), len(codes)) for row in flat], dtype=np.float64)


def _finite_profile(array: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minimum, maximum and standard deviation over rows and steps, of finite cells; NaN where there is none.

    Two passes, a chunk of rows at a time: an array that lies in its file is never in memory whole.
    """
    n = array.shape[2]
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    total, cells, squares = np.zeros(n), np.zeros(n), np.zeros(n)
    for part in row_chunks(array):
        flat = array[part].reshape(-1, n)
        finite = np.isfinite(flat)
        low = np.minimum(low, flat.min(axis=0, initial=np.inf, where=finite))
        high = np.maximum(high, flat.max(axis=0, initial=-np.inf, where=finite))
        total += flat.sum(axis=0, dtype=np.float64, where=finite)
        cells += finite.sum(axis=0)
    with np.errstate(invalid="ignore"):  # a channel without a finite cell is NaN, and a rule says so
        mean = total / cells
        for part in row_chunks(array):
            flat = array[part].reshape(-1, n)
            squares += np.square(flat - mean).sum(axis=0, where=np.isfinite(flat))
        known = np.where(cells > 0, 1.0, np.nan)
        return low * known, high * known, np.sqrt(squares / cells)


def _rarer_class(labels: np.ndarray) -> np.ndarray:
    rarer: np.ndarray = np.minimum((labels >= 0.5).sum(axis=0), (labels < 0.5).sum(axis=0))
    return rarer.astype(np.float64)


def _splits_of_subject(subjects: np.ndarray, split: np.ndarray) -> np.ndarray:
    """For each stay, in how many splits its subject has stays."""
    seen = np.zeros((int(subjects.max(initial=-1)) + 1, 256 if (split & ~3).any() else 4), dtype=bool)
    seen[subjects, split.astype(np.int64) & 255] = True
    of_stay: np.ndarray = seen.sum(axis=1)[subjects].astype(np.float64)
    return of_stay


def _coded(series: Any) -> tuple[np.ndarray, np.ndarray]:
    """Codes (-1 = missing or blank) and distinct values of a polars or pandas column."""
    import polars as pl

    column = series
    if not isinstance(column, pl.Series):  # pandas has a NaN for what is missing
        column = pl.Series([None if value != value else value for value in series], dtype=pl.String, strict=False)
    if not isinstance(column.dtype, pl.Enum):
        text = column.cast(pl.String)
        column = text.cast(pl.Enum(text.drop_nulls().unique(maintain_order=True)))
    assert isinstance(column.dtype, pl.Enum)
    distinct = column.dtype.categories
    blank = (distinct.str.strip_chars() == "").to_numpy()
    codes = column.to_physical().cast(pl.Int64).fill_null(-1).to_numpy()
    return np.where(np.append(blank, True)[codes], -1, codes), distinct.to_numpy()


def _numbers(series: Any) -> np.ndarray:
    """Float64 values, NaN = missing.

    Raises:
        DataError: the column holds something that is no number.
    """
    try:
        return np.asarray(series.to_numpy(), dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"the events' column {series.name} holds values that are not numbers") from None


def _or_nan(codes: np.ndarray, there: np.ndarray) -> np.ndarray:
    return np.where(there, codes, np.nan)


def _row_codes(stay: np.ndarray, hours: np.ndarray, name: np.ndarray) -> np.ndarray:
    """A number per distinct triple; NaN where a part is missing. Exact while their product stays below 2^53."""
    import polars as pl

    moments = pl.Series(hours).rank("dense").to_numpy()
    code = (stay * (int(name.max(initial=0)) + 1.0) + name) * (int(moments.max(initial=0)) + 1.0) + moments
    return np.where((stay >= 0) & (name >= 0) & ~np.isnan(hours), code, np.nan)
