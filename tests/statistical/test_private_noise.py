"""The noise of the private release has the promised scale and shape, in every part.

Differences of releases that differ in the site secret alone are noise alone: N(0, 2 s^2) with s the part's scale. For m
independent such values the mean square over 2 s^2 is chi-square / m with standard deviation sqrt(2 / m); 5 of them are
allowed (two-sided chance under 1e-6).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from condensation.private import moments as module
from condensation.private.accounting import (
    centre_sensitivity,
    moment_sensitivity,
    noise_multipliers,
    pack_symmetric,
    task_weights,
)
from condensation.private.feature_map import LevelAndTrend
from condensation.private.granular import ROOM, grid_step, noisy_answer
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret

PHI = LevelAndTrend(4, 3, 0.0, 1.0)
ROWS = np.random.default_rng(0).uniform(-0.4, 0.4, (200, 6))


def blocks() -> list[tuple[slice, np.ndarray]]:
    """The rows as the mechanism reads them: piece by piece."""
    return [(slice(0, 120), ROWS[:120]), (slice(120, 200), ROWS[120:])]


SHARE = np.ones(200)
SIGNS = np.where(np.random.default_rng(1).uniform(size=(200, 2)) < 0.5, -1.0, 1.0)
MULTIPLIERS = noise_multipliers(1.0, 1e-6, (0.2, 0.8))
REPEATS = 150


def source(k: int) -> NoiseSource:
    return NoiseSource(Secret(k.to_bytes(32, "little"), "noise"), "cohort")


def rounded_up(scale: float, step: float) -> float:
    return math.ceil(scale / step) * step


def mean_square_is(values: np.ndarray, variance: float) -> bool:
    m = values.size
    return abs(float(np.mean(values**2)) / variance - 1) < 5 * np.sqrt(2 / m)


def test_query_two_has_isotropic_noise_of_the_calibrated_scale() -> None:
    scaler = module.Standardiser(np.zeros(6), np.ones(6))
    clip = 1.0
    weights = task_weights(2, np.sqrt(1 + clip**2))
    sensitivity = moment_sensitivity(np.sqrt(1 + clip**2), weights.tolist())
    wanted = rounded_up(MULTIPLIERS[1] * sensitivity * (1 + ROOM), grid_step(sensitivity, 28 + 2 * 7))
    packed, sums = [], []
    for k in range(REPEATS):
        (gram, signed), scale = module._ask_moments(blocks, SHARE, SIGNS, scaler, clip, MULTIPLIERS[1], source(k), {})
        assert scale == wanted
        packed.append(pack_symmetric(gram))
        sums.append(signed)
    differences = np.array(packed[0::2]) - np.array(packed[1::2])
    diagonal = np.isin(np.arange(28), [0, 7, 13, 18, 22, 25, 27])
    assert mean_square_is(differences[:, diagonal], 2 * wanted**2)
    assert mean_square_is(differences[:, ~diagonal], 2 * wanted**2)  # sqrt 2 undone: off-diagonals have half the noise
    for task in range(2):
        moved = (np.array(sums[0::2]) - np.array(sums[1::2]))[:, task]
        assert mean_square_is(moved, 2 * (wanted / weights[task]) ** 2)
    everything = differences.ravel() / (wanted * np.sqrt(2))
    assert stats.kstest(everything, "norm").pvalue > 1e-6


def test_query_one_has_noise_of_the_calibrated_scale() -> None:
    class Spy:
        """Records what is asked of the noise source."""

        def __init__(self) -> None:
            self.scales: list[float] = []

        def reserve(self, query: object, events: object) -> None:
            """Nothing is on a ledger here."""

        def discrete_normal(self, query: dict[str, str], scale: int, shape: tuple[int, ...]) -> np.ndarray:
            self.scales.append(scale * float.fromhex(query["step"]))
            return np.zeros(shape)

    clip = module.RAW_CLIP_SHARE * 0.5 * np.sqrt(6)

    def centred(noise: NoiseSource) -> np.ndarray:
        sums = module.ask_sums(blocks, SHARE, 6, clip, 1.0, MULTIPLIERS[0], noise, {})
        return sums.standardiser(PHI, 1.0).centre

    spy = Spy()
    centre = centred(spy)  # type: ignore[arg-type]
    sensitivity = centre_sensitivity(clip, 1.0, module.COUNT_WEIGHT * clip, 1.0)
    assert spy.scales == [rounded_up(MULTIPLIERS[0] * sensitivity * (1 + ROOM), grid_step(sensitivity, 13))]
    # without noise the answer is the mean of the rows (none is longer than the clip norm: 0.4 sqrt 6 < 0.75 sqrt 6 / 2
    # does not hold for the longest, so compare with the clipped ones)
    np.testing.assert_allclose(centre, module.clipped(ROWS, clip).mean(axis=0), atol=1e-6)
    centres = np.array([centred(source(k)) for k in range(80)])
    expected = spy.scales[0] / 200  # to first order: noise of the sum over the true count
    assert 0.3 * expected < centres.std() < 3 * expected


def test_noise_of_the_two_queries_and_of_their_entries_is_uncorrelated() -> None:
    scaler = module.Standardiser(np.zeros(6), np.ones(6))
    packed = np.array(
        [
            pack_symmetric(module._ask_moments(blocks, SHARE, SIGNS, scaler, 1.0, MULTIPLIERS[1], source(k), {})[0][0])
            for k in range(REPEATS)
        ]
    )
    correlation = np.corrcoef(packed.T)[np.triu_indices(28, 1)]
    # a sample correlation of independent normals is about N(0, 1 / n): 378 of them, 5.5 deviations
    assert np.abs(correlation).max() < 5.5 / np.sqrt(REPEATS)


def test_answers_lie_on_a_grid_that_does_not_depend_on_the_data() -> None:
    exact = np.random.default_rng(0).normal(size=1000) * np.logspace(-9, 5, 1000)
    step = grid_step(2.0, exact.size)
    answer, scale = noisy_answer(exact, 2.0, 4.0, source(1), {"q": 1})
    assert np.log2(step) == np.round(np.log2(step))
    np.testing.assert_array_equal(answer / step, np.rint(answer / step))
    # the discrete Gaussian mechanism on the rounded sum, and nothing of the sum but that
    steps = round(scale / step)
    drawn = source(1).discrete_normal({"q": 1, "step": step.hex()}, steps, exact.shape)
    np.testing.assert_array_equal(answer, (np.rint(exact / step) + drawn) * step)
    assert steps * step == scale
    assert 0 <= scale - 2.0 * 4.0 * (1 + ROOM) < step
    assert np.abs(answer - exact - drawn * step).max() <= step / 2 * (1 + 1e-6)


def test_low_bits_tell_two_sums_apart_without_the_grid_and_not_with_it() -> None:
    """The attack: noise is scale times one of 2^52 quantiles, so of an answer only some sums can be the origin.

    The exact sums 0 and 1/3 differ by far less than the noise. Without a grid an attacker who tries both names the
    right one by asking whether the answer less the sum is a product of the scale; on the grid both always fit.
    """
    uniforms = (np.random.default_rng(3).integers(0, 2**30, 400) + 0.5) * 2.0**-30  # 2^30 show it as 2^52 would
    scale = 40.0
    bare = 1 / 3 + scale * stats.norm.ppf(uniforms)

    def fits(guess: float) -> np.ndarray:
        wanted = (bare - guess) / scale
        nearest = stats.norm.ppf((np.floor(stats.norm.cdf(wanted) * 2.0**30) + 0.5) * 2.0**-30)
        return np.asarray(np.abs(nearest - wanted) <= 1e-12)

    assert fits(1 / 3).all()
    assert fits(0.0).mean() < 0.05
    answers = noisy_answer(np.full(400, 1 / 3), 10.0, 4.0, source(2), {"q": 2})[0]
    step = grid_step(10.0, 400)
    for guess in (1 / 3, 0.0):  # the noise that would lead from either sum to the answers is a whole number of steps
        wanted = answers / step - np.rint(guess / step)
        np.testing.assert_array_equal(wanted, np.rint(wanted))


def test_rounding_stays_within_its_room() -> None:
    """Neighbours' rounded sums are never farther apart than the sensitivity and half the room."""
    draws = np.random.default_rng(4)
    for size in (1, 50, 4000):
        step = grid_step(3.0, size)
        assert step * np.sqrt(size) <= 3.0 * ROOM / 2
        assert 2 * step * np.sqrt(size) > 3.0 * ROOM / 2
        for _ in range(20):
            one = draws.normal(size=size) * 100
            move = draws.normal(size=size)
            two = one + 3.0 * move / np.linalg.norm(move)
            apart = np.linalg.norm(np.rint(one / step) - np.rint(two / step)) * step
            assert apart <= 3.0 * (1 + ROOM / 2)
