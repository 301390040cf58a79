"""To which stay an event belongs: found by the stay's id, or by the subject's and the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import polars as pl

from pipeline.ingest.engine.coded import Coded
from pipeline.ingest.engine.stay_table import END, EXCLUDED, KEY
from pipeline.ingest.splits import START
from pipeline.ingest.withdrawn import WITHDRAWN

_NEVER = np.iinfo(np.int64).max
FOUND, UNKNOWN, BETWEEN = 0, 1, 2


@final
@dataclass(frozen=True, eq=False, repr=False)
class StayKeys:
    """`start` and `end` in microseconds, by row of the table of stays (no start: 0, no end: never)."""

    start: np.ndarray
    end: np.ndarray
    excluded: np.ndarray
    withdrawn: np.ndarray
    stay_ids: pl.Series  # sorted
    stay_rows: np.ndarray  # (sorted stay,)
    subjects: pl.Series  # sorted, each once
    first: np.ndarray  # (subject + 1,) where the subject's stays begin in `begun`
    begun: np.ndarray  # rows of the stays that have a start: by subject, then start, then row

    @classmethod
    def of(cls, stays: pl.DataFrame) -> StayKeys:
        """From the frame of a `StayTable`."""
        frame = stays.select("stay_id", KEY, START, END, EXCLUDED).with_row_index("row")
        by_id = frame.select("stay_id", "row").sort("stay_id")
        subjects = frame[KEY].unique().sort()
        begun = frame.filter(pl.col(START).is_not_null()).sort(KEY, START, "row")
        return cls(
            start=frame[START].fill_null(0).to_numpy(),
            end=frame[END].fill_null(_NEVER).to_numpy(),
            excluded=frame[EXCLUDED].is_not_null().to_numpy(),
            withdrawn=(frame[EXCLUDED] == WITHDRAWN).fill_null(False).to_numpy(),
            stay_ids=by_id["stay_id"],
            stay_rows=by_id["row"].to_numpy().astype(np.int32),
            subjects=subjects,
            first=np.append(begun[KEY].search_sorted(subjects).to_numpy(), begun.height).astype(np.int64),
            begun=begun["row"].to_numpy().astype(np.int32),
        )

    def find(
        self, texts: pl.Series, codes: np.ndarray, moment: np.ndarray | None, *, by_subject: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """int32 `(row,)` row of the table of stays, -1 = none, and why: `FOUND`, `UNKNOWN` or `BETWEEN`.

        `codes` index `texts`. By subject: the last of the subject's stays that began at or before `moment`, unless it
        had ended.
        """
        if not by_subject:
            at = _positions(self.stay_ids, texts)
            stay = Coded(codes, texts).look_up(np.where(at < 0, -1, self.stay_rows[at]).astype(np.int32), -1)
            return stay, np.where(stay < 0, UNKNOWN, FOUND)
        if moment is None:  # a time that counts from the start of a stay cannot tell which
            moment = np.full(len(codes), np.iinfo(np.int64).min)
        at = _positions(self.subjects, texts)
        coded = Coded(codes, texts)
        low, high = (coded.look_up(np.where(at < 0, 0, self.first[at + shift]), 0) for shift in (0, 1))
        nth = self._last_begun(low, high, moment)
        stay = np.where(nth < low, -1, self.begun[np.maximum(nth, 0)] if len(self.begun) else -1).astype(np.int32)
        stay[(stay >= 0) & (moment > self.end[stay])] = -1
        why = np.where(stay < 0, BETWEEN, FOUND)
        if (at < 0).any():
            why[coded.look_up(at < 0, True)] = UNKNOWN
        return stay, why

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


def _positions(ordered: pl.Series, texts: pl.Series) -> np.ndarray:
    """Where each text lies in `ordered`; -1 = it does not."""
    if not len(ordered):
        return np.full(len(texts), -1, dtype=np.int64)
    filled = texts.fill_null("")
    at = np.minimum(ordered.search_sorted(filled).to_numpy().astype(np.int64), len(ordered) - 1)
    same = (ordered.gather(at) == filled).to_numpy()
    return np.where(same & texts.is_not_null().to_numpy(), at, -1)
