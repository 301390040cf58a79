"""Noise multipliers and sensitivities, against closed forms and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from condensation.private.accounting import (
    _analytic_delta,
    analytic_epsilon,
    centre_sensitivity,
    moment_sensitivity,
    noise_multipliers,
    pack_symmetric,
    task_weights,
    unpack_symmetric,
)
from condensation.private.granular import ROOM, grid_step, noisy_answer
from pipeline.core.errors import ConfigError


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-6), (1.0, 1e-6), (4.0, 1e-5), (8.0, 1e-8), (100.0, 1e-6)])
def test_accountant_agrees_with_the_analytic_gaussian(epsilon: float, delta: float) -> None:
    (multiplier,) = noise_multipliers(epsilon, delta, (1.0,))
    found = analytic_epsilon(multiplier, delta)
    assert found <= epsilon * (1 + 1e-9)  # never less noise than the exact formula asks for
    assert found >= epsilon * 0.999  # and not much more


def test_two_composed_queries_cost_what_was_asked() -> None:
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant()
    for multiplier in noise_multipliers(1.0, 1e-6, (0.2, 0.8)):
        accountant.compose(dp_accounting.GaussianDpEvent(multiplier))
    assert accountant.get_epsilon(1e-6) == pytest.approx(1.0, rel=1e-3)


def test_known_multiplier() -> None:
    # Balle and Wang's closed form at (1, 1e-6), from an independent evaluation: 4.2247
    assert noise_multipliers(1.0, 1e-6, (1.0,))[0] == pytest.approx(4.2247, abs=2e-4)


def test_multipliers_do_not_hang_on_the_last_bits_of_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version's rounding must ask for the very same noise, and rounding never takes noise away."""
    import dp_accounting

    exact = dp_accounting.calibrate_dp_mechanism
    found = []
    for moved in (1.0, 1 + 1e-9, 1 - 1e-9):
        noise_multipliers.cache_clear()
        calibrated: list[float] = []

        def calibrate(*args: object, moved: float = moved, seen: list[float] = calibrated, **options: object) -> float:
            seen.append(float(exact(*args, **options)))
            return seen[0] * moved

        monkeypatch.setattr(dp_accounting, "calibrate_dp_mechanism", calibrate)
        found.append(noise_multipliers(1.0, 1e-6, (0.2, 0.8)))
        assert calibrated[0] <= found[-1][0] * math.sqrt(0.2) <= calibrated[0] * 1.0001
    noise_multipliers.cache_clear()
    assert found[0] == found[1] == found[2]


# --- the noise is discrete, the account is of continuous noise --------------------------------------------------------


def one_answer(epsilon: float, size: int = 1, share: float = 1.0) -> tuple[int, int, float]:
    """Scale of the noise, and how far apart neighbours can be, in the grid's steps; the claimed multiplier."""
    asked: list[int] = []

    class Spy:
        """Keeps the scale that is asked for."""

        def discrete_normal(self, query: object, scale: int, shape: tuple[int, ...]) -> np.ndarray:
            asked.append(scale)
            return np.zeros(shape, np.int64)

    multiplier = noise_multipliers(epsilon, 1e-6, (1.0,))[0] / math.sqrt(share)
    noisy_answer(np.zeros(size), 3.0, multiplier, Spy(), {})  # type: ignore[arg-type]
    step = grid_step(3.0, size)
    return asked[0], math.ceil((3.0 + step * math.sqrt(size)) / step), multiplier


@pytest.mark.parametrize("epsilon", [1.0, 4.0, 20.0, 100.0])
def test_the_exact_price_of_the_discrete_noise_is_within_the_claim(epsilon: float) -> None:
    """One number on its actual grid: delta at the claimed epsilon, by a sum over its steps and by dp-accounting."""
    from dp_accounting.pld.privacy_loss_mechanism import DiscreteGaussianPrivacyLoss

    scale, apart, _ = one_answer(epsilon)
    reach = 14 * scale + apart
    places = np.arange(-reach, reach + 1)

    def delta(scale: float) -> float:
        law, moved = (np.exp(-(((places - by) / scale) ** 2) / 2) for by in (0, apart))
        return float(np.maximum(law - math.exp(epsilon) * moved, 0).sum() / (scale * math.sqrt(2 * math.pi)))

    exact = delta(scale)
    assert 0.5e-6 < exact <= 1e-6
    assert delta(0.99 * scale) > 1e-6  # and no slack that would hide a percent of missing noise
    theirs = DiscreteGaussianPrivacyLoss(scale, sensitivity=apart, truncation_bound=reach)
    assert theirs.get_delta_for_epsilon(epsilon) == pytest.approx(exact, rel=1e-4, abs=1e-11)


