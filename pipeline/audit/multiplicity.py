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

from pipeline.audit.statistics import poisson_tail
from pipeline.core.errors import DataError
from pipeline.core.types import AttackResult

LEVEL: Final = 0.05
ADJUSTED: Final = "p_value_of_the_family"
HELD_BACK: Final = "held_back"
"""In the detail of a figure that would decide had there been more people: it stays in the family, or being left out
would depend on what was found."""
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

    The attack's own (`p_value` in its detail), else: counts against what chance gives (Poisson); hits at a false-alarm
    rate against the false alarms there were (Fisher's exact test); else the normal law of the interval.
    """
    own = result.detail.get("p_value", result.detail.get("auroc_p_value") if result.statistic == "auroc" else None)
    if own is not None:
        return float(own)
    if result.statistic == "count":
        expected = result.detail.get("expected_by_chance", 0.0)
        return poisson_tail(round(result.rate), float(expected)) if result.rate > 0 else 1.0
    if result.statistic.startswith("tpr_at"):
        return _fisher(result)
    usual = WITHOUT_LEAK.get(result.statistic)
    if usual is None or not result.low <= result.rate <= result.high:
        return None
    reach = result.rate - result.low
    if reach <= 0:
        return float(result.rate <= usual)
    return float(stats.norm.sf((result.rate - usual) / reach * stats.norm.ppf(0.975)))


def _fisher(result: AttackResult) -> float | None:
    detail = result.detail
    if not {"n_members", "n_others", "realised_fpr"} <= set(detail):
        return None
    members, others = int(detail["n_members"]), int(detail["n_others"])
    hits, alarms = round(result.rate * members), round(float(detail["realised_fpr"]) * others)
    table = [[hits, members - hits], [alarms, others - alarms]]
    return float(stats.fisher_exact(table, alternative="greater").pvalue)


def with_family(results: Sequence[AttackResult]) -> tuple[AttackResult, ...]:
    """The results of one artefact, each that decides, or would, with its adjusted p-value in the detail."""
    family = {place: result for place, result in enumerate(results) if result.gates or result.detail.get(HELD_BACK)}
    found = {place: p for place, result in family.items() if (p := p_value(result)) is not None}
    adjusted = dict(zip(found, holm(list(found.values())).tolist(), strict=True))
    return tuple(
        dataclasses.replace(result, detail={**result.detail, ADJUSTED: adjusted[place]})
        if place in adjusted
        else result
        for place, result in enumerate(results)
    )


def leaks_found(results: Sequence[AttackResult]) -> tuple[AttackResult, ...]:
    """Those that say "it leaks" at `LEVEL`, family-wise."""
    return tuple(result for result in with_family(results) if result.detail.get(ADJUSTED, 1.0) <= LEVEL)
