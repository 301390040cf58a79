"""All that makes one doubt the values of a cohort, looked for in one block of stays after the other."""

from __future__ import annotations

from typing import Final, final

import numpy as np
import polars as pl

from pipeline.core.types import Cohort
from pipeline.ingest.cohort.doubts.decimals import Decimals
from pipeline.ingest.cohort.doubts.labels import label_notes
from pipeline.ingest.cohort.doubts.persons import person_notes
from pipeline.ingest.cohort.doubts.slips import Slips
from pipeline.ingest.cohort.doubts.swaps import Orders, swap_notes
from pipeline.ingest.cohort.events import FlatEvents
from pipeline.ingest.mapping.load import SourceMapping
from pipeline.ingest.splits import START

_MICROSECONDS_PER_HOUR: Final = 3.6e9


@final
class Doubts:
    """Looks at the events and the grid of a source whose table of stays is `stays`."""

    def __init__(self, mapping: SourceMapping, stays: pl.DataFrame) -> None:
        self._mapping, self._stays = mapping, stays
        site = np.zeros(stays.height, np.int64)
        if "site" in stays.columns:
            site = stays["site"].cast(pl.String).fill_null("").rank("dense").to_numpy().astype(np.int64) - 1
        self._slips, self._orders = Slips(mapping), Orders(mapping)
        self._decimals = Decimals(mapping, site, int(site.max(initial=0)) + 1)

    def add(self, stays: slice, events: FlatEvents, values: np.ndarray) -> None:
        """Look at further stays: their events, and their grid `(stay, step, variable)`."""
        self._slips.add(events)
        self._decimals.add(stays, events)
        self._orders.add(values)

    def notes(self, cohort: Cohort) -> tuple[str, ...]:
        """The sentences, those on units first; `cohort` is what was made of all that was looked at."""
        start = np.full(self._stays.height, np.nan)
        if START in self._stays.columns:
            start = self._stays[START].cast(pl.Float64).fill_null(np.nan).to_numpy() / _MICROSECONDS_PER_HOUR
        return (
            *self._slips.notes(),
            *self._decimals.notes(),
            *self._orders.notes(),
            *swap_notes(self._mapping.variables, self._slips.medians()),
            *person_notes(cohort, self._mapping, start),
            *label_notes(cohort),
        )
