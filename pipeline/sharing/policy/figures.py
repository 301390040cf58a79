"""Which figures may decide. The gate takes `DecidingFigure`s alone, and one can be made of these statistics alone.

Distance to the closest record, mutual information and the like can be *shown*, whatever flag an attack sets: a
published closest-record score gives a set with a verbatim copy of its rarest stay full marks, and estimates of mutual
information saturate far below the truth. They have no member in `DecidingStatistic`, so that no limit, no policy and no
attack can make them open or shut the gate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:  # a policy is read without numpy
    from pipeline.core.types import AttackResult


@final
class DecidingStatistic(StrEnum):
    """Statistics whose upper bound says what an attacker gains. Larger = more leakage, for every one."""

    R2 = "r2"  # share of the targets' variation that is rebuilt
    AUROC = "auroc"  # of members against others, or of a label against chance
    TPR_AT_1PCT_FPR = "tpr_at_1pct_fpr"
    TPR_AT_01PCT_FPR = "tpr_at_01pct_fpr"  # 0.1 %
    TPR_AT_SMALLEST_FPR = "tpr_at_smallest_fpr"  # the smallest rate that n supports
    COUNT = "count"  # of samples, identifiers or people
    EXCESS_RISK = "excess_risk"  # of guesses on members over guesses on others
    AUROC_ADVANTAGE = "auroc_advantage"  # what an artefact adds to what the population tells of an attribute
    AUROC_EXCESS = "auroc_excess"
    LINKAGE_RATE = "linkage_rate"  # share of targets whose record is picked out
    TELLING_VIEWS = "telling_views"  # in which the set stands nearer to its members than chance allows
    EPSILON_ABOVE_CLAIM = "epsilon_above_claim"  # how far a lower bound contradicts a guarantee


@final
@dataclass(frozen=True)
class DecidingFigure:
    """An attack's figure that may decide; `deciding` alone makes one worth having."""

    result: AttackResult
    statistic: DecidingStatistic

    @property
    def is_number(self) -> bool:
        """Rate and interval are finite, and the rate lies inside."""
        result = self.result
        finite = all(math.isfinite(value) for value in (result.rate, result.low, result.high))
        return finite and result.low <= result.rate <= result.high


def deciding(result: AttackResult) -> DecidingFigure | None:
    """The figure as one that may decide; None when the attack only shows it, or when its statistic never decides."""
    if not result.gates or not may_decide(result.statistic):
        return None
    return DecidingFigure(result, DecidingStatistic(result.statistic))


def may_decide(statistic: str) -> bool:
    """True for the statistics that have a member in `DecidingStatistic`."""
    return statistic in DecidingStatistic.__members__.values()


def published_bound(statistic: str, high: float, rounding: float, small_cell: int) -> float:
    """An upper bound that says little about single people: rounded up to a multiple of `rounding`, never down.

    Counts of people between 1 and `small_cell` become `small_cell`; larger ones are rounded up to one digit.
    """
    if high <= 0:
        return 0.0
    if statistic == "count":
        if high <= small_cell:
            return float(small_cell)
        unit = 10.0 ** math.floor(math.log10(high))
        return math.ceil(high / unit) * unit
    return round(math.ceil(high / rounding - 1e-9) * rounding, 6)
