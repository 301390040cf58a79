"""No measured attack beats the van Trees bound; the best possible one comes close; a wrong bound is beaten.

Windows are drawn from the stated prior, so the bound holds for the mean squared error over the draws. The error of N
windows is measured with a standard error (the spread of their mean squared errors / sqrt N); a bound is beaten when the
measured figure lies more than `SIGMAS` standard errors below it. With some 60 comparisons a correct bound is beaten by
chance with probability below 60 * P(N(0, 1) < -4) = .002, once and for all, as every draw is seeded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from encoder_calibrate import calibrate
from scipy.special import xlog1py, xlogy

from encoders.fisher import jacobian, prior_quantile
from encoders.leakage import bayes_rmse, exposure
from encoders.projection import RandomProjectionEncoder
from encoders.quantum import QuantumEncoder
from encoders.randomise import OutputNoise, randomised
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance

WindowMap = Callable[[np.ndarray], np.ndarray]
SIGMAS = 4
WIDTH, N_WINDOWS = 4, 12
N_TARGETS, N_DRAWS = 200, 100_000
NOISE = NoiseSource(Secret(bytes(range(32)), "noise"), "a cohort")
SPEC = {"kind": "test"}
COHORT = EncodedCohort(
    features=np.zeros((1, 48, 1), np.float32),
    labels=np.zeros((1, 0), np.float32),
    subject_index=np.zeros(1, np.int32),
    split=np.zeros(1, np.int8),
    channels=("c",),
    tasks=(),
    step_hours=1.0,
    transforms=(),
    provenance=Provenance(stage="prepare"),
)


def window_map(encoder: QuantumEncoder | RandomProjectionEncoder, key: int = 1) -> WindowMap:
    return encoder.fit(COHORT, Secret(key.to_bytes(32, "little"), "encoder")).window_map


QUANTUM = window_map(QuantumEncoder())
PROJECTION = window_map(RandomProjectionEncoder(distribution="orthogonal"))
SETTINGS = [
    pytest.param(encode, how, id=f"{name} {how.public_spec()}")
    for name, encode, hows in (
        ("quantum", QUANTUM, [OutputNoise(0.02), OutputNoise(0.1), OutputNoise(0.5), OutputNoise(2.0)]),
        ("quantum", QUANTUM, [OutputNoise(shots=2), OutputNoise(shots=100), OutputNoise(0.2, 10)]),
        ("projection", PROJECTION, [OutputNoise(0.02), OutputNoise(0.1), OutputNoise(0.5), OutputNoise(2.0)]),
    )
    for how in hows
]


@dataclass(frozen=True)
class Measured:
    """Mean squared error per value of an attack, with its standard error."""

    mse: float
    error: float

    def beats(self, rmse: float) -> bool:
        return self.mse + SIGMAS * self.error < rmse**2


def measured(estimate: np.ndarray, truth: np.ndarray) -> Measured:
    each = ((estimate - truth) ** 2).mean(axis=1)
    return Measured(float(each.mean()), float(each.std(ddof=1) / np.sqrt(len(each))))


def log_likelihood(seen: np.ndarray, outputs: np.ndarray, how: OutputNoise) -> np.ndarray:
    """`(target, draw)`, up to a constant: what the attacker knows of the noise, exactly unless both kinds are on."""
    if how.shots is not None and how.noise_sd == 0:
        ones, p = (seen + 1) / 2 * how.shots, np.clip((1 + outputs) / 2, 1e-12, 1 - 1e-12)
        return np.asarray(ones @ np.log(p).T + (how.shots - ones) @ np.log1p(-p).T)
    variance = how.noise_sd**2 + (0.0 if how.shots is None else (1 - outputs**2) / how.shots)
    variance = np.broadcast_to(variance, outputs.shape)
    quadratic = seen**2 @ (1 / variance).T - 2 * seen @ (outputs / variance).T + (outputs**2 / variance).sum(axis=1)
    return np.asarray(-0.5 * (quadratic + np.log(variance).sum(axis=1)))


def posterior_mean(seen: np.ndarray, outputs: np.ndarray, plain: np.ndarray, how: OutputNoise) -> np.ndarray:
    """The Bayes-optimal attacker: importance sampling over draws of the prior (target by target in blocks)."""
    means = []
    for start in range(0, len(seen), 50):
        fit = log_likelihood(seen[start : start + 50], outputs, how)
        weight = np.exp(fit - fit.max(axis=1, keepdims=True))
        means.append(weight @ plain / weight.sum(axis=1, keepdims=True))
    return np.concatenate(means)


def most_probable(encode: WindowMap, seen: np.ndarray, start: np.ndarray, how: OutputNoise) -> np.ndarray:
    """Gauss-Newton on the log posterior (noise taken as Gaussian of its mean variance), accepted where it improves."""
    x = np.clip(start, 0.01, 0.99)
    outputs = encode(x)
    variance = how.noise_sd**2 + (0.0 if how.shots is None else float(np.mean(1 - outputs**2)) / how.shots)

    def loss(windows: np.ndarray, at: np.ndarray) -> np.ndarray:
        prior = np.log1p(-np.cos(2 * np.pi * windows)).sum(axis=1)
        return np.asarray(((seen - at) ** 2).sum(axis=1) / (2 * variance) - prior)

    for _ in range(20):
        outputs, slopes = jacobian(encode, x)
        gradient = np.einsum("nki,nk->ni", slopes, outputs - seen) / variance - 2 * np.pi / np.tan(np.pi * x)
        curvature = np.einsum("nki,nkj->nij", slopes, slopes) / variance
        curvature += (2 * np.pi**2 / np.sin(np.pi * x) ** 2)[:, :, None] * np.eye(x.shape[1])
        trial = np.clip(x - np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0], 0.01, 0.99)
        better = loss(trial, encode(trial)) < loss(x, outputs)
        x[better] = trial[better]
    return np.asarray(x)


def attacks_on_windows(encode: WindowMap, how: OutputNoise) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(11)
    truth = prior_quantile(rng.random((N_TARGETS, WIDTH)))
    seen = randomised(encode(truth)[None].copy(), how, NOISE, SPEC)[0]
    plain = prior_quantile(rng.random((N_DRAWS, WIDTH)))
    outputs = encode(plain)
    nearest = plain[np.argmin((outputs**2).sum(axis=1) - 2 * seen @ outputs.T, axis=1)]
    found = {
        "posterior mean": posterior_mean(seen, outputs, plain, how),
        "nearest neighbour": nearest,
        "most probable window": most_probable(encode, seen, nearest, how),
        "half way to the nearest neighbour": 0.5 + 0.5 * (nearest - 0.5),
        "middle of the range": np.full_like(truth, 0.5),
    }
    return found, truth


def attacks_on_constant_series(encode: WindowMap, how: OutputNoise) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """One level behind `N_WINDOWS` windows; the posterior by a fine grid of levels."""
    rng = np.random.default_rng(12)
    level = prior_quantile(rng.random((4 * N_TARGETS, 1)))
    clean = np.repeat(encode(np.repeat(level, WIDTH, axis=1))[:, None], N_WINDOWS, axis=1)
    seen = randomised(clean.copy(), how, NOISE, SPEC)
    grid = (np.arange(4000) + 0.5)[:, None] / 4000
    outputs = encode(np.repeat(grid, WIDTH, axis=1))
    fit = sum(log_likelihood(seen[:, window], outputs, how) for window in range(N_WINDOWS))
    fit = fit + np.log1p(-np.cos(2 * np.pi * grid[:, 0]))
    weight = np.exp(fit - fit.max(axis=1, keepdims=True))
    average = seen.mean(axis=1)
    nearest = np.argmin(((average[:, None] - outputs[None]) ** 2).sum(axis=2), axis=1)
    found = {
        "posterior mean": weight @ grid / weight.sum(axis=1, keepdims=True),
        "most probable level": grid[np.argmax(fit, axis=1)],
        "nearest to the average": grid[nearest],
        "middle of the range": np.full_like(level, 0.5),
    }
    return found, level


@pytest.mark.parametrize(("encode", "how"), SETTINGS)
def test_no_attack_on_windows_beats_the_bound(encode: WindowMap, how: OutputNoise) -> None:
    bound = bayes_rmse(exposure(encode, WIDTH, N_WINDOWS, "independent_values"), how)
    attacks, truth = attacks_on_windows(encode, how)
    for name, estimate in attacks.items():
        assert not measured(estimate, truth).beats(bound), name


@pytest.mark.parametrize(("encode", "how"), SETTINGS)
def test_no_attack_on_a_constant_series_beats_the_bound(encode: WindowMap, how: OutputNoise) -> None:
    bound = bayes_rmse(exposure(encode, WIDTH, N_WINDOWS, "constant_series"), how)
    attacks, truth = attacks_on_constant_series(encode, how)
    for name, estimate in attacks.items():
        assert not measured(estimate, truth).beats(bound), name


@pytest.mark.parametrize("how", [OutputNoise(0.1), OutputNoise(0.2), OutputNoise(0.5), OutputNoise(2.0)])
def test_the_bound_is_not_vacuous_for_a_linear_map(how: OutputNoise) -> None:
    """The Bayes-optimal attacker's error is within 10 % of it."""
    for case, attack in (
        ("independent_values", attacks_on_windows),
        ("constant_series", attacks_on_constant_series),
    ):
        bound = bayes_rmse(exposure(PROJECTION, WIDTH, N_WINDOWS, case), how)  # type: ignore[arg-type]
        attacks, truth = attack(PROJECTION, how)
        best = measured(attacks["posterior mean"], truth)
        assert (best.mse - SIGMAS * best.error) ** 0.5 < 1.1 * bound


