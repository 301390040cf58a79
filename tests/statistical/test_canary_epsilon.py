"""The one-run canary audit: its bound holds, it has power, and it agrees with what the accountant says of our noise.

A 95 % bound may lie above the truth in 5 % of runs. Over n runs the number of such runs is at most Binomial(n, .05);
each test allows its 1 - 1e-4 quantile.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from one_run import CanaryAudit, empirical_epsilon, one_run_audit, p_value
from scipy import stats

from condensation.private.accounting import noise_multipliers
from condensation.private.moments import release_moments
from pipeline.core.errors import DataError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Moments, Provenance, Task

RUNS = 300
ALLOWED = float(stats.binom.ppf(1 - 1e-4, RUNS, 0.05))
DELTA = 1e-6


def source(number: int) -> NoiseSource:
    return NoiseSource(Secret(number.to_bytes(32, "little"), "noise"), "canaries")


# --- the bound --------------------------------------------------------------------------------------------------------


def test_without_delta_the_bound_is_the_exact_binomial_one() -> None:
    assert empirical_epsilon(100, 100, 100, 0.0) == pytest.approx(np.log(0.05**0.01 / (1 - 0.05**0.01)), abs=1e-6)
    found = empirical_epsilon(70, 100, 1000, 0.0)
    assert stats.binom.sf(69, 100, 1 / (1 + np.exp(-found))) == pytest.approx(0.05, abs=1e-6)
    assert empirical_epsilon(55, 100, 1000, 0.0) == 0.0  # a fair coin gets that far
    assert empirical_epsilon(0, 0, 10, 0.0) == 0.0


def test_the_bound_falls_with_delta_and_confidence_and_grows_with_right_guesses() -> None:
    deltas = [empirical_epsilon(160, 200, 10_000, delta) for delta in (0.0, 1e-6, 1e-5, 1e-4)]
    assert deltas == sorted(deltas, reverse=True)
    assert deltas[-1] < deltas[0]
    levels = [empirical_epsilon(160, 200, 10_000, 1e-6, confidence) for confidence in (0.8, 0.95, 0.999)]
    assert levels == sorted(levels, reverse=True)
    right = [empirical_epsilon(correct, 200, 10_000, 1e-6) for correct in range(100, 201, 5)]
    assert right == sorted(right)
    assert p_value(160, 200, 10_000, deltas[1], 1e-6) == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize(
    "figures", [(3, 2, 10, 0.0, 0.9), (1, 11, 10, 0.0, 0.9), (1, 2, 10, 1.0, 0.9), (-1, 2, 10, 0.0, 0.9)]
)
def test_impossible_figures_are_refused(figures: tuple[int, int, int, float, float]) -> None:
    with pytest.raises(DataError, match="0 <= correct <= guessed <= m"):
        empirical_epsilon(*figures)


def test_an_audit_that_guesses_twice_or_scores_too_few_is_refused() -> None:
    options = {"n_canaries": 10, "delta": 0.0, "seed": 0}
    with pytest.raises(DataError, match="at most once"):
        one_run_audit(np.asarray, np.asarray, guesses_in=6, guesses_out=5, **options)
    with pytest.raises(DataError, match="shape"):
        one_run_audit(lambda present: present[:3], np.asarray, guesses_in=1, guesses_out=1, **options)


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 3.0])
def test_on_randomised_response_the_bound_holds_and_is_nearly_tight(epsilon: float) -> None:
    draws = np.random.default_rng(1)

    def answers(present: np.ndarray) -> np.ndarray:
        return np.where(draws.uniform(size=present.shape) < 1 / (1 + np.exp(-epsilon)), present, ~present)

    found = [
        one_run_audit(answers, np.asarray, n_canaries=1000, guesses_in=200, guesses_out=200, delta=0.0, seed=k).epsilon
        for k in range(RUNS)
    ]
    assert np.sum(np.array(found) > epsilon) <= ALLOWED
    # the share of right guesses has standard error sqrt(q (1 - q) / 400), in epsilon 1 / sqrt(400 q (1 - q)):
    # a 95 % bound lies 1.64 of them below the truth on average
    q = 1 / (1 + np.exp(-epsilon))
    assert np.mean(found) > epsilon - 2.5 / np.sqrt(400 * q * (1 - q))


def test_with_delta_the_bound_holds_where_delta_shows_everything() -> None:
    """Randomised response that with chance delta gives the coin away, and says so: (epsilon, delta)-private exactly.

    The auditor guesses the coins given away first.
    """
    epsilon, delta = 1.0, 0.01
    draws = np.random.default_rng(2)

    def answers(present: np.ndarray) -> np.ndarray:
        given_away = draws.uniform(size=present.shape) < delta
        told = np.where(draws.uniform(size=present.shape) < 1 / (1 + np.exp(-epsilon)), present, ~present)
        return np.where(given_away, 2, 1) * np.where(np.where(given_away, present, told), 1.0, -1.0)

    options = {"n_canaries": 1000, "guesses_in": 50, "guesses_out": 50, "delta": delta}
    found = np.array([one_run_audit(answers, np.asarray, seed=k, **options).epsilon for k in range(RUNS)])
    assert np.sum(found > epsilon) <= ALLOWED
    careless = [one_run_audit(answers, np.asarray, seed=k, **{**options, "delta": 0.0}).epsilon for k in range(RUNS)]
    assert np.sum(np.array(careless) > epsilon) > ALLOWED  # the delta is needed: without it the bound fails


# --- the accountant and the noise source ------------------------------------------------------------------------------


def gaussian_audit(epsilon: float, factor: float, number: int) -> CanaryAudit:
    """Orthogonal canaries of norm one in one Gaussian query, whose noise the accountant scaled; times `factor`."""
    (multiplier,) = noise_multipliers(epsilon, DELTA, (1.0,))

    def query(present: np.ndarray) -> np.ndarray:
        steps = 1 << 20  # of the grid, to a canary
        noise = source(number).discrete_normal(
            {"epsilon": epsilon.hex()}, round(multiplier * factor * steps), present.shape
        )
        return present.astype(np.float64) + noise / steps

    guesses = {"guesses_in": 1000, "guesses_out": 1000}
    return one_run_audit(query, np.asarray, n_canaries=100_000, delta=DELTA, seed=number, **guesses)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
def test_the_accountants_noise_is_never_refuted_and_half_of_it_is(epsilon: float, number: int) -> None:
    right, wrong = (gaussian_audit(epsilon, factor, number) for factor in (1.0, 0.5))
    assert right.ceiling > 2 * epsilon  # the audit could have refuted it
    assert 0.3 * epsilon < right.epsilon <= epsilon
    assert wrong.epsilon > epsilon


# --- the release itself -----------------------------------------------------------------------------------------------

N_CHANNELS, N_CANARIES, N_OTHERS = 120, 8000, 32_000
CLIP_NORM = 2.6


class WeakNoise:
    """A noise source that is off by a factor: a bug in a scale."""

    def __init__(self, number: int, factor: float) -> None:
        self.source, self.factor = source(number), factor

    def reserve(self, query: object, events: object) -> None:
        """Nothing is on a ledger here."""

    def discrete_normal(self, query: object, scale: int, shape: tuple[int, ...]) -> np.ndarray:
        return self.source.discrete_normal(query, round(scale * self.factor), shape)


@functools.cache
def cohort() -> EncodedCohort:
    """Canaries at random corners of the public range, then others in its middle: so a canary's standardised row is as
    long as the clip norm, and most of its weight is in z z^T, where the canaries are nearly orthogonal."""
    draws = np.random.default_rng(0)
    corners = draws.integers(0, 2, (N_CANARIES, 1, N_CHANNELS)).astype(np.float32)
    n = N_CANARIES + N_OTHERS
    return EncodedCohort(
        features=np.concatenate([corners, np.full((N_OTHERS, 1, N_CHANNELS), 0.5, np.float32)]),
        labels=np.full((n, 1), np.nan, np.float32),
        subject_index=np.arange(n, dtype=np.int32),
        split=np.zeros(n, np.int8),
        channels=tuple(f"c{i}" for i in range(N_CHANNELS)),
        tasks=(Task("t"),),
        step_hours=1.0,
        transforms=({"kind": "scaling", "public": True},),
        provenance=Provenance("test"),
    )


def matched(moments: Moments) -> np.ndarray:
    """x^T (sum of x x^T) x for every canary x: how much of its own square is in the answer."""
    x = cohort().features[:N_CANARIES, 0].astype(np.float64) - 0.5
    levels = slice(1, 1 + N_CHANNELS)
    return np.asarray(((x @ moments.gram[levels, levels]) * x).sum(axis=1))


def release_audit(epsilon: float, factor: float, number: int) -> CanaryAudit:
    def release(present: np.ndarray) -> Moments:
        stays = cohort().take(np.flatnonzero(np.concatenate([present, np.ones(N_OTHERS, bool)])))
        noise = WeakNoise(number, factor)
        return release_moments(stays, epsilon=epsilon, delta=DELTA, noise=noise, clip_norm=CLIP_NORM)  # type: ignore[arg-type]

    guesses = {"guesses_in": 150, "guesses_out": 150}
    return one_run_audit(release, matched, n_canaries=N_CANARIES, delta=DELTA, seed=number, **guesses)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0])
def test_the_private_release_is_never_refuted_and_a_lost_scale_is(epsilon: float) -> None:
    """The whole release, both queries, in one run.

    Only the part of a canary's contribution that is nearly orthogonal to the others' can be read, so the bound is
    looser than for one orthogonal query: it takes an eighth of the noise to refute the claim at each of these epsilons.
    """
    right, wrong = (release_audit(epsilon, one, 1) for one in (1.0, 0.125))
    assert right.ceiling > 2 * epsilon
    assert right.epsilon <= epsilon
    assert wrong.epsilon > epsilon
