"""Lower bounds on epsilon against another implementation: figures that jax-privacy 2.0.0 computed, kept as JSON.

jax-privacy is a large dependency (JAX) for a few numbers, so it is not installed for the tests; where it is, the file
is checked against it. `epsilon_from_gdp` of 2.0.0 is not compared with: it takes the *upper* bounds of both error rates
for their lower bounds when it turns a test around, and so calls two equal arms private to no epsilon (see the last
test).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from one_run import empirical_epsilon
from scipy import stats

from condensation.private.accounting import analytic_epsilon
from pipeline.audit.statistics import epsilon_lower_bound, gaussian_delta, gaussian_epsilon, gaussian_mu
from pipeline.core.errors import DataError

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "one_run_epsilon.json").read_text())


def test_one_run_bounds_agree_with_another_implementation() -> None:
    assert len(VECTORS["one_run"]) == 288
    for correct, guessed, canaries, delta, confidence, epsilon in VECTORS["one_run"]:
        if epsilon < 99:  # ours stops there
            found = empirical_epsilon(correct, guessed, canaries, delta, confidence)
            assert found == pytest.approx(epsilon, abs=1e-3), (correct, guessed, canaries, delta, confidence)


def test_one_run_bounds_from_scores_agree() -> None:
    """One threshold, guesses above it only, as that implementation's public interface has them."""
    for case in VECTORS["scores"]:
        inside, outside = (np.array(case[name]) for name in ("in_scores", "out_scores"))
        hits, alarms = (int((scores >= case["threshold"]).sum()) for scores in (inside, outside))
        found = empirical_epsilon(hits, hits + alarms, len(inside) + len(outside), 1e-6)
        assert found == pytest.approx(case["epsilon_one_run"], abs=1e-3)


def test_two_arm_bounds_never_exceed_the_other_implementations() -> None:
    """Theirs splits 5 % over the two rates of one rule; ours splits it likewise and takes the better of both rules."""
    for case in VECTORS["scores"]:
        inside, outside = (np.array(case[name]) for name in ("in_scores", "out_scores"))
        hits, alarms = (int((scores >= case["threshold"]).sum()) for scores in (inside, outside))
        found = epsilon_lower_bound(hits, len(inside), alarms, len(outside), 1e-6)
        assert found == pytest.approx(max(0.0, case["epsilon_clopper_pearson"]), abs=1e-3)


@pytest.mark.parametrize("delta", [1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize("mu", [0.05, 0.2367, 1.0, 3.0])
def test_the_gaussian_trade_off_agrees_with_the_accountant_and_with_many_digits(mu: float, delta: float) -> None:
    epsilon = gaussian_epsilon(mu, delta)
    assert epsilon == pytest.approx(analytic_epsilon(1 / mu, delta), abs=1e-6)
    assert gaussian_mu(epsilon, delta) == pytest.approx(mu, rel=1e-6) or epsilon == 0
    with mpmath.workdps(50):
        exact = mpmath.ncdf(mu / 2 - epsilon / mu) - mpmath.exp(epsilon) * mpmath.ncdf(-mu / 2 - epsilon / mu)
    assert gaussian_delta(mu, epsilon) == pytest.approx(float(exact), rel=1e-7)
    assert float(exact) == pytest.approx(delta, rel=1e-6) or epsilon == 0


@pytest.mark.parametrize("bad", [(-1.0, 1e-6), (math.inf, 1e-6), (1.0, 0.0), (1.0, 1.0)])
def test_a_trade_off_of_nothing_is_refused(bad: tuple[float, float]) -> None:
    with pytest.raises(DataError):
        gaussian_epsilon(*bad)
    with pytest.raises(DataError):
        gaussian_mu(*bad)


def test_why_the_other_gaussian_estimate_is_not_used() -> None:
    """On two arms drawn from one law it finds a leak nearly always; a 95 % bound may in 5 % of audits."""
    seen = VECTORS["epsilon_from_gdp_on_equal_arms"]
    assert stats.binom.sf(round(seen["above_zero"] * seen["audits"]) - 1, seen["audits"], 0.05) < 1e-9


def test_the_vectors_are_what_the_installed_implementation_says() -> None:
    auditing = pytest.importorskip("jax_privacy.auditing", reason="jax-privacy is not installed; the vectors stand")
    for correct, guessed, canaries, delta, confidence, epsilon in VECTORS["one_run"][::7]:
        found = auditing._epsilon_one_run(0, canaries, guessed, correct, 1 - confidence, delta)
        assert found == pytest.approx(epsilon, abs=1e-5)
