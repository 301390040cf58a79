"""The projection keeps lengths and distances as theory says, over keys; tolerances are derived, keys are fixed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta, chi2, kstest

from encoders.projection import RandomProjectionEncoder
from encoders.quantum import QuantumEncoder
from encoders.random_matrices import Distribution, MatrixLaw
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance, Task

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


@pytest.mark.parametrize(("distribution", "density"), [("rademacher", 1.0), ("sparse", None), ("sparse", 1 / 3)])
def test_signs_keep_length_on_average(distribution: Distribution, density: float | None) -> None:
    """Bernstein: the mean of n ratios in [0, b] with variance v is off by > t with p <= 2 exp(-n t^2 / 2(v + bt/3)).

    For entries 0 or +-1 / sqrt(d k): v = (2 + (1/d - 3) sum u^4) / k, u = x / ||x|| (Li, Hastie & Church 2006),
    and b = window / d by Cauchy-Schwarz, row by row.
    """
    window, components, draws = 16, 8, 20_000
    law = MatrixLaw(distribution, components, window, density if distribution == "sparse" else None)
    share = 1 / math.sqrt(window) if density is None else density
    u = np.random.default_rng(2).random(window)
    u /= np.linalg.norm(u)
    ratios = np.sum((law.draw(bytes(32), "lengths", draws) @ u) ** 2, axis=1)
    variance = (2 + (1 / share - 3) * np.sum(u**4)) / components
    log_term = 2 * math.log(2 / FALSE_ALARM) / draws
    half = log_term * window / share / 6
    tolerance = half + math.sqrt(half**2 + log_term * variance)  # the positive root of the bound's quadratic
    assert tolerance < 0.05
    assert abs(np.mean(ratios) - 1) <= tolerance
    assert abs(np.var(ratios) / variance - 1) < 0.15  # the variance itself, loosely: its own spread is near 1 %


def test_orthogonal_lengths_are_beta() -> None:
    """A Haar-random subspace keeps a Beta(k/2, (w-k)/2) share of the squared length."""
    window, components = 16, 6
    x = np.random.default_rng(2).random(window)
    encoder = RandomProjectionEncoder(window=window, distribution="orthogonal", n_components=components)
    shares = [
        float(np.sum((encoder.matrix(key(i)) @ x) ** 2) / np.sum(x**2)) * components / window for i in range(1000)
    ]
    assert kstest(shares, beta(components / 2, (window - components) / 2).cdf).pvalue > FALSE_ALARM


@pytest.mark.parametrize(
    ("distribution", "density"), [("gaussian", None), ("orthogonal", None), ("rademacher", None), ("sparse", 1 / 3)]
)
def test_all_distances_of_a_small_set_are_kept(distribution: Distribution, density: float | None) -> None:
    """Johnson-Lindenstrauss: P(one distance off by > eps) <= 2 exp(-k (eps^2 / 4 - eps^3 / 6)); union over pairs.

    Gaussian and orthogonal: Dasgupta & Gupta 2003, lemma 2.2. Signs, and signs with a third of the entries: Achlioptas
    2003, theorem 1.1. Li's sparser default has this only in the limit, hence the test of its mean and variance above.
    """
    stays, steps, channels, eps = 20, 16, 32, 0.5
    pairs = stays * (stays - 1) // 2
    components = math.ceil(math.log(2 * pairs / FALSE_ALARM) / (eps**2 / 4 - eps**3 / 6))
    assert components < steps * channels
    features = np.random.default_rng(3).random((stays, steps, channels))
    encoder = RandomProjectionEncoder(
        axis="record", distribution=distribution, density=density, n_components=components
    )
    encoded = encoder.fit(cohort_of(features), key(0)).encode_array(features)
    ratio = (distances(encoded) / distances(features)) ** 2
    assert np.all(np.abs(ratio - 1) <= eps)


def test_a_square_orthogonal_matrix_keeps_every_distance() -> None:
    features = np.random.default_rng(4).random((20, 12, 8))
    for axis, window in (("time", 4), ("variables", 8), ("record", 4)):
        encoder = RandomProjectionEncoder(window=window, axis=axis, distribution="orthogonal")
        encoded = encoder.fit(cohort_of(features), key(1)).encode_array(features)
        np.testing.assert_allclose(distances(encoded), distances(features), rtol=1e-12)


def distances(series: np.ndarray) -> np.ndarray:
    """Between all pairs of stays."""
    rows = series.reshape(len(series), -1)
    first, second = np.triu_indices(len(rows), 1)
    return np.asarray(np.linalg.norm(rows[first] - rows[second], axis=1))


def cohort_of(features: np.ndarray) -> EncodedCohort:
    stays = len(features)
    return EncodedCohort(
        features=features.astype(np.float32),
        labels=np.zeros((stays, 1), np.float32),
        subject_index=np.arange(stays, dtype=np.int32),
        split=np.zeros(stays, np.int8),
        channels=tuple(f"c{index}" for index in range(features.shape[2])),
        tasks=(Task("death"),),
        step_hours=1.0,
        transforms=(),
        provenance=Provenance(stage="prepare"),
    )


def test_quantum_angles_are_uniform_over_keys() -> None:
    angles = np.concatenate([QuantumEncoder().parameters(key(i)).weights.ravel() for i in range(500)])
    assert kstest(angles / (2 * math.pi), "uniform").pvalue > FALSE_ALARM
