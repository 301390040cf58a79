"""Intervals and bounds that the attacks report: exact where an exact one exists, by subject otherwise.

Sources: Clopper & Pearson (Biometrika 1934); DeLong et al. (Biometrics 1988) for the AUROC; Kairouz et al. (ICML 2015)
for the region that (epsilon, delta) allows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from pipeline.core.errors import DataError

EXPECTED_FALSE_POSITIVES = 3  # a false-positive rate is supported when at least so many are expected at it
LEVEL = 0.95  # of every interval and bound, unless it is said otherwise
CONTROL_LEVEL = 0.999  # a control is called broken only at this confidence, or good audits would fail by chance


@dataclass(frozen=True)
class Interval:
    """A point and its two-sided confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    @property
    def half_width(self) -> float:
        """Half of its length."""
        return (self.high - self.low) / 2

    @property
    def at_most_a_coin(self) -> bool:
        """As an AUROC: not above one half at the level at which a control is called broken."""
        z = float(stats.norm.ppf(0.5 + CONTROL_LEVEL / 2))
        return self.value - z * self.standard_error <= 0.5

    @property
    def standard_error(self) -> float:
        """Of the normal distribution that has this 95 % interval."""
        return (self.high - self.low) / (2 * 1.96)


def clopper_pearson(hits: int, n: int, level: float = LEVEL) -> Interval:
    """Exact binomial interval of `hits / n`.

    Raises:
        DataError: n < 1 or hits outside 0..n.
    """
    if n < 1 or not 0 <= hits <= n:
        raise DataError(f"a binomial interval needs 0 <= hits <= n and n >= 1, got {hits} of {n}")
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(stats.beta.ppf(tail, hits, n - hits + 1))
    high = 1.0 if hits == n else float(stats.beta.ppf(1 - tail, hits + 1, n - hits))
    return Interval(hits / n, low, high)


def bootstrap_r2(errors: np.ndarray, totals: np.ndarray, rng: np.random.Generator, n_bootstrap: int) -> Interval:
    """R2 = 1 - sum(errors) / sum(totals) with a studentised bootstrap over subjects, on the log of the ratio.

    Ratios of few subjects are skewed: over 1,000 truths a percentile interval held 92.6 %, the studentised one 93.4 %
    (Efron & Tibshirani 1993, chapter 12; benchmarks/audit_null.py).

    Args:
        errors, totals: `(subject,)` squared error of the attack and of the mean predictor, summed over a subject.
    """
    if totals.sum() <= 0:
        return Interval(0.0, 0.0, 0.0)
    n = len(errors)
    ratio = float(errors.sum() / totals.sum())
    squares = np.stack([errors, totals, errors**2, errors * totals, totals**2], axis=1, dtype=np.float64)
    spread = float(_log_ratio_error(squares.sum(axis=0, keepdims=True))[0])
    if not 0 < spread < math.inf:
        return Interval(1 - ratio, 1 - ratio, 1 - ratio)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=n_bootstrap).astype(np.float64) @ squares
    drawn = drawn[(drawn[:, 0] > 0) & (drawn[:, 1] > 0)]
    error = _log_ratio_error(drawn)
    usable = error > 1e-3 * spread  # a draw of one subject only knows no spread
    studentised = (np.log(drawn[usable, 0] / drawn[usable, 1]) - math.log(ratio)) / error[usable]
    if len(studentised) < n_bootstrap / 2:
        return Interval(1 - ratio, min(0.0, 1 - ratio), 1.0)  # so few subjects carry the figure that nothing is known
    tail = (1 - LEVEL) / 2
    below, above = (float(edge) for edge in np.quantile(studentised, [tail, 1 - tail]))
    edges = (1 - ratio * math.exp(-below * spread), 1 - ratio * math.exp(-above * spread))
    return Interval(1 - ratio, min(edges[0], 1 - ratio), max(edges[1], 1 - ratio))


def _log_ratio_error(sums: np.ndarray) -> np.ndarray:
    """Standard error of log(sum e / sum t) by linearisation, from sums of (e, t, e^2, e t, t^2): `(draw,)`."""
    e, t, ee, et, tt = sums.T
    ratio = e / t
    square = np.maximum(ee - 2 * ratio * et + ratio**2 * tt, 0)
    return np.asarray(np.sqrt(square) / np.maximum(e, 1e-300))


