"""Noise on an encoding: the law it has, where it comes from, and what it costs."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from scipy.special import bdtr
from scipy.stats import binom, chisquare, kstest

from encoders import randomise
from encoders.randomise import MAX_SHOTS, OutputNoise, measured, randomised
from pipeline.core.errors import ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret

SECRET = Secret(bytes(range(32)), "noise")
NOISE = NoiseSource(SECRET, "a cohort")
SPEC = {"kind": "quantum", "window": 4}
RARE = 1e-6  # the draws are fixed by the secret: a correct implementation fails with this probability, once and for all


def drawn(z: float, shots: int, n: int) -> np.ndarray:
    return measured(np.full(n, z), shots, NOISE, {"z": z})


def cells_of(expected: np.ndarray) -> np.ndarray:
    """Neighbouring counts share a cell until it expects 10; what is left over joins the last cell."""
    cells, cell, mass = [], 0, 0.0
    for value in expected:
        cells.append(cell)
        mass += value
        if mass >= 10:
            cell, mass = cell + 1, 0.0
    return np.minimum(cells, max(cell - 1, 0))


@pytest.mark.parametrize("shots", [1, 3, 8, 9, 40, 1000])
@pytest.mark.parametrize("z", [-0.999, -0.6, 0.0, 0.37])
def test_the_number_of_ones_is_binomial(z: float, shots: int) -> None:
    """Pearson's chi-square over cells that expect at least 10 (rarer ones merged), at both ways of drawing."""
    n = 30_000
    ones = np.rint((drawn(z, shots, n) + 1) / 2 * shots).astype(int)
    expected = n * binom.pmf(np.arange(shots + 1), shots, (1 + z) / 2)
    found = np.bincount(ones, minlength=shots + 1)
    cells = cells_of(expected)
    merged_found, merged_expected = np.bincount(cells, found), np.bincount(cells, expected)
    assert merged_found.sum() == n
    assert chisquare(merged_found, merged_expected * n / merged_expected.sum()).pvalue > RARE


def test_a_biased_draw_would_be_found() -> None:
    """The same test's power: z off by .03 at these n is refused."""
    n, shots = 30_000, 40
    ones = np.rint((drawn(0.40, shots, n) + 1) / 2 * shots).astype(int)
    edges = np.arange(20, 36)
    found = np.bincount(np.digitize(ones, edges), minlength=len(edges) + 1)
    cumulative = np.concatenate([[0.0], binom.cdf(edges - 1, shots, (1 + 0.37) / 2), [1.0]])
    assert chisquare(found, n * np.diff(cumulative)).pvalue < RARE


@pytest.mark.parametrize("shots", [9, 100, 5000, MAX_SHOTS])
def test_many_shots_are_the_smallest_count_that_the_uniform_allows(shots: int) -> None:
    """F(k - 1) < u <= F(k) up to the last digits of F, down to probabilities of 1e-12."""
    z = np.concatenate([np.linspace(-1, 1, 2001), -1 + np.logspace(-12, -2, 200)])
    u = NOISE.uniform({"z": "grid"}, z.shape)
    k = np.rint((measured(z, shots, NOISE, {"z": "grid"}) + 1) / 2 * shots)
    p = (1 + z) / 2
    assert (bdtr(k, shots, p) >= u * (1 - 1e-12)).all()
    assert (bdtr(np.maximum(k - 1, 0), shots, p)[k > 0] <= u[k > 0] * (1 + 1e-12)).all()
    assert (np.diff(k[z == 1]) == 0).all()


def test_certain_outcomes_stay_certain() -> None:
    for shots in (1, 8, 9, 1000):
        assert (drawn(1.0, shots, 500) == 1).all()
        assert (drawn(-1.0, shots, 500) == -1).all()
        assert (drawn(1 + 1e-6, shots, 500) == 1).all()  # float32 rounding of an expectation


