"""Attackers who hold the key, for `encoder_noise.py`: what noise leaves them, beside the van Trees bounds.

All of them know the encoder, the law of the noise, and patients of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from encoders.fisher import WindowMap, jacobian, output_information, prior_quantile
from encoders.randomise import OutputNoise
from pipeline.core.seeds import generator

WIDTH = 4
OWN_WINDOWS = 800  # per channel, in the attacker's dictionary
OWN_LEVELS = 300
RESOLUTION = 0.01  # a dictionary is no finer: added to the noise, which helps the attacker where noise is small
REFINED_BELOW = 0.05
PRIOR_DRAWS = 20_000
PRIOR_WINDOWS = 300
PRIOR_LEVELS = 1_000
DITHER = 0.05
DITHERED_PER_CHANNEL = 60
WAVES = 32


@dataclass(frozen=True)
class Figure:
    """Mean squared error per value with its standard error (over targets)."""

    mse: float
    error: float

    @property
    def rmse(self) -> float:
        return math.sqrt(self.mse)


def figure_of(squared_errors: np.ndarray) -> Figure:
    """Of one mean squared error per target."""
    return Figure(float(squared_errors.mean()), float(squared_errors.std(ddof=1) / math.sqrt(len(squared_errors))))


def with_noise(outputs: np.ndarray, how: OutputNoise, random: np.random.Generator) -> np.ndarray:
    """The same law as `encoders.randomise`, from a fast generator: a benchmark's noise is no secret."""
    noisy = outputs
    if how.shots is not None:
        ones = random.binomial(how.shots, np.clip((1.0 + outputs) / 2.0, 0.0, 1.0))
        noisy = (2.0 * ones / how.shots - 1.0).astype(outputs.dtype)
    if how.noise_sd:
        noisy = noisy + how.noise_sd * random.standard_normal(outputs.shape, dtype=outputs.dtype)
    return noisy


def noise_variance(outputs: np.ndarray, how: OutputNoise) -> np.ndarray:
    """Of every output."""
    shots = 0.0 if how.shots is None else (1.0 - outputs**2) / how.shots
    return np.asarray(how.noise_sd**2 + shots + np.zeros_like(outputs))


def log_likelihood(seen: np.ndarray, outputs: np.ndarray, how: OutputNoise) -> np.ndarray:
    """`(target, candidate)` up to a constant per target: binomial for shots alone, else Gaussian."""
    if how.shots is not None and how.noise_sd == 0 and how.shots <= 1000:
        ones, p = (seen + 1) / 2 * how.shots, np.clip((1 + outputs) / 2, 1e-9, 1 - 1e-9)
        return np.asarray(ones @ np.log(p).T + (how.shots - ones) @ np.log1p(-p).T)
    variance = noise_variance(outputs, how) + RESOLUTION**2
    fit = seen**2 @ (1 / variance).T - 2 * seen @ (outputs / variance).T + (outputs**2 / variance).sum(axis=1)
    return np.asarray(-0.5 * (fit + np.log(variance).sum(axis=1)))


