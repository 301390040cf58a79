"""Distinct values of a variable, how often each occurs, and whether they lie in two heaps where one would be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np

from pipeline.core.types import Variable
from pipeline.ingest.mapping.units import Line

_QUANTILES: Final = 200
_EIGHTHS: Final = 8  # of the distance of two heaps in logarithms; two to each side of its middle are a heap's
_THINNER: Final = 3  # times fewer values lie in the two eighths halfway than in the second heap
_FEWEST: Final = 10
_LEAST_SHARE: Final = 0.005
_LOST_MARK: Final = 10.0
_MOST_WHOLE, _LEAST_WHOLE = 0.5, 0.9


@final
@dataclass(frozen=True, eq=False, repr=False)
class Values:
    """Distinct values in order and how often each occurs: what is held grows with the values there are, not the rows.

    A measurement has few: it is rounded before anybody stores it.
    """

    distinct: np.ndarray  # (value,) float64
    counts: np.ndarray  # (value,) int64

    def __len__(self) -> int:
        return int(self.counts.sum())

    def __add__(self, other: Values) -> Values:
        values, place = np.unique(np.concatenate([self.distinct, other.distinct]), return_inverse=True)
        counts = np.zeros(len(values), np.int64)
        np.add.at(counts, place, np.concatenate([self.counts, other.counts]))
        return Values(values, counts)

    def within(self, line: Line, variable: Variable) -> int:
        """How many would be ordinary, in the variable's clinical range, once moved by `line`."""
        return int(self.counts[moved_within(self.distinct, line, variable)].sum())

    def middle(self) -> np.ndarray:
        """The median, `(1,)`."""
        upto = np.cumsum(self.counts)
        halves = self.distinct[np.searchsorted(upto, [(upto[-1] + 1) // 2, upto[-1] // 2 + 1])]
        return np.asarray(np.mean(halves, keepdims=True))

    def at(self, here: np.ndarray) -> Values:
        """Those of `(value,)` bool."""
        return Values(self.distinct[here], self.counts[here])

    def whole(self) -> float:
        """The share of whole numbers."""
        return float(self.counts[self.distinct == np.round(self.distinct)].sum() / max(len(self), 1))


def heap_notes(variable: Variable, lines: list[tuple[str, Line]], values: Values) -> tuple[str, ...]:
    """The sentence on plausible values that lie where those of another unit would, or those that lost a decimal mark.

    `lines` lead from other units to the variable's own.
    """
    found = _two_heaps(values, _LOST_MARK)
    if found is not None:
        rows, low, high = found
        several = len(high.distinct) > 2  # one number alone is a code
        if several and low.whole() < _MOST_WHOLE and high.whole() > _LEAST_WHOLE:
            return (f"{rows} values of {variable.name} lie at ten times the others: was a decimal mark lost?",)
    for unit, (factor, offset) in lines:
        found = _two_heaps(values, max(factor, 1 / factor)) if offset == 0 else None
        if found is None:
            continue
        rows, low, high = found
        if moved_within((high if factor > 1 else low).middle(), (1.0, 0.0), variable).all():
            return (
                f"{rows} of {len(values)} values of {variable.name} lie apart from the others, where those in "
                f"{unit} would: check the units of its codes, site by site",
            )
    return ()


def _two_heaps(values: Values, ratio: float) -> tuple[int, Values, Values] | None:
    """How many lie in a second heap, the heap of the lower and that of the higher values; `ratio` tells them apart.

    None where there is no second heap, or where values halfway are not far fewer, as in the tail of a single one.
    """
    values = values.at(values.distinct > 0)
    if len(values) < 2 * _FEWEST:
        return None
    logs, upto = np.log(values.distinct), np.cumsum(values.counts)
    spread = logs[np.searchsorted(upto, np.linspace(1, upto[-1], _QUANTILES + 1))]
    quarter, eighth = _QUANTILES // 4, np.log(ratio) / _EIGHTHS
    middle = spread[np.argmin(spread[quarter:] - spread[:-quarter]) + quarter // 2]  # of the densest quarter
    for way in (-_EIGHTHS * eighth, _EIGHTHS * eighth):
        first, second = (np.abs(logs - centre) <= 2 * eighth for centre in (middle, middle + way))
        halfway = values.counts[np.abs(logs - middle - way / 2) <= eighth].sum()
        rows = int(values.counts[second].sum())
        if rows >= max(_FEWEST, _LEAST_SHARE * len(values)) and rows > _THINNER * halfway:
            low, high = (second, first) if way < 0 else (first, second)
            return rows, values.at(low), values.at(high)
    return None


def moved_within(values: np.ndarray, line: Line, variable: Variable) -> np.ndarray:
    """`(value,)` bool: in the variable's clinical range, once moved by `line`."""
    moved = values * line[0] + line[1]
    inside: np.ndarray = (moved >= variable.scale_low) & (moved <= variable.scale_high)
    return inside