def sums_by_subject(values: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """`(stay,)` values summed over the stays of each subject: `(subject,)`."""
    return np.bincount(np.unique(subjects, return_inverse=True)[1], weights=values)


def auroc(members: np.ndarray, others: np.ndarray) -> Interval:
    """AUROC of scores (larger = member), ties count one half, with DeLong's interval.

    Where DeLong's variance is zero (perfect separation) the distance to 1 is bounded by the exact binomial bound for
    the smaller group, because no estimate of n units is certain.
    """
    n, m = len(members), len(others)
    if min(n, m) < 2:
        raise DataError(f"an AUROC needs two scores in each group, got {n} and {m}")
    ranks = stats.rankdata(np.concatenate([members, others]))
    above = (ranks[:n] - stats.rankdata(members)) / m  # for each member, share of others it beats
    below = 1 - (ranks[n:] - stats.rankdata(others)) / n  # for each other, share of members that beat it
    value = float(above.mean())
    variance = float(above.var(ddof=1) / n + below.var(ddof=1) / m)
    if variance <= 0:
        slack = 1 - clopper_pearson(min(n, m), min(n, m)).low
        return Interval(value, max(0.0, value - slack), min(1.0, value + slack))
    reach = float(stats.norm.ppf(0.5 + LEVEL / 2)) * math.sqrt(variance)
    return Interval(value, max(0.0, value - reach), min(1.0, value + reach))


def smallest_fpr(n_others: int) -> float:
    """The smallest false-positive rate that so many non-members support."""
    return EXPECTED_FALSE_POSITIVES / n_others


def threshold_at_fpr(others: np.ndarray, fpr: float) -> float:
    """The score above which at most a share `fpr` of the non-members lie (strictly above counts as member)."""
    allowed = math.floor(fpr * len(others) + 1e-9)
    return float(np.sort(others)[::-1][min(allowed, len(others) - 1)])


def epsilon_lower_bounds(
    true_positives: np.ndarray, members: int, false_positives: np.ndarray, others: int, delta: float
) -> np.ndarray:
    """Largest epsilon refuted at each threshold, with confidence `LEVEL` for each (0 where none is): `(threshold,)`.

    (epsilon, delta) implies TPR <= e^eps FPR + delta and TNR <= e^eps FNR + delta; both rates get a one-sided
    Clopper-Pearson bound at (1 - LEVEL) / 2, so the statement holds by the union bound.
    """
    tail = (1 - LEVEL) / 2
    hits, alarms = np.asarray(true_positives, np.float64), np.asarray(false_positives, np.float64)
    tpr = np.where(hits > 0, stats.beta.ppf(tail, np.maximum(hits, 1), members - hits + 1), 0.0)
    fpr = np.where(alarms < others, stats.beta.ppf(1 - tail, alarms + 1, np.maximum(others - alarms, 1)), 1.0)
    refuted = np.zeros(hits.shape)
    for hit, miss in ((tpr, fpr), (1 - fpr, 1 - tpr)):
        gain = np.maximum(hit - delta, 0)
        refuted = np.maximum(refuted, np.log(np.maximum(gain, 1e-300) / np.maximum(miss, 1e-300)))
    return refuted


def epsilon_lower_bound(
    true_positives: int, members: int, false_positives: int, others: int, delta: float = 0.0
) -> float:
    """`epsilon_lower_bounds` at a single threshold."""
    one = np.array([true_positives]), members, np.array([false_positives]), others
    return float(epsilon_lower_bounds(*one, delta)[0])


def epsilon_ceiling(members: int, others: int) -> float:
    """The bound that a flawless attack would certify at these n: no smaller audit can say more."""
    return epsilon_lower_bound(members, members, 0, others)


def poisson_tail(observed: int, expected: float) -> float:
    """P(Poisson(expected) >= observed)."""
    return float(stats.poisson.sf(observed - 1, expected))


def gaussian_delta(mu: float, epsilon: float) -> float:
    """The delta at which a mu-Gaussian mechanism is (epsilon, delta)-private (Balle and Wang 2018, theorem 8)."""
    if mu <= 0:
        return 0.0
    first, second = stats.norm.logcdf(mu / 2 - epsilon / mu), epsilon + stats.norm.logcdf(-mu / 2 - epsilon / mu)
    return float(-math.exp(first) * math.expm1(min(0.0, second - first)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The smallest epsilon at which a mu-Gaussian mechanism is (epsilon, delta)-private.

    Raises:
        DataError: mu negative or not finite, or delta outside (0, 1).
    """
    if not (0 <= mu < math.inf and 0 < delta < 1):
        raise DataError("a Gaussian trade-off needs a finite mu >= 0 and a delta between 0 and 1")
    if gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    high = 1.0
    while gaussian_delta(mu, high) > delta:
        high *= 2
    return float(optimize.brentq(lambda epsilon: gaussian_delta(mu, epsilon) - delta, 0.0, high, xtol=1e-9))


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The largest mu of a Gaussian mechanism that is (epsilon, delta)-private: the inverse of `gaussian_epsilon`."""
    if not (0 <= epsilon < math.inf and 0 < delta < 1):
        raise DataError("a Gaussian trade-off needs a finite epsilon >= 0 and a delta between 0 and 1")
    high = 1.0
    while gaussian_delta(high, epsilon) < delta:
        high *= 2
    return float(optimize.brentq(lambda mu: gaussian_delta(mu, epsilon) - delta, 0.0, high, xtol=1e-12))
