"""To which stay an event belongs: found by the stay's id, or by the subject's and the time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, final

import numpy as np
import polars as pl

from pipeline.ingest.engine.coded import Coded
from pipeline.ingest.engine.instants import MICROSECONDS_PER_HOUR
from pipeline.ingest.engine.stay_table import END, EXCLUDED, KEY
from pipeline.ingest.splits import START
from pipeline.ingest.withdrawn import WITHDRAWN

_NEVER = np.iinfo(np.int64).max
_MOST_HOURS: Final = 1e6  # longer than any stay: hours without an end are added up in microseconds, too

FOUND, UNKNOWN, BETWEEN = 0, 1, 2


@final
@dataclass(frozen=True, eq=False, repr=False)
class StayKeys:
    """`start` and `end` in microseconds, by row of the table of stays (no start: 0, no end: never)."""

    start: np.ndarray
    end: np.ndarray
    excluded: np.ndarray
    withdrawn: np.ndarray
    started: np.ndarray  # whether the start is known
    stay_ids: pl.Series  # sorted
    stay_rows: np.ndarray  # (sorted stay,)
    subjects: pl.Series  # sorted, each once
    first: np.ndarray  # (subject + 1,) where the subject's stays begin in `begun`
    begun: np.ndarray  # rows of the stays that have a start: by subject, then start, then row
    reach: np.ndarray  # (begun,) where the window of each ends
    furthest: np.ndarray  # (begun,) the furthest that the windows of the subject reach up to here

    @classmethod
    def of(cls, stays: pl.DataFrame, until_hours: float) -> StayKeys:
        """From the frame of a `StayTable`; a window reaches no further than `until_hours` from its stay's start."""
        frame = stays.select("stay_id", KEY, START, END, EXCLUDED).with_row_index("row")
        by_id = frame.select("stay_id", "row").sort("stay_id")
        subjects = frame[KEY].unique().sort()
        until = round(min(until_hours, _MOST_HOURS) * MICROSECONDS_PER_HOUR) + 1
        begun = frame.filter(pl.col(START).is_not_null()).sort(KEY, START, "row")
        begun = begun.with_columns(reach=pl.min_horizontal(pl.col(END).fill_null(_NEVER), pl.col(START) + until))
        return cls(
            start=frame[START].fill_null(0).to_numpy(),
            end=frame[END].fill_null(_NEVER).to_numpy(),
            excluded=frame[EXCLUDED].is_not_null().to_numpy(),
            withdrawn=(frame[EXCLUDED] == WITHDRAWN).fill_null(False).to_numpy(),
            started=frame[START].is_not_null().to_numpy(),
            stay_ids=by_id["stay_id"],
            stay_rows=by_id["row"].to_numpy().astype(np.int32),
            subjects=subjects,
            first=np.append(begun[KEY].search_sorted(subjects).to_numpy(), begun.height).astype(np.int64),
            begun=begun["row"].to_numpy().astype(np.int32),
            reach=begun["reach"].to_numpy(),
            furthest=begun.select(pl.col("reach").cum_max().over(KEY)).to_series().to_numpy(),
        )

    @cached_property
    def length_hours(self) -> np.ndarray:
        """From start to end, by row of the table of stays; infinite where one of them is not known."""
        hours: np.ndarray = np.where(
            (self.end == _NEVER) | ~self.started, np.inf, (self.end - self.start) / MICROSECONDS_PER_HOUR
        )
        return hours

    @cached_property
    def any_ends(self) -> bool:
        """Whether the end of any stay is known."""
        return bool(np.isfinite(self.length_hours).any())

    def find(self, texts: pl.Series, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """By the stay's id, int32 `(row,)` row of the table of stays, -1 = none, and why: `FOUND` or `UNKNOWN`.

        `codes` index `texts`.
        """
        at = positions(self.stay_ids, texts)
        stay = Coded(codes, texts).look_up(np.where(at < 0, -1, self.stay_rows[at]).astype(np.int32), -1)
        return stay, np.where(stay < 0, UNKNOWN, FOUND)

    def windows(
        self, texts: pl.Series, codes: np.ndarray, moment: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """By the subject's id and time: every stay in whose window a row lies, as (row, stay, why) of each pair.

        A window begins with its stay and reaches to the stay's end, and `until_hours` at the most; the end itself lies
        outside. A row in no window goes to the stay that began last, if that has not ended (it lies beyond
        what is asked for), and otherwise to none: why = `BETWEEN`, or `UNKNOWN` where the subject has no stay at all.
        """
        if moment is None:  # a time that counts from the start of a stay cannot tell which
            moment = np.full(len(codes), np.iinfo(np.int64).min)
        at = positions(self.subjects, texts)
        coded = Coded(codes, texts)
        low, high = (coded.look_up(np.where(at < 0, 0, self.first[at + shift]), 0) for shift in (0, 1))
        nth = self._last_begun(low, high, moment)
        pairs = list[tuple[np.ndarray, np.ndarray]]()
        open_ = np.flatnonzero(nth >= low)
        place = nth[open_]
        while len(open_):  # from the stay that began last to those before it, as long as one of them may reach so far
            covered = self.reach[place] > moment[open_]
            pairs.append((open_[covered], self.begun[place[covered]]))
            goes_on = (place > low[open_]) & (self.furthest[place - 1] > moment[open_])
            open_, place = open_[goes_on], place[goes_on] - 1
        row = np.concatenate([np.zeros(0, np.int64), *(rows for rows, _ in pairs)])
        stay = np.concatenate([np.zeros(0, np.int32), *(stays for _, stays in pairs)])
        alone = np.ones(len(codes), dtype=bool)
        alone[row] = False
        none = np.flatnonzero(alone)
        last = self.begun[np.maximum(nth[none], 0)] if len(self.begun) else np.zeros(len(none), np.int32)
        beyond = (nth[none] >= low[none]) & (self.end[last] > moment[none]) if len(none) else np.zeros(0, bool)
        row, stay = np.append(row, none), np.append(stay, np.where(beyond, last, -1)).astype(np.int32)
        if len(row) > len(codes):
            order = np.lexsort((stay, row))
            row, stay = row[order], stay[order]
        else:  # each row once
            ordered = np.empty(len(codes), np.int32)
            ordered[row] = stay
            row, stay = np.arange(len(codes)), ordered
        why = np.where(stay < 0, BETWEEN, FOUND)
        if (at < 0).any():
            why[coded.look_up(at < 0, True)[row]] = UNKNOWN
        return row, stay, why

    def _last_begun(self, low: np.ndarray, high: np.ndarray, moment: np.ndarray) -> np.ndarray:
        """For each row the last of `begun[low:high]` that began at or before its moment; `low - 1` = none."""
        starts = self.start[self.begun] if len(self.begun) else np.zeros(1, np.int64)
        if not len(high) or (high - low).max() <= 1:
            there = (high > low) & (starts[np.minimum(low, len(starts) - 1)] <= moment)
            return np.where(there, low, low - 1)
        left, right = low.copy(), high.copy()  # bisection, all rows at once
        while True:
            open_ = left < right
            if not open_.any():
                return left - 1
            middle = (left + right) // 2
            begun = open_ & (starts[np.minimum(middle, len(starts) - 1)] <= moment)
            left = np.where(begun, middle + 1, left)
            right = np.where(open_ & ~begun, middle, right)


def positions(ordered: pl.Series, texts: pl.Series) -> np.ndarray:
    """Where each text lies in `ordered`; -1 = it does not."""
    if not len(ordered):
        return np.full(len(texts), -1, dtype=np.int64)
    filled = texts.fill_null("")
    at = np.minimum(ordered.search_sorted(filled).to_numpy().astype(np.int64), len(ordered) - 1)
    same = (ordered.gather(at) == filled).to_numpy()
    return np.where(same & texts.is_not_null().to_numpy(), at, -1)