def test_a_wrong_bound_on_windows_is_beaten() -> None:
    """The positive control: a tenth of the information. (Linear: circuits need not be one-to-one.)"""
    how = OutputNoise(0.1)
    wrong = bayes_rmse(exposure(PROJECTION, WIDTH, N_WINDOWS, "independent_values"), OutputNoise(0.1 * 10**0.5))
    attacks, truth = attacks_on_windows(PROJECTION, how)
    assert measured(attacks["posterior mean"], truth).beats(wrong)


@pytest.mark.parametrize("encode", [QUANTUM, PROJECTION])
def test_a_wrong_bound_on_a_constant_series_is_beaten(encode: WindowMap) -> None:
    how = OutputNoise(0.1)
    wrong = bayes_rmse(exposure(encode, WIDTH, N_WINDOWS, "constant_series"), OutputNoise(0.1 * 10**0.5))
    attacks, truth = attacks_on_constant_series(encode, how)
    assert measured(attacks["posterior mean"], truth).beats(wrong)


def test_one_windows_bound_does_not_hold_for_twelve() -> None:
    """The trap: values carried forward are looked at again and again."""
    attacks, truth = attacks_on_constant_series(PROJECTION, OutputNoise(0.1))
    for case in ("independent_values", "constant_series"):
        one = bayes_rmse(exposure(PROJECTION, WIDTH, 1, case), OutputNoise(0.1))
        assert measured(attacks["posterior mean"], truth).beats(one)


