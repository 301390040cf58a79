"""The projection keeps lengths and distances as theory says, over keys; tolerances are derived, keys are fixed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta, chi2, kstest

from encoders.projection import Distribution, RandomProjectionEncoder
from encoders.quantum import QuantumEncoder
from pipeline.core.secrets import Secret

FALSE_ALARM = 1e-6  # chance that a correct encoder fails a test below, had the keys been drawn afresh


def key(index: int) -> Secret:
    return Secret(index.to_bytes(32, "little"), "encoder")


@pytest.mark.parametrize(("window", "components"), [(4, 4), (48, 12)])
def test_gaussian_lengths_are_chi_square(window: int, components: int) -> None:
    """components * ||M x||^2 / ||x||^2 is chi-square with `components` degrees; independent keys add degrees."""
    x = np.random.default_rng(1).random(window)
    encoder = RandomProjectionEncoder(window=window, n_components=components)
    lengths = [float(np.sum((encoder.matrix(key(i)) @ x) ** 2) / np.sum(x**2)) for i in range(400)]
    degrees = 400 * components
    low, high = chi2.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], degrees)
    assert low <= components * sum(lengths) <= high
    assert kstest(np.array(lengths) * components, chi2(components).cdf).pvalue > FALSE_ALARM


def test_rademacher_keeps_length_on_average() -> None:
    """Bernstein: the mean of n ratios in [0, b] with variance <= v is off by > t with p <= 2 exp(-n t^2 / 2(v + bt/3)).

    Here v = 2 / components (Achlioptas 2003) and b = ||M||_F^2 = window.
    """
    window, components, keys = 16, 8, 4000
    x = np.random.default_rng(2).random(window)
    encoder = RandomProjectionEncoder(window=window, distribution="rademacher", n_components=components)
    ratios = [float(np.sum((encoder.matrix(key(i)) @ x) ** 2) / np.sum(x**2)) for i in range(keys)]
    log_term = 2 * math.log(2 / FALSE_ALARM) / keys
    half = log_term * window / 6
    tolerance = half + math.sqrt(half**2 + log_term * 2 / components)  # the positive root of the bound's quadratic
    assert tolerance < 0.07
    assert abs(np.mean(ratios) - 1) <= tolerance


def test_orthogonal_lengths_are_beta() -> None:
    """A Haar-random subspace keeps a Beta(k/2, (w-k)/2) share of the squared length."""
    window, components = 16, 6
    x = np.random.default_rng(2).random(window)
    encoder = RandomProjectionEncoder(window=window, distribution="orthogonal", n_components=components)
    shares = [
        float(np.sum((encoder.matrix(key(i)) @ x) ** 2) / np.sum(x**2)) * components / window for i in range(1000)
    ]
    assert kstest(shares, beta(components / 2, (window - components) / 2).cdf).pvalue > FALSE_ALARM


def test_all_distances_of_a_small_set_are_kept() -> None:
    """Johnson-Lindenstrauss: P(one distance off by > eps) <= 2 exp(-k (eps^2 / 4 - eps^3 / 6)); union over pairs."""
    points, window, eps = 20, 512, 0.5
    pairs = points * (points - 1) // 2
    components = math.ceil(math.log(2 * pairs / FALSE_ALARM) / (eps**2 / 4 - eps**3 / 6))
    assert components < window
    x = np.random.default_rng(3).random((points, window))
    distributions: tuple[Distribution, ...] = ("gaussian", "rademacher")
    for distribution in distributions:
        encoder = RandomProjectionEncoder(window=window, distribution=distribution, n_components=components)
        y = x @ encoder.matrix(key(0)).T
        first, second = np.triu_indices(points, 1)
        ratio = np.sum((y[first] - y[second]) ** 2, axis=1) / np.sum((x[first] - x[second]) ** 2, axis=1)
        assert np.all(np.abs(ratio - 1) <= eps)


def test_quantum_angles_are_uniform_over_keys() -> None:
    angles = np.concatenate([QuantumEncoder().parameters(key(i)).weights.ravel() for i in range(500)])
    assert kstest(angles / (2 * math.pi), "uniform").pvalue > FALSE_ALARM
