"""Variables in each other's place: columns or codes that were swapped, in a whole source or in some stays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Final, final

import numpy as np

from pipeline.core.types import Variable
from pipeline.ingest.mapping.load import SourceMapping

_BLOCK: Final = 256  # stays at a time, so that they stay in the cache
_FEWEST: Final = 10
_SHARED: Final = 2  # cells of a stay that are compared, at least
_CLOSER: Final = 2  # times closer lie two medians to each other's normal values than to their own
_APART: Final = 0.1  # of the clinical range: two normal values that lie nearer than that cannot be told apart


@final
class Orders:
    """Compares variables of which one does not exceed the other, in one block of stays after the other."""

    def __init__(self, mapping: SourceMapping) -> None:
        names = [variable.name for variable in mapping.variables]
        looked = [name for name in names if any(name in pair for pair in mapping.facts.below)]
        self._columns = [names.index(name) for name in looked]
        self._pairs = [(low, high, looked.index(low), looked.index(high)) for low, high in mapping.facts.below]
        self._counts = np.zeros((len(self._pairs), 3), np.int64)  # cells above, cells and stays of these

    def add(self, values: np.ndarray) -> None:
        """Look at further stays, `(stay, step, variable)`."""
        for start in range(0, len(values) if self._pairs else 0, _BLOCK):
            part = values[start : start + _BLOCK, :, self._columns]
            for counts, (_, _, low, high) in zip(self._counts, self._pairs, strict=True):
                apart = part[:, :, high] - part[:, :, low]
                above, shared = (apart < 0).sum(axis=1), np.isfinite(apart).sum(axis=1)
                odd = (shared >= _SHARED) & (2 * above > shared)
                counts += (above[odd].sum(), shared[odd].sum(), odd.sum())

    def notes(self) -> tuple[str, ...]:
        """A sentence for each pair that is the wrong way round in most cells of some stays."""
        return tuple(
            f"{above} of {shared} steps of {stays} stays have a {low} above the {high}: were the two swapped there?"
            for (above, shared, stays), (low, high, *_) in zip(self._counts.tolist(), self._pairs, strict=True)
            if above >= _FEWEST
        )


def swap_notes(variables: Sequence[Variable], medians: Sequence[float]) -> tuple[str, ...]:
    """Pairs of variables whose medians (NaN = too few values) lie at each other's normal values."""
    notes = []
    known = [(variable, median) for variable, median in zip(variables, medians, strict=True) if np.isfinite(median)]
    for (one, its), (other, others) in combinations(known, 2):
        apart = min(_away(one.normal, other), _away(other.normal, one)) > _APART
        own, swapped = (_away(its, one), _away(others, other)), (_away(its, other), _away(others, one))
        if apart and own[0] > swapped[0] and own[1] > swapped[1] and sum(own) > _CLOSER * sum(swapped):
            notes.append(f"the middles of {one.name} and {other.name} lie where each other's would: were they swapped?")
    return tuple(notes)


def _away(value: float, variable: Variable) -> float:
    """How far a value lies from the normal one, in clinical ranges."""
    return abs(value - variable.normal) / (variable.scale_high - variable.scale_low)
