"""How much better a guess gets: differences of AUROC with DeLong's interval, and the linear guesser behind them.

Source: DeLong et al. (Biometrics 1988): the AUROC is a mean over cases and a mean over others, whose spread is that of
each person's share of pairs; the difference of two AUROCs on the same people has the spread of the differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.linear_model import RidgeCV

from pipeline.audit.statistics import LEVEL, Interval

PENALTIES = np.logspace(0, 5, 6)
MIN_KIND = 10  # people of either kind, or there is no AUROC to speak of


@dataclass(frozen=True)
class Shares:
    """An AUROC and each case's and each other's share of concordant pairs."""

    value: float
    cases: np.ndarray
    others: np.ndarray


def shares(scores: np.ndarray, truth: np.ndarray) -> Shares:
    """The parts of the AUROC of `scores` for boolean `truth`, ties one half."""
    inside, outside = scores[truth], scores[~truth]
    ranks = stats.rankdata(np.concatenate([inside, outside]))
    n, m = len(inside), len(outside)
    cases = (ranks[:n] - stats.rankdata(inside)) / m
    others = 1 - (ranks[n:] - stats.rankdata(outside)) / n
    return Shares(float(cases.mean()), cases, others)


def can_be_judged(truth: np.ndarray) -> bool:
    """Whether there are enough people of either kind."""
    ones = int(truth.sum())
    return min(ones, len(truth) - ones) >= MIN_KIND


def same_people(a: Shares, b: Shares, level: float = LEVEL) -> Interval:
    """AUROC a minus AUROC b, of two scores of the same people in the same order."""
    variance = (a.cases - b.cases).var(ddof=1) / len(a.cases) + (a.others - b.others).var(ddof=1) / len(a.others)
    return _difference(a, b, float(variance), level)


def other_people(a: Shares, b: Shares, level: float = LEVEL) -> Interval:
    """AUROC a minus AUROC b, of one score of different people."""
    variance = sum(float(part.var(ddof=1)) / len(part) for part in (a.cases, a.others, b.cases, b.others))
    return _difference(a, b, variance, level)


def _difference(a: Shares, b: Shares, variance: float, level: float) -> Interval:
    reach = float(stats.norm.ppf(0.5 + level / 2)) * math.sqrt(max(variance, 0.25 / len(a.cases) ** 2))
    value = a.value - b.value
    return Interval(value, max(-1.0, value - reach), min(1.0, value + reach))


def guesser(known: np.ndarray, truth: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Scores of `asked` by ridge regression on standardised features, the penalty by leave-one-out on `known`.

    Args:
        known, asked: `(person, feature)`; truth: `(person,)` bool.
    """
    centre, spread = known.mean(axis=0), known.std(axis=0)
    kept = spread > 1e-9
    if not kept.any():
        return np.zeros(len(asked))
    scaled = (known[:, kept] - centre[kept]) / spread[kept]
    there = np.clip((asked[:, kept] - centre[kept]) / spread[kept], -10, 10)
    model = RidgeCV(alphas=PENALTIES).fit(scaled, np.where(truth, 1.0, -1.0))
    return np.asarray(model.predict(there))
