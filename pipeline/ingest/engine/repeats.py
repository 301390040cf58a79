"""Rows that say the same thing twice, or two things at once: same stay, time and source name.

Most rows are alone in their cell, so a hash of the cell singles out the few that may not be; only these are compared.
The hash is of two minutes, so that what is a correction of a row shortly before it is found on the way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

import numpy as np
import polars as pl

from pipeline.core.types import Aggregation
from pipeline.ingest.engine.parts.row_fates import add_count
from pipeline.ingest.mapping.layout import Layout
from pipeline.ingest.mapping.load import SourceMapping
from pipeline.ingest.source_tables import CountsByVariable

DUPLICATE: Final = "duplicate row"
CONFLICT: Final = "conflicting value"
_CORRECTED: Final = "times a stay has two values of one code less than a minute apart, and no other near: a correction?"
_USED: Final[Mapping[Aggregation, str]] = {
    "mean": "their mean is used",
    "last": "the later is used",
    "sum": "their sum is used",
    "max": "the higher is used",
    "min": "the lower is used",
}
_CELL: Final = ["row", "hours", "variable"]
_SPAN: Final = ["row", "span", "variable"]
_SPANS_PER_HOUR: Final = 30
_MINUTE: Final = 1 / 60 - 1e-6
_NEAR: Final = 5 / 60
_ODD: Final = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_HIGH: Final = np.uint64(32)
_SLOT_BITS: Final = np.uint32(10)


def settle_repeats(
    kept: pl.DataFrame, mapping: SourceMapping, layout: Layout, counts: CountsByVariable
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Drop exact repeats and settle conflicts by the layout's rule, in the source's order; both are counted.

    Statics are left alone: the earliest counts. With `conflicts = "mean"` the first row carries the mean, and the
    others are counted.
    """
    near = _suspects(kept, np.floor(kept["hours"].to_numpy() * _SPANS_PER_HOUR))
    close = kept[near].with_columns(order=pl.Series(near))
    corrected = _corrections(kept, close, mapping)
    series = close[_suspects(close, close["hours"].to_numpy())]
    series = series.filter(~pl.col("variable").is_in(list(mapping.static_sources)))
    gone = [np.zeros(0, dtype=np.int64)]
    if layout.drop_duplicates:
        once = series.unique([*_CELL, "value"], keep="first", maintain_order=True)
        gone.append(_count(series, once, DUPLICATE, counts))
        series = once
    cell = series.select(pl.struct(_CELL)).to_series()
    disputed = series.filter(cell.is_duplicated())
    notes = corrected
    if disputed.height:
        conflicts = disputed.select(pl.struct(_CELL).n_unique()).item()
        notes += (f"{conflicts} times a stay has several values of one code at one time ({layout.conflicts})",)
        if layout.conflicts != "keep":
            settled = _settled(disputed, layout)
            gone.append(_count(disputed, settled, CONFLICT, counts))
            if layout.conflicts == "mean":
                for name in [name for name in ("value", "known") if name in kept.columns]:
                    kept = kept.with_columns(kept[name].scatter(settled["order"], settled[name]))
    lost = np.concatenate(gone)
    if not len(lost):
        return kept, notes
    stays = np.ones(kept.height, dtype=bool)
    stays[lost] = False
    return kept.filter(pl.Series(stays)), notes


def _settled(disputed: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    if layout.conflicts == "drop":
        return disputed.head(0)
    if layout.conflicts == "mean":
        known = [pl.col("known").max().over(_CELL)] if "known" in disputed.columns else []
        mean = disputed.with_columns(pl.col("value").mean().over(_CELL), *known)
        return mean.unique(_CELL, keep="first", maintain_order=True)
    if layout.conflicts == "first":
        return disputed.unique(_CELL, keep="first", maintain_order=True)
    return disputed.unique(_CELL, keep="last", maintain_order=True)


def _corrections(kept: pl.DataFrame, close: pl.DataFrame, mapping: SourceMapping) -> tuple[str, ...]:
    """How often a stay has just two times of one code less than a minute apart, with other values, and none near.

    A sentence for each aggregation, which says what is used of the two. More times than two within five minutes of them
    are a frequent measurement. `close` are the rows of `kept` that may share their two minutes with another.
    """
    kinds = {variable.name: variable.aggregation for variable in mapping.variables}
    of = {source: kinds[name] for source, name in mapping.source_names.items() if name in kinds}
    span = close.with_columns(span=(pl.col("hours") * _SPANS_PER_HOUR).floor())
    pairs = span.group_by(_SPAN).agg(
        times=pl.col("hours").n_unique(),
        first=pl.col("hours").min(),
        last=pl.col("hours").max(),
        values=pl.col("value").n_unique(),
    )
    pairs = pairs.filter(pl.col("times") == 2, pl.col("last") - pl.col("first") < _MINUTE, pl.col("values") > 1)
    pairs = pairs.filter(pl.col("variable").cast(pl.String).is_in(list(of)))
    if not pairs.height:
        return ()
    beside = kept.select(_CELL).join(pairs.select(*_SPAN, "first", "last"), on=["row", "variable"])
    beside = beside.filter(pl.col("hours").is_between(pl.col("first") - _NEAR, pl.col("last") + _NEAR))
    alone = beside.group_by(_SPAN).agg(pl.col("hours").n_unique()).filter(pl.col("hours") == 2)
    found = Counter[Aggregation]()
    for name, rows in alone.group_by("variable").len().iter_rows():
        found[of[name]] += rows
    return tuple(f"{found[kind]} {_CORRECTED} ({used})" for kind, used in _USED.items() if found[kind])


def _suspects(kept: pl.DataFrame, time: np.ndarray) -> np.ndarray:
    """The rows, in order, whose stay, `time` and name hash to what another row's do: all repeats, and a few others."""
    hours: np.ndarray = (time + 0.0).view(np.uint64)  # adding 0 makes one zero of the two
    name = kept["variable"].to_physical().to_numpy().astype(np.uint64)
    row = kept["row"].to_numpy().astype(np.uint64)
    mixed = (hours ^ (hours >> _HIGH)) * _ODD[0] + (row * np.uint64(65537) + name) * _ODD[1]
    short = ((mixed ^ (mixed >> _HIGH)) * _ODD[0] >> _HIGH).astype(np.uint32)
    ordered = np.sort(short)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(twice):
        return np.zeros(0, dtype=np.int64)
    slots = np.zeros(1 << 22, dtype=bool)
    slots[twice >> _SLOT_BITS] = True
    near = np.flatnonzero(slots[short >> _SLOT_BITS])
    return near[np.isin(short[near], twice)]


def _count(before: pl.DataFrame, after: pl.DataFrame, reason: str, counts: CountsByVariable) -> np.ndarray:
    """The places of the rows that are in `before` and no more in `after`, which are counted by name."""
    gone = before.filter(~pl.col("order").is_in(after["order"].implode()))
    for name, rows in gone.group_by("variable").len().sort("variable").iter_rows():
        add_count(counts, name, reason, rows)
    return gone["order"].to_numpy()