def test_the_mean_is_kept_and_outputs_are_independent() -> None:
    n = 40_000
    encoded = np.tile(np.array([0.5, -0.2]), n // 2).reshape(1, -1, 1)
    for how in (OutputNoise(noise_sd=0.3), OutputNoise(shots=5), OutputNoise(shots=64, noise_sd=0.1)):
        noisy = randomised(encoded.copy(), how, NOISE, SPEC)
        for first in (0, 1):
            z = encoded[0, first, 0]
            variance = how.noise_sd**2 + (0 if how.shots is None else (1 - z**2) / how.shots)
            sample = noisy[0, first::2, 0] - z
            # five standard errors, of the mean and of the variance (kurtosis at most 3: binomial and normal)
            assert abs(sample.mean()) < 5 * np.sqrt(variance / (n / 2))
            assert abs(sample.var() / variance - 1) < 5 * np.sqrt(2 / (n / 2))
        residual = (noisy - encoded)[0, :, 0]
        for lag in (1, 2, 3):
            assert abs(np.corrcoef(residual[lag:], residual[:-lag])[0, 1]) < 5 / np.sqrt(n)


def test_gaussian_noise_is_gaussian() -> None:
    noisy = randomised(np.zeros((2, 5000, 2)), OutputNoise(noise_sd=0.7), NOISE, SPEC)
    assert kstest(noisy.ravel() / 0.7, "norm").pvalue > RARE


@pytest.mark.parametrize("how", [OutputNoise(noise_sd=0.1), OutputNoise(shots=4), OutputNoise(shots=100)])
def test_noise_replays_and_is_the_cohorts_and_the_sites_own(how: OutputNoise) -> None:
    encoded = np.linspace(-0.9, 0.9, 600).reshape(2, 50, 6)
    first = randomised(encoded.copy(), how, NOISE, SPEC)
    np.testing.assert_array_equal(first, randomised(encoded.copy(), how, NOISE, SPEC))
    others = [
        randomised(encoded.copy(), how, NoiseSource(SECRET, "another cohort"), SPEC),
        randomised(encoded.copy(), how, NoiseSource(Secret(bytes(32), "noise"), "a cohort"), SPEC),
        randomised(encoded.copy(), how, NOISE, {**SPEC, "key_fingerprint": "another"}),
    ]
    for other in others:
        assert abs(np.corrcoef((first - encoded).ravel(), (other - encoded).ravel())[0, 1]) < 5 / np.sqrt(600)


def test_another_number_of_shots_draws_other_uniforms() -> None:
    """Were the uniforms shared, two releases would tell more than two independent looks."""
    encoded = np.zeros((1, 5000, 1))
    looks = [randomised(encoded.copy(), OutputNoise(shots=n), NOISE, SPEC).ravel() for n in (100, 101)]
    assert abs(np.corrcoef(looks[0], looks[1])[0, 1]) < 5 / np.sqrt(5000)


def test_blocks_do_not_repeat_each_others_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomise, "_BLOCK_VALUES", 1000)
    for how in (OutputNoise(noise_sd=1.0), OutputNoise(shots=3), OutputNoise(shots=50)):
        noisy = randomised(np.zeros((1, 2000, 1)), how, NOISE, SPEC).ravel()
        assert abs(np.corrcoef(noisy[:1000], noisy[1000:])[0, 1]) < 5 / np.sqrt(1000)


def test_float32_stays_float32_and_no_noise_is_no_change() -> None:
    encoded = np.linspace(-1, 1, 30, dtype=np.float32).reshape(1, 10, 3)
    for how in (OutputNoise(noise_sd=0.1), OutputNoise(shots=10)):
        assert randomised(encoded.copy(), how, NOISE, SPEC).dtype == np.float32
    assert randomised(encoded, OutputNoise(), None, SPEC) is encoded
    assert not OutputNoise().is_random


def test_noise_that_cannot_be_is_refused() -> None:
    for options in ({"noise_sd": -0.1}, {"noise_sd": float("nan")}, {"shots": 0}, {"shots": MAX_SHOTS + 1}):
        with pytest.raises(ConfigError):
            OutputNoise(**options)
    with pytest.raises(ConfigError, match="noise source"):
        randomised(np.zeros((1, 1, 1)), OutputNoise(shots=1), None, SPEC)
    with pytest.raises(ConfigError, match="quantum"):
        randomised(np.full((1, 1, 1), 1.5), OutputNoise(shots=1), NOISE, SPEC)


def test_what_a_receiver_is_told() -> None:
    assert OutputNoise().public_spec() == {"kind": "none"}
    assert OutputNoise(noise_sd=0.2).public_spec() == {"kind": "gaussian", "noise_sd": 0.2}
    assert OutputNoise(shots=7).public_spec() == {"kind": "shots", "shots": 7}
    assert OutputNoise(0.2, 7).public_spec() == {"kind": "shots", "shots": 7, "noise_sd": 0.2}


@pytest.mark.parametrize("shots", [8, 1024])
def test_memory_stays_flat_and_a_large_cohort_takes_a_minute_or_two(shots: int) -> None:
    """3 blocks; 17 million outputs (8,000 stays x 48 steps x 44 channels) at this speed."""
    encoded = np.random.default_rng(0).uniform(-1, 1, (3, 1 << 20, 1)).astype(np.float32)
    tracemalloc.start()
    start = time.process_time()
    randomised(encoded[:1] if shots > 8 else encoded, OutputNoise(shots=shots), NOISE, SPEC)
    seconds = time.process_time() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 128 * 2**20
    assert seconds * 17 / (1 if shots > 8 else 3) < 180
