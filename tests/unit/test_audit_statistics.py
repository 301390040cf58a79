"""Hand-computed values of the audit's statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from pipeline.audit.sets.membership import roc
from pipeline.audit.statistics import (
    auroc,
    bootstrap_r2,
    clopper_pearson,
    epsilon_ceiling,
    epsilon_lower_bound,
    poisson_tail,
    smallest_fpr,
    sums_by_subject,
    threshold_at_fpr,
)
from pipeline.core.errors import DataError


def test_clopper_pearson_at_the_edges_has_a_closed_form() -> None:
    """0 of n: high = 1 - (alpha/2)^(1/n); n of n: low = (alpha/2)^(1/n)."""
    none, everything = clopper_pearson(0, 10), clopper_pearson(10, 10)
    assert (none.low, everything.high) == (0.0, 1.0)
    assert none.high == pytest.approx(1 - 0.025**0.1)
    assert everything.low == pytest.approx(0.025**0.1)


def test_clopper_pearson_inverts_the_binomial_tail() -> None:
    """At the lower bound P(X >= 3) is exactly 2.5 %: computed from the binomial sum."""
    low = clopper_pearson(3, 8).low
    tail = sum(math.comb(8, k) * low**k * (1 - low) ** (8 - k) for k in range(3, 9))
    assert tail == pytest.approx(0.025)


@pytest.mark.parametrize(("hits", "n"), [(1, 0), (-1, 4), (5, 4)])
def test_clopper_pearson_refuses_impossible_counts(hits: int, n: int) -> None:
    with pytest.raises(DataError):
        clopper_pearson(hits, n)


def test_auroc_counts_pairs_and_half_the_ties() -> None:
    """Members 3, 2; others 2, 1: of 4 pairs three are won and one is a tie."""
    assert auroc(np.array([3.0, 2.0]), np.array([2.0, 1.0])).value == pytest.approx(3.5 / 4)


def test_auroc_of_perfect_separation_is_not_certain() -> None:
    found = auroc(np.arange(10, 20), np.arange(10))
    assert found.value == 1.0
    assert found.low == pytest.approx(0.025**0.1)


def test_threshold_lets_the_allowed_share_pass() -> None:
    others = np.arange(1000.0)
    threshold = threshold_at_fpr(others, 0.01)
    assert (others > threshold).sum() == 10


def test_the_smallest_rate_expects_three_false_positives() -> None:
    assert smallest_fpr(300) == pytest.approx(0.01)
    assert smallest_fpr(3000) == pytest.approx(0.001)


def test_epsilon_bound_by_hand() -> None:
    """10 of 10 members, 0 of 10 others: log(0.025^0.1 / (1 - 0.025^0.1))."""
    edge = 0.025**0.1
    assert epsilon_lower_bound(10, 10, 0, 10) == pytest.approx(math.log(edge / (1 - edge)))
    assert epsilon_ceiling(10, 10) == epsilon_lower_bound(10, 10, 0, 10)
    assert epsilon_lower_bound(5, 10, 5, 10) == 0.0
    assert epsilon_lower_bound(10, 10, 0, 10, delta=0.5) < epsilon_lower_bound(10, 10, 0, 10)


def test_poisson_tail_by_hand() -> None:
    assert poisson_tail(1, 0.5) == pytest.approx(1 - math.exp(-0.5))
    assert poisson_tail(0, 0.5) == 1.0


def test_r2_of_four_subjects() -> None:
    rng = np.random.default_rng(0)
    found = bootstrap_r2(np.array([1.0, 0, 1, 0]), np.array([2.0, 2, 2, 2]), rng, 200)
    assert found.value == pytest.approx(0.75)
    assert 0.5 <= found.low <= 0.75 <= found.high <= 1.0
    assert bootstrap_r2(np.zeros(4), np.zeros(4), rng, 10).value == 0.0


def test_stays_add_up_by_subject() -> None:
    assert sums_by_subject(np.array([1.0, 2, 4]), np.array(["b", "a", "b"])).tolist() == [2.0, 5.0]


def test_the_curve_of_a_membership_attack_is_exact_and_about_no_fewer_than_ten() -> None:
    """Members N(1, 1), others N(0, 1): the curve is Phi(Phi^-1(FPR) + 1) to within eight standard errors."""
    rng = np.random.default_rng(0)
    n = 20_000
    points = np.array(roc(rng.normal(1, 1, n), rng.normal(0, 1, n)))
    assert points[:, 0].min() == 10 / n
    assert points[-1].tolist() == [1.0, pytest.approx(1.0, abs=1e-3)]
    assert (np.diff(points, axis=0) >= 0).all()
    inner = points[(points[:, 0] > 0.01) & (points[:, 0] < 0.9)]
    expected = stats.norm.cdf(stats.norm.ppf(inner[:, 0]) + 1)
    np.testing.assert_allclose(inner[:, 1], expected, atol=4 * np.sqrt(0.25 / n) * 2)