@pytest.mark.parametrize("epsilon", [0.01, 1.0, 8.0, 100.0])
@pytest.mark.parametrize("sizes", [(1, 1), (149, 2925), (30_001, 10_000_000)])
def test_what_discrete_noise_adds_is_paid_for_by_the_scales_room(epsilon: float, sizes: tuple[int, int]) -> None:
    """docs/reference/guarantee.md's bound for both queries, with half of the half room left for a sum's last bits."""
    tail = math.sqrt(2 * (epsilon + 60))
    added, spent = 0.0, 0.0
    for size, share in zip(sizes, (0.2, 0.8), strict=True):
        scale, apart, multiplier = one_answer(epsilon, size, share)
        assert scale >= 20_000 * math.sqrt(size) * multiplier
        added += (size + (math.sqrt(size) + tail) ** 2) / (24 * scale**2)
        spent += (apart * (1 + ROOM / 4) / scale) ** 2
    assert added < (1e-7 if epsilon <= 8 else 1e-5)
    bound = math.exp(added) * _analytic_delta(1 / math.sqrt(spent), epsilon - added) + math.exp(-60)
    assert bound <= 1e-6


def test_rounded_and_discrete_normals_differ_by_no_more_than_the_page_says() -> None:
    """exp(-1 / 24s^2) <= R(k) <= exp(k^2 / 24s^4), where it can be computed: at scales of a few steps."""
    for scale in (1.5, 4.0, 20.0):
        k = np.arange(0, int(6 * scale))
        rounded = norm.sf((k - 0.5) / scale) - norm.sf((k + 0.5) / scale)
        ratio = rounded * scale * math.sqrt(2 * math.pi) / np.exp(-((k / scale) ** 2) / 2)
        assert (ratio >= math.exp(-1 / (24 * scale**2)) * (1 - 1e-9)).all()
        assert (ratio <= np.exp(k**2 / (24 * scale**4)) * (1 + 1e-9)).all()


def test_impossible_budgets_are_refused() -> None:
    for epsilon, delta in ((0.0, 1e-6), (101.0, 1e-6), (math.inf, 1e-6), (math.nan, 1e-6), (1.0, 0.0), (1.0, 1.0)):
        with pytest.raises(ConfigError, match="epsilon"):
            noise_multipliers(epsilon, delta, (1.0,))
    with pytest.raises(ConfigError, match="shares"):
        noise_multipliers(1.0, 1e-6, (0.5, 0.6))


def test_packed_triangle_has_the_frobenius_norm_and_comes_back() -> None:
    half = np.random.default_rng(0).normal(size=(7, 7))
    matrix = half + half.T
    packed = pack_symmetric(matrix)
    assert packed.shape == (28,)
    assert np.linalg.norm(packed) == pytest.approx(np.linalg.norm(matrix))
    np.testing.assert_allclose(unpack_symmetric(packed, 7), matrix)
    unweighted = matrix[np.triu_indices(7)]
    assert np.linalg.norm(unweighted) < np.linalg.norm(packed)  # without sqrt 2 a bound would be on another norm


@pytest.mark.parametrize("n_tasks", [1, 2, 7])
def test_sensitivity_is_the_textbook_value_at_unit_weights(n_tasks: int) -> None:
    clip = 1.3
    ours = moment_sensitivity(clip, [1.0] * n_tasks)
    assert ours == pytest.approx(math.sqrt(clip**4 + n_tasks * clip**2))
    counts_too = math.sqrt(clip**4 + n_tasks * clip**2 + n_tasks)  # counts asked apart instead of by a constant entry
    assert moment_sensitivity(math.sqrt(1 + clip**2), [1.0] * n_tasks) >= counts_too


def test_the_first_task_gets_half_of_the_task_budget() -> None:
    weights = task_weights(5, 1.4)
    assert np.sum(weights**2) == pytest.approx(1.4**2)
    assert weights[0] ** 2 == pytest.approx(np.sum(weights[1:] ** 2))
    assert task_weights(1, 1.4).tolist() == [1.4]


def test_centre_sensitivity_bounds_random_rows() -> None:
    draws = np.random.default_rng(3)
    clip, width, count_weight, square_weight = 1.5, 0.9, 0.7, 1.1
    bound = centre_sensitivity(clip, width, count_weight, square_weight)
    x = np.clip(draws.normal(size=(20_000, 6)), -width, width)
    x *= np.minimum(1, clip / np.linalg.norm(x, axis=1))[:, None]
    moved = np.sqrt(count_weight**2 + np.sum(x**2, axis=1) + square_weight**2 * np.sum(x**4, axis=1))
    assert moved.max() <= bound