def test_a_calibrated_encoding_keeps_its_word() -> None:
    for encode in (QUANTUM, PROJECTION):
        how = calibrate(0.08, encode, WIDTH, N_WINDOWS)
        attacks, truth = attacks_on_constant_series(encode, how)
        for name, estimate in attacks.items():
            assert not measured(estimate, truth).beats(0.08), name
        best = measured(attacks["posterior mean"], truth)
        assert best.mse**0.5 < 2 * 0.08  # and it did not buy far more than was asked


def test_the_attackers_likelihood_of_shots_is_the_binomials() -> None:
    """A weak attack would prove nothing: the likelihood against one written out."""
    seen, outputs = np.array([[0.5, -1.0]]), np.array([[0.3, -0.2], [0.9, 0.1]])
    ones, p = (seen + 1) * 4, (1 + outputs) / 2
    expected = [sum(xlogy(ones[0], p[i]) + xlog1py(8 - ones[0], -p[i])) for i in range(2)]
    np.testing.assert_allclose(log_likelihood(seen, outputs, OutputNoise(shots=8))[0], expected)


def test_the_published_curves_beat_no_bound() -> None:
    """benchmarks/encoder_noise.py, on real stays: ten levels each, from none to useless."""
    path = Path(__file__).parents[2] / "benchmarks" / "results" / "encoder_noise.json"
    curves = json.loads(path.read_text(encoding="utf-8"))["curves"]
    assert len(curves) == 3
    for rows in curves.values():
        assert len(rows) == 10
        for row in rows:
            for prior, figures in row["bounds"].items():
                assert figures["keys_whose_bound_is_beaten"] == 0, (row["noise"], prior)
        errors = [row["bounds"]["constant series"]["bound_rmse"] for row in rows]
        assert errors == sorted(errors)
        assert errors[0] == 0
