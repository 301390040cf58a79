"""Many figures, one decision: how often an artefact that leaks nothing is said to leak.

Two statements, two rules (docs/adr says why):

- *It may leave* needs every figure's upper bound within its limit. A leak in any one figure must be missed for a wrong
  pass, so no correction is due: an intersection-union test has the level of its single tests (Berger 1982).
- *It leaks* is said of a figure whose p-value, adjusted by Holm (1979) over all deciding figures of the release, is at
  most 5 %: an artefact that leaks nothing is accused in at most 5 % of audits, however the figures hang together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from scipy import stats

from pipeline.core.errors import DataError
from pipeline.core.types import AttackResult

LEVEL: Final = 0.05
WITHOUT_LEAK: Final[Mapping[str, float]] = {
    "auroc": 0.5,
    "r2": 0.0,
    "r2_moving": 0.0,
    "excess_risk": 0.0,
    "auroc_advantage": 0.0,
    "auroc_excess": 0.0,
    "epsilon_above_claim": 0.0,
}
"""What a statistic is where nothing leaks, for those whose interval tells a p-value."""


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values, in the given order: `(test,)`.

    Raises:
        DataError: a p-value outside [0, 1], or not a number.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise DataError("a p-value must lie between 0 and 1")
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def p_value(result: AttackResult) -> float | None:
    """One-sided p-value of "nothing leaks" from a figure; None where no such thing can be said of it.

    The attack's own, else the normal law of the interval; a count of which nobody said what chance gives is a leak.
    """
    if result.p_value is not None:
        return result.p_value
    if not result.low <= result.rate <= result.high:
        return None
    if result.statistic == "count":
        return float(result.rate <= 0)
    usual = WITHOUT_LEAK.get(result.statistic)
    if usual is None:
        return None
    reach = result.rate - result.low
    if reach <= 0:
        return float(result.rate <= usual)
    return float(stats.norm.sf((result.rate - usual) / reach * stats.norm.ppf(0.975)))


def p_of_hits(hits: int, n: int, alarms: int, others: int) -> float:
    """Of `hits` among n where among `others` there are `alarms` (Fisher's exact test)."""
    return float(stats.fisher_exact([[hits, n - hits], [alarms, others - alarms]], alternative="greater").pvalue)


def with_family(results: Sequence[AttackResult]) -> tuple[AttackResult, ...]:
    """The results of one artefact, each that decides, or would, with its adjusted p-value."""
    family = {place: result for place, result in enumerate(results) if result.gates or result.held_back}
    found = {place: p for place, result in family.items() if (p := p_value(result)) is not None}
    adjusted = dict(zip(found, holm(list(found.values())).tolist(), strict=True))
    return tuple(
        dataclasses.replace(result, p_value_of_the_family=adjusted.get(place)) for place, result in enumerate(results)
    )


def leaks_found(results: Sequence[AttackResult]) -> tuple[AttackResult, ...]:
    """Those that say "it leaks" at `LEVEL`, family-wise."""
    adjusted = ((result, result.p_value_of_the_family) for result in with_family(results))
    return tuple(result for result, p in adjusted if p is not None and p <= LEVEL)
