"""Single values in another unit: outside the clinical range, and once moved beside the other values of their stay."""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.core.types import Variable
from pipeline.ingest.cohort.doubts.heaps import moved_within
from pipeline.ingest.mapping.units import Line

_BESIDE: Final = 1.1  # times the median of the stay, or a part of it: so near lies a value that was moved
_FACTOR: Final = 2.0  # of two units that can be told apart
_OF_A_STAY: Final = 3  # values, at least
FEWEST: Final = 3
LEAST_SHARE: Final = 3e-4  # of all values: in the embedded stays at most 1 of 20,000 lies there by chance


def in_other_unit(stay: np.ndarray, value: np.ndarray, line: Line, variable: Variable) -> int:
    """How many of a variable's plausible values, `(event,)` with their stays, lie where `line` from another unit leads.

    Such a value lies outside the clinical range, and within a tenth of the median of its stay once it is moved.
    """
    factor, offset = line
    if offset != 0 or max(factor, 1 / factor) < _FACTOR:
        return 0
    odd = moved_within(value, line, variable) & ~moved_within(value, (1.0, 0.0), variable)
    if not odd.any():
        return 0
    near = np.zeros(int(stay.max()) + 1, dtype=bool)
    near[stay[odd]] = True
    rows = np.flatnonzero(near[stay])
    rows = rows[np.lexsort((value[rows], stay[rows]))]
    stays, first, counts = np.unique(stay[rows], return_index=True, return_counts=True)
    middle = value[rows[first + counts // 2]]
    place = np.searchsorted(stays, stay[odd])
    apart = np.abs(np.log(value[odd] * factor / middle[place]))
    return int(((counts[place] >= _OF_A_STAY) & (apart <= np.log(_BESIDE))).sum())
