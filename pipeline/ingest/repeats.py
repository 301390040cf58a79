"""Rows that say the same thing twice, or two things at once: same stay, time and source name."""

from __future__ import annotations

from typing import Final

import polars as pl

from pipeline.ingest.layout import Layout
from pipeline.ingest.mapping import SourceMapping
from pipeline.ingest.tables import CountsByVariable

DUPLICATE: Final = "duplicate row"
CONFLICT: Final = "conflicting value"
_CELL: Final = ["row", "hours", "variable"]


def settle_repeats(
    kept: pl.DataFrame, mapping: SourceMapping, layout: Layout, counts: CountsByVariable
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Drop exact repeats and settle conflicts by the layout's rule, in the source's order; both are counted.

    Statics are left alone: the earliest counts. With `conflicts = "mean"` the first row carries the mean, and the
    others are counted.
    """
    static = kept["variable"].is_in(list(mapping.static_sources))
    apart, series = kept.filter(static), kept.filter(~static).with_row_index("order")
    if layout.drop_duplicates:
        once = series.unique([*_CELL, "value"], keep="first", maintain_order=True)
        _count(series, once, DUPLICATE, counts)
        series = once
    cell = series.select(pl.struct(_CELL)).to_series()
    several = cell.is_duplicated()
    conflicts = int(series.filter(several).select(pl.struct(_CELL).n_unique()).item()) if several.any() else 0
    if not conflicts:
        return pl.concat([series.drop("order"), apart]), ()
    note = f"{conflicts} times a stay has several values of one code at one time ({layout.conflicts})"
    if layout.conflicts == "keep":
        return pl.concat([series.drop("order"), apart]), (note,)
    alone, disputed = series.filter(~several), series.filter(several)
    if layout.conflicts == "drop":
        settled = disputed.head(0)
    elif layout.conflicts == "mean":
        mean = disputed.with_columns(pl.col("value").mean().over(_CELL))
        settled = mean.unique(_CELL, keep="first", maintain_order=True)
    else:
        settled = disputed.unique(_CELL, keep=layout.conflicts, maintain_order=True)
    _count(disputed, settled, CONFLICT, counts)
    return pl.concat([pl.concat([alone, settled]).sort("order").drop("order"), apart]), (note,)


def _count(before: pl.DataFrame, after: pl.DataFrame, reason: str, counts: CountsByVariable) -> None:
    gone = before["variable"].value_counts().join(after["variable"].value_counts(), on="variable", how="left")
    for name, had, has in gone.sort("variable").iter_rows():
        if had > (has or 0):
            found = counts.setdefault(name, {})
            found[reason] = found.get(reason, 0) + had - (has or 0)
