"""Does the audit keep its promises when nothing leaks? Tolerances are derived from the number of repetitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.audit.sets.membership import halves, judge
from pipeline.audit.sets.population import population_of, scores
from pipeline.audit.statistics import auroc, bootstrap_r2, clopper_pearson, epsilon_lower_bound, threshold_at_fpr

REPEATS = 400
FALSE_ALARMS = int(stats.binom.ppf(0.98, REPEATS, 0.05))  # a correct 5 % test stays at or below this 98 times in 100


def null_audit(seed: int) -> tuple[float, bool, float]:
    """Members, others and samples from one population: p-value, whether the TPR interval misses, epsilon bound."""
    rng = np.random.default_rng(seed)
    draw = rng.normal(size=(20 + 60 + 160 + 160, 8)).astype(np.float32) * np.arange(1, 9, dtype=np.float32)
    samples, population, members, others = np.split(draw, [20, 80, 240])
    known = population_of(population)
    inside, outside = (scores(samples, known.asked(rows)) for rows in (members, others))
    found = judge(inside, outside, halves(160, rng), halves(160, rng))
    return found.p_value, found.auroc.low > 0.5, found.epsilon


def test_null_audits_rarely_alarm() -> None:
    """400 audits at nominal 5 %: at most 29 false alarms, and some, or the test would be deaf."""
    assert FALSE_ALARMS == 29
    found = [null_audit(seed) for seed in range(REPEATS)]
    alarms = sum(p <= 0.05 for p, _, _ in found)
    assert stats.binom.ppf(0.001, REPEATS, 0.05) <= alarms <= FALSE_ALARMS
    assert sum(above for _, above, _ in found) <= stats.binom.ppf(0.99, REPEATS, 0.025)
    assert sum(epsilon > 0 for _, _, epsilon in found) <= stats.binom.ppf(0.99, REPEATS, 0.05)


def test_clopper_pearson_covers() -> None:
    """Exact coverage, by summing the binomial over all outcomes: never below 95 %."""
    for n, p in [(10, 0.05), (80, 0.01), (80, 0.5), (400, 0.97)]:
        weights = stats.binom.pmf(np.arange(n + 1), n, p)
        covered = [clopper_pearson(hits, n).low <= p <= clopper_pearson(hits, n).high for hits in range(n + 1)]
        assert float(weights @ np.array(covered)) >= 0.95


def lowest(coverage: float, repeats: int) -> float:
    """What a method of that true coverage stays above 999 times in 1,000."""
    return float(stats.binom.ppf(0.001, repeats, coverage)) / repeats


def test_delong_covers_the_true_auroc() -> None:
    """Normal scores one standard deviation apart: AUROC = Phi(1 / sqrt 2). DeLong is asymptotic; 93 % is asked."""
    truth = float(stats.norm.cdf(1 / np.sqrt(2)))
    rng = np.random.default_rng(0)
    found = [auroc(rng.normal(1, 1, 80), rng.normal(0, 1, 120)) for _ in range(REPEATS)]
    assert np.mean([item.low <= truth <= item.high for item in found]) >= lowest(0.93, REPEATS)


def test_the_subject_bootstrap_covers() -> None:
    """R2 of a population in which errors are a known share of totals, 100 subjects; percentile bootstrap: 92 %."""
    rng = np.random.default_rng(1)

    def interval() -> tuple[float, float]:
        totals = rng.gamma(4, 1, 100)
        found = bootstrap_r2(totals * rng.beta(2, 8, 100), totals, rng, 200)
        return found.low, found.high

    found = [interval() for _ in range(REPEATS)]
    assert np.mean([low <= 0.8 <= high for low, high in found]) >= lowest(0.92, REPEATS)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
def test_the_epsilon_bound_stays_below_the_true_epsilon(epsilon: float) -> None:
    """Randomised response is exactly epsilon-private: the bound may exceed it in at most 5 % of audits."""
    rng = np.random.default_rng(2)
    keep = np.exp(epsilon) / (1 + np.exp(epsilon))
    bounds = [
        epsilon_lower_bound(int(rng.binomial(300, keep)), 300, int(rng.binomial(300, 1 - keep)), 300)
        for _ in range(REPEATS)
    ]
    assert np.mean(np.array(bounds) > epsilon) <= float(stats.binom.ppf(0.999, REPEATS, 0.05)) / REPEATS
    assert max(bounds) > epsilon / 2  # and it says something


def test_a_threshold_keeps_its_rate_on_new_people() -> None:
    """1 % chosen on 2,000 strangers: on new ones the mean rate over 200 draws lies within 4 standard errors of 1 %."""
    rng = np.random.default_rng(3)
    rates = []
    for _ in range(200):
        threshold = threshold_at_fpr(rng.normal(size=2000), 0.01)
        rates.append(float(stats.norm.sf(threshold)))
    error = np.sqrt(0.01 * 0.99 / 2000 / 200)
    assert abs(np.mean(rates) - 0.01) <= 4 * error + 1 / 2000  # the order statistic itself is off by up to 1 / n
