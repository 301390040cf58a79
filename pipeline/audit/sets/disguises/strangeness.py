"""How near is too near? Ratios of nearest to second nearest distance, against those that strangers reach.

Near a record the ratio of the two nearest distances falls below r with a chance of about r^d, d dimensions: its
logarithm has an exponential tail (Hill 1975; Levina and Bickel 2005). A set of n samples seen in several views is a
family of n tests in each, so the single chance that matters is far below one in the number of strangers, and only the
tail, fitted to their nearest tenth, tells it. Nothing about distances is assumed: the strangers set the tail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np

from pipeline.audit.multiplicity import p_of_hits
from pipeline.audit.sets.distances import EXACT, Nearest

TAIL_SHARE: Final = 0.1
MIN_TAIL: Final = 5
ISOLATED: Final = (0.5, 0.9)  # quantiles of the distance to the second nearest that part strangers by isolation
MIN_STRANGERS: Final = 50  # of a part
QUANTILE: Final = 0.01
CLOSER: Final = 0.5  # of that quantile: many samples below it are evidence, where one is not
SMALLEST: Final = 1e-9  # ratios below it are zero


@final
@dataclass(frozen=True, eq=False)
class Usual:
    """What strangers reach in a view: ratios, second distances, and whether a distance of zero convicts.

    `crowd`: whether strangers are independent there, so that many samples are more evidence than one. `most`: the
    largest ratio that convicts one sample by itself.
    """

    ratios: np.ndarray
    second: np.ndarray
    exact: bool
    crowd: bool = True
    most: float = 1.0

    @property
    def closer(self) -> float:
        """Half of what the closest hundredth of strangers reaches."""
        return CLOSER * float(np.quantile(self.ratios, QUANTILE))

    def flagged(self, found: Nearest, level: float, n: int) -> np.ndarray:
        """`(sample,)`: closer to one member than strangers get, of n samples at a family-wise level in this view.

        One by one by the tail, half of the level; or all that are as close as `closer`, if these are more than chance
        (Fisher's exact test against the strangers, the other half), as where strangers have twins, too.
        """
        ratios = ratio(found)
        alone = (ratios <= self.most) & (self.chances(ratios, found.second) <= level / 2 / n)
        if self.exact:
            alone |= (found.first < EXACT) & (found.second >= EXACT)
        many, strangers = ratios <= self.closer, int((self.ratios <= self.closer).sum())
        if self.crowd and p_of_hits(int(many.sum()), len(many), strangers + 1, len(self.ratios) + 1) <= level / 2:
            return np.asarray(alone | many)
        return np.asarray(alone)

    def tells(self, first: float, level: float, n: int) -> float:
        """Share of the places where strangers stand in which a sample this far from one member would be flagged."""
        there = Nearest(np.full(len(self.second), first), self.second, np.zeros(len(self.second), np.intp))
        return float(self.flagged(there, level, n).mean())

    def chances(self, ratios: np.ndarray, second: np.ndarray) -> np.ndarray:
        """How often a stranger comes as near, `(sample,)`, among strangers that stand as much alone.

        Who stands alone has few neighbours in few directions: one of them is near by chance more often. Twins stand
        anywhere: how often a stranger is one is told by all of them.
        """
        parts = ISOLATED if len(self.ratios) * (1 - ISOLATED[-1]) >= MIN_STRANGERS else ()
        edges = np.quantile(self.second, parts) if parts else np.zeros(0)
        own, theirs = (np.searchsorted(edges, of, side="left") for of in (second, self.second))
        found = np.ones(len(ratios))
        for part in range(len(edges) + 1):
            found[own == part] = _chances(self.ratios[theirs == part], ratios[own == part])
        twins = int((self.ratios <= SMALLEST).sum())
        if twins:
            found[ratios <= SMALLEST] = (twins + 1) / (len(self.ratios) + 1)
        return found


def _chances(null: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """Counted among strangers; beyond their nearest tenth by the tail, whose index is taken at its upper bound."""
    usual_, found = np.sort(_log(null)), _log(ratios)
    tail = min(max(MIN_TAIL, round(TAIL_SHARE * len(usual_))), len(usual_) - 1)
    edge = usual_[-tail - 1]
    mean_excess = float((usual_[-tail:] - edge).mean()) * (1 + 2 / np.sqrt(tail))
    counted = (1 + len(usual_) - np.searchsorted(usual_, found, side="left")) / (len(usual_) + 1)
    beyond = (tail + 1) / (len(usual_) + 1) * np.exp(-np.maximum(found - edge, 0) / max(mean_excess, 1e-6))
    return np.asarray(np.where(found > edge, beyond, counted))


def usual(found: Nearest, crowd: bool = True, most: float = 1.0) -> Usual:
    """Of strangers; a distance of zero convicts (`exact`) unless a stranger has it."""
    exact = not bool(((found.first < EXACT) & (found.second >= EXACT)).any())
    return Usual(ratio(found), found.second, exact, crowd, most)


def ratio(found: Nearest) -> np.ndarray:
    """First over second nearest distance; 1 where both are zero (twins among the records identify nobody)."""
    first = np.where(found.first < EXACT, 0.0, found.first)
    return np.asarray(np.divide(first, found.second, out=np.ones_like(first), where=found.second >= EXACT))


def _log(ratios: np.ndarray) -> np.ndarray:
    return np.asarray(-np.log(np.maximum(ratios, SMALLEST)))