def posterior_mean(fit: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Candidates averaged by their likelihood: candidates are draws of the attacker's prior."""
    return np.asarray(np.exp(fit - logsumexp(fit, axis=1, keepdims=True)) @ candidates)


def attacks_on_a_channel(
    seen: np.ndarray, own: np.ndarray, encode: WindowMap, how: OutputNoise, random: np.random.Generator
) -> dict[str, np.ndarray]:
    """Estimates `(stay, step)` of one channel's series; seen `(stay, window, component)`, own `(own stay, step)`."""
    stays, n_windows, components = seen.shape
    flat = seen.reshape(-1, components)
    windows = own.reshape(-1, WIDTH)
    windows = windows[random.permutation(len(windows))[:OWN_WINDOWS]]
    fit = log_likelihood(flat, encode(windows), how)
    by_window = posterior_mean(fit, windows).reshape(stays, -1)
    own_encoded = encode(own.reshape(-1, WIDTH)).reshape(len(own), -1)
    found = {
        "channel mean": np.full((stays, own.shape[1]), own.mean()),
        "windows like own patients'": by_window,
        "series like own patients'": posterior_mean(log_likelihood(seen.reshape(stays, -1), own_encoded, how), own),
        "linear smoother": _smoothed(seen.reshape(stays, -1), own_encoded, own, how),
    }
    constant = np.ptp(own, axis=1) == 0
    if constant.any():
        levels = own[constant, 0][random.permutation(int(constant.sum()))[:OWN_LEVELS]]
        of_level = log_likelihood(flat, encode(np.repeat(levels[:, None], WIDTH, axis=1)), how)
        of_level = of_level.reshape(stays, n_windows, -1).sum(axis=1)
        share = (constant.sum() + 1) / (len(own) + 2)
        is_constant = logsumexp(of_level, axis=1) - math.log(len(levels)) + math.log(share)
        moving = (logsumexp(fit, axis=1) - math.log(len(windows))).reshape(stays, n_windows).sum(axis=1)
        moving += math.log(1 - share)
        weight = np.exp(is_constant - np.logaddexp(is_constant, moving))[:, None]
        found["constant or moving"] = weight * posterior_mean(of_level, levels[:, None]) + (1 - weight) * by_window
    else:
        found["constant or moving"] = by_window
    small = how.noise_sd <= REFINED_BELOW if how.shots is None else how.shots >= REFINED_BELOW**-2
    if small:
        nearest = windows[np.argmax(fit, axis=1)]
        found["gauss-newton"] = refined(encode, flat, nearest).reshape(stays, -1)
    return found


def _smoothed(seen: np.ndarray, own_encoded: np.ndarray, own: np.ndarray, how: OutputNoise) -> np.ndarray:
    """Ridge regression from a noisy encoded series to the series, trained on own patients with the noise in it."""
    centre, target = own_encoded.mean(axis=0), own.mean(axis=0)
    noise = noise_variance(own_encoded, how).mean(axis=0) + 1e-6
    shifted = own_encoded - centre
    weights = np.linalg.solve(shifted.T @ shifted / len(own) + np.diag(noise), shifted.T @ (own - target) / len(own))
    return np.asarray(np.clip(target + (seen - centre) @ weights, 0, 1))


def refined(encode: WindowMap, seen: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Damped Gauss-Newton in the unit cube (Levenberg & Marquardt), window by window."""
    x, damping = np.array(start, np.float64), np.full(len(start), 1e-3)
    loss = ((encode(x) - seen) ** 2).sum(axis=1)
    for _ in range(12):
        active = np.flatnonzero((loss > 1e-12) & (damping < 1e4))
        if not active.size:
            break
        outputs, slopes = jacobian(encode, x[active])
        normal = np.einsum("nki,nkj->nij", slopes, slopes) + damping[active, None, None] * np.eye(x.shape[1])
        gradient = np.einsum("nki,nk->ni", slopes, outputs - seen[active])
        trial = np.clip(x[active] - np.linalg.solve(normal, gradient[:, :, None])[:, :, 0], 0, 1)
        trial_loss = ((encode(trial) - seen[active]) ** 2).sum(axis=1)
        better = trial_loss < loss[active]
        x[active[better]], loss[active[better]] = trial[better], trial_loss[better]
        damping[active] *= np.where(better, 0.2, 5.0)
    return x


def prior_windows(encode: WindowMap, how: OutputNoise, seed: int) -> Figure:
    """Windows of independent values from the stated prior: the posterior mean's error."""
    random = generator(seed, "prior windows")
    truth, draws = (prior_quantile(random.random((n, WIDTH))) for n in (PRIOR_WINDOWS, PRIOR_DRAWS))
    seen = with_noise(encode(truth), how, random)
    return figure_of(((posterior_mean(log_likelihood(seen, encode(draws), how), draws) - truth) ** 2).mean(axis=1))


def prior_levels(encode: WindowMap, how: OutputNoise, n_windows: int, seed: int) -> Figure:
    """Constant series with a level from the stated prior: the error of the posterior mean on a fine grid."""
    random = generator(seed, "prior levels")
    truth = prior_quantile(random.random(PRIOR_LEVELS))
    grid = (np.arange(2000) + 0.5) / 2000
    return _levels(encode, merged(how, n_windows), truth, grid, 1 - np.cos(2 * np.pi * grid), random)


def merged(how: OutputNoise, looks: int) -> OutputNoise:
    """`looks` independent looks at the same outputs tell as much as their mean, which has this noise."""
    shots = None if how.shots is None else how.shots * looks
    return OutputNoise(how.noise_sd / math.sqrt(looks), shots)


def _levels(
    encode: WindowMap,
    how: OutputNoise,
    truth: np.ndarray,
    grid: np.ndarray,
    density: np.ndarray,
    random: np.random.Generator,
) -> Figure:
    outputs = encode(np.repeat(grid[:, None], WIDTH, axis=1))
    seen = with_noise(encode(np.repeat(truth[:, None], WIDTH, axis=1)), how, random)
    fit = log_likelihood(seen, outputs, how) + np.log(np.maximum(density, 1e-300))
    return figure_of((posterior_mean(fit, grid[:, None])[:, 0] - truth) ** 2)


def dithered_levels(
    encode: WindowMap, how: OutputNoise, n_windows: int, levels: list[np.ndarray], seed: int
) -> tuple[Figure, float]:
    """Real constant series, a channel's levels each, moved by N(0, DITHER^2): attack, and the bound for this prior.

    The prior is the levels' kernel density (the attacker knows it exactly, and the channel), so the bound holds for
    this attack as it stands; root of the mean over channels of the squared errors, as for the attack.
    """
    random = generator(seed, "dithered")
    grid = np.linspace(-6 * DITHER, 1 + 6 * DITHER, 1200)
    attacks, bounds = [], []
    how = merged(how, n_windows)
    outputs, slopes = jacobian(encode, np.repeat(grid[:, None], WIDTH, axis=1))
    information = (output_information(outputs, how) * slopes.sum(axis=2) ** 2).sum(axis=1)
    for own in levels:
        truth = random.choice(own, DITHERED_PER_CHANNEL) + DITHER * random.standard_normal(DITHERED_PER_CHANNEL)
        kernel = np.exp(-0.5 * ((grid[:, None] - own) / DITHER) ** 2)
        density = kernel.mean(axis=1)
        slope = (kernel * (own - grid[:, None])).mean(axis=1) / DITHER**2
        attacks.append(_levels(encode, how, truth, grid, density, random))
        bounds.append(level_bound(grid, density, slope, information) ** 2)
    errors = np.array([attack.error for attack in attacks])
    mse = float(np.mean([attack.mse for attack in attacks]))
    return Figure(mse, float(np.sqrt((errors**2).sum()) / len(errors))), math.sqrt(float(np.mean(bounds)))


def level_bound(grid: np.ndarray, density: np.ndarray, slope: np.ndarray, information: np.ndarray) -> float:
    """`encoders.leakage.weighted_van_trees_rmse` of one unknown whose prior is any smooth density on the line."""
    if not np.isfinite(information).all():
        return 0.0
    inside = density > 1e-12 * density.max()
    weights = np.where(inside, density, 0.0) / density[inside].sum()
    score = np.where(inside, slope / np.where(inside, density, 1.0), 0.0)
    waves = np.arange(WAVES) * math.pi / (grid[-1] - grid[0])
    turns = (grid[:, None] - grid[0]) * waves
    fields = np.cos(turns)
    divergence = score[:, None] * fields - waves * np.sin(turns)
    whole = fields.T @ ((weights * information)[:, None] * fields) + divergence.T @ (weights[:, None] * divergence)
    whole += 1e-13 * np.trace(whole) * np.eye(WAVES)
    means = weights @ fields
    return math.sqrt(float(means @ np.linalg.solve(whole, means)))


def inversion(
    features: np.ndarray, own: np.ndarray, encode: WindowMap, how: OutputNoise, seed: int
) -> dict[str, tuple[float, float]]:
    """R2 (against channel means over own patients) and RMSE of every attack on real series `(stay, step, channel)`."""
    random = generator(seed, "inversion")
    errors: dict[str, list[float]] = {}
    spread = []
    stays, steps, channels = features.shape
    for channel in range(channels):
        truth = features[:, :, channel].astype(np.float64)
        clean = encode(truth.reshape(-1, WIDTH)).reshape(stays, steps // WIDTH, -1)
        seen = with_noise(clean, how, random)
        mine = own[:, :, channel].astype(np.float64)
        for name, estimate in attacks_on_a_channel(seen, mine, encode, how, random).items():
            errors.setdefault(name, []).append(float(((estimate - truth) ** 2).mean()))
        spread.append(float(((truth - mine.mean()) ** 2).mean()))
    return {name: (1 - sum(each) / sum(spread), math.sqrt(float(np.mean(each)))) for name, each in errors.items()}
