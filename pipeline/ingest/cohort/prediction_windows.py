"""A stay's prediction times as windows: to the cohort each is a stay, whose input ends where the prediction is made.

The events of a block of stays are handed out to every window that they lie in, once for each; a window's hours count
from the begin of its input. Windows of one person keep the person's id, so that splits and weights are by person.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np
import polars as pl

from pipeline.core.errors import DataError
from pipeline.ingest.cohort.events import IMPLAUSIBLE, UNKNOWN, flatten, own_names
from pipeline.ingest.cohort.stay_blocks import stay_blocks
from pipeline.ingest.mapping.label_source import OPS
from pipeline.ingest.mapping.load import SourceMapping
from pipeline.ingest.mapping.prediction import PredictionTimes
from pipeline.ingest.source_tables import KNOWN, Counts, SourceTables
from pipeline.ingest.windows import FROM_START, LENGTH, TIME_TOLERANCE_HOURS, TO_END, before

_BLOCK_STAYS: Final = 256  # each event is there once for every window that it lies in
_MOST_TIMES: Final = 10_000


@final
@dataclass(frozen=True, eq=False, repr=False)
class Windows:
    """`stays`: a row per window, in the order of the stays, then of time; `edges` `(stay + 1,)`: where each's begin."""

    stays: pl.DataFrame
    edges: np.ndarray
    times: PredictionTimes
    input_hours: float
    ahead_hours: float  # from the prediction time to the end of the last label window
    notes: tuple[str, ...]

    @property
    def of(self) -> np.ndarray:
        """`(window,)`: the row of its stay."""
        return np.repeat(np.arange(len(self.edges) - 1), np.diff(self.edges))


def prediction_windows(
    tables: SourceTables, mapping: SourceMapping, input_hours: float, ahead_hours: float
) -> Windows | None:
    """The windows of all stays; None where the mapping asks for one prediction a stay.

    Raises:
        DataError: no stay has a prediction time, or one has more than ten thousand.
    """
    times = mapping.prediction_times
    if times is None:
        return None
    last, positive = _last_and_positive(tables, mapping, times)
    length = _lengths(tables)
    unended = np.isnan(length)
    notes = list[str]()
    if times.until == "last event":
        count = _times_to(last, times, at_it=True)
    else:
        count = np.where(unended, _times_to(last, times, at_it=True), _times_to(length, times, at_it=False))
        if unended.any():
            notes.append(f"{int(unended.sum())} stays have no end: predictions are made until their last event")
    count = np.minimum(count, _times_to(np.full(len(count), times.at_most_hours), times, at_it=True))
    kept = np.minimum(count, _times_to(positive, times, at_it=not mapping.closed_window))
    if (kept < count).any():
        notes.append(f"{int((count - kept).sum())} prediction times are left out by not_yet: the event came before")
    if kept.max(initial=0) > _MOST_TIMES:
        raise DataError(
            f"{tables.source}: a stay has {int(kept.max())} prediction times; is its last event one? The key at_most "
            "of prediction_times bounds them"
        )
    if not kept.any():
        raise DataError(f"{tables.source}: no stay has a prediction time; the first is at {times.first_hours:g} hours")
    notes.append(f"{int(kept.sum())} predictions are made in {int((kept > 0).sum())} of {len(kept)} stays")
    edges = np.append(0, np.cumsum(kept)).astype(np.int64)
    return Windows(_frame(tables, edges, times, length), edges, times, input_hours, ahead_hours, tuple(notes))


def window_blocks(
    tables: SourceTables, mapping: SourceMapping, windows: Windows
) -> Iterator[tuple[slice, SourceTables, int, Counts]]:
    """As `stay_blocks` of the windows; with it how many rows are there again, and those that no window has, by name."""
    first = 0
    for _, outer in stay_blocks(tables):
        for stays, part in stay_blocks(outer, _BLOCK_STAYS):
            begin, end = first + stays.start, first + stays.stop
            edges = windows.edges[begin : end + 1]
            rows, nth, hours = _handed_out(part, mapping, windows, np.diff(edges))
            own = windows.stays.slice(edges[0], edges[-1] - edges[0])
            stay = _codes(part)[rows]
            window = pl.Series("stay_id", (edges[stay] - edges[0] + nth).astype(np.uint32))
            events = part.events[rows].drop("stay_id").with_columns(hours=pl.Series(hours))
            if KNOWN in events.columns:
                moved = hours - part.events["hours"].to_numpy()[rows]
                events = events.with_columns(pl.col(KNOWN) + pl.Series(moved))
            events = events.insert_column(0, window.cat.to(pl.Enum(own["stay_id"])))
            met = np.zeros(part.events.height, dtype=bool)
            met[rows] = True
            lost = part.events["variable"].filter(pl.Series(~met)).cast(pl.String).value_counts().sort("variable")
            whole = slice(int(edges[0]), int(edges[-1]))
            made = replace(part, events=events, stays=own, rows_read=events.height)
            yield whole, made, len(rows) - int(met.sum()), dict(lost.iter_rows())
        first += outer.stays.height


