"""Decimals that were lost: of a variable that is given in tenths, whole numbers alone."""

from __future__ import annotations

from typing import Final, final

import numpy as np

from pipeline.ingest.cohort.events import OUTSIDE, USED, FlatEvents
from pipeline.ingest.mapping.load import SourceMapping

_FEWEST: Final = 10  # by chance all of so many values in tenths are whole once in 10^10


@final
class Decimals:
    """Counts whole numbers, by site, in one block of stays after the other; `site` `(stay,)` int, of `sites`."""

    def __init__(self, mapping: SourceMapping, site: np.ndarray, sites: int) -> None:
        self._names = [variable.name for variable in mapping.variables]
        self._has = np.array([name in mapping.facts.decimal for name in self._names], dtype=bool)
        self._site = site
        self._counts = np.zeros((2, sites, len(self._names)), np.int64)  # all values, and those that are whole

    def add(self, stays: slice, events: FlatEvents) -> None:
        """Look at the events of further stays."""
        n = len(self._names)
        has = np.append(self._has, np.zeros(len(events.names) - n, dtype=bool))
        rows = np.flatnonzero(has[events.name] & ((events.fate == USED) | (events.fate == OUTSIDE)))
        place = self._site[stays][events.stay[rows]] * n + events.name[rows]
        whole = events.value[rows] == np.round(events.value[rows])
        for counts, some in zip(self._counts, (place, place[whole]), strict=True):
            counts += np.bincount(some, minlength=counts.size).reshape(counts.shape)

    def notes(self) -> tuple[str, ...]:
        """A sentence for each variable whose values are whole numbers, or are in some sites."""
        values, whole = self._counts
        lost = (values >= _FEWEST) & (whole == values)
        notes = []
        for index, name in enumerate(self._names):
            rows, sites = int(whole[lost[:, index], index].sum()), int(lost[:, index].sum())
            if not sites:
                continue
            every = rows == values[:, index].sum()
            where = f"all {rows} values of {name}" if every else f"all {rows} values of {name} in {sites} of the sites"
            notes.append(f"{where} are whole numbers: were their decimals lost? (if not, set its resolution = 1)")
        return tuple(notes)