def _handed_out(
    part: SourceTables, mapping: SourceMapping, windows: Windows, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each event in each window that it lies in: its row, which of the stay's windows, and the window's hours.

    A static is known in every window that ends after it.
    """
    times, at = windows.times, part.events["hours"].to_numpy()
    is_static = part.events["variable"].is_in(list(mapping.static_sources)).to_numpy()
    stay_count = count[_codes(part)]
    low = np.floor((at - windows.ahead_hours * ~is_static - times.first_hours) / times.every_hours) - 1
    high = np.ceil((at + windows.input_hours - times.first_hours) / times.every_hours) + 1
    low = np.clip(low, 0, stay_count).astype(np.int64)
    high = np.where(is_static, stay_count, np.clip(high, 0, stay_count)).astype(np.int64)
    n = np.maximum(high - low, 0)
    rows = np.repeat(np.arange(len(at)), n)
    nth = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n) + low[rows]
    hours = at[rows] - (times.first_hours + nth * times.every_hours - windows.input_hours)
    hours[np.abs(hours) < TIME_TOLERANCE_HOURS] = 0.0
    static, closed = is_static[rows], mapping.closed_window
    inside = np.where(
        static,
        before(hours, windows.input_hours, closed=closed),
        (hours >= 0) & before(hours, windows.input_hours + windows.ahead_hours, closed=closed),
    )
    return rows[inside], nth[inside], hours[inside]


def _codes(part: SourceTables) -> np.ndarray:
    stay = part.events["stay_id"]
    kind = pl.Enum(part.stays["stay_id"])
    codes: np.ndarray = (stay if stay.dtype == kind else stay.cast(pl.String).cast(kind)).to_physical().to_numpy()
    return codes


def _last_and_positive(
    tables: SourceTables, mapping: SourceMapping, times: PredictionTimes
) -> tuple[np.ndarray, np.ndarray]:
    """Of each stay the hour of the last usable value of a series, and of the first event after which none is asked."""
    last = np.full(tables.stays.height, -np.inf)
    positive = np.full(tables.stays.height, np.inf)
    names = own_names(mapping)
    for stays, part in stay_blocks(tables):
        events = flatten(part, mapping, np.zeros(part.events.height, np.int32))
        good = (events.fate != IMPLAUSIBLE) & (events.fate != UNKNOWN)
        series = good & (events.name < len(mapping.variables))
        np.maximum.at(last[stays], events.stay[series], events.hours[series])
        for rule in times.not_yet:
            here = good & np.isin(events.name, [names.index(name) for name in rule.variables])
            here &= OPS[rule.op](events.value, rule.threshold)
            np.minimum.at(positive[stays], events.stay[here], events.hours[here])
    return last, positive


def _lengths(tables: SourceTables) -> np.ndarray:
    """Hours from start to end of each stay, NaN where one of them is not known."""
    if LENGTH not in tables.stays.columns:
        return np.full(tables.stays.height, np.nan)
    return tables.stays[LENGTH].fill_null(float("nan")).to_numpy()


def _times_to(hours: np.ndarray, times: PredictionTimes, *, at_it: bool) -> np.ndarray:
    """How many prediction times come before the hours, or with `at_it` at them, too."""
    steps = (hours - times.first_hours) / times.every_hours
    tolerance = TIME_TOLERANCE_HOURS / times.every_hours
    found = np.floor(steps + tolerance) + 1 if at_it else np.ceil(steps - tolerance)
    most = float(np.iinfo(np.int32).max)
    counted: np.ndarray = np.nan_to_num(np.clip(found, 0, most), nan=0.0, posinf=most).astype(np.int64)
    return counted


def _frame(tables: SourceTables, edges: np.ndarray, times: PredictionTimes, length: np.ndarray) -> pl.DataFrame:
    of = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    at = times.first_hours + (np.arange(len(of)) - edges[of]) * times.every_hours
    frame = tables.stays.drop(LENGTH, strict=False)[of]
    own = {FROM_START: pl.Series(at), TO_END: pl.Series(length[of] - at).fill_nan(None)}
    names = pl.Series([f"@{round(hours, 4):.10g}h" for hours in at.tolist()], dtype=pl.String)
    return frame.with_columns(
        (frame["stay_id"].cast(pl.String) + names).alias("stay_id"),
        *(column.alias(name) for name, column in own.items() if name not in frame.columns),
    )
