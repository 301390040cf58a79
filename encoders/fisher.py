"""Fisher information of a window map under noise: slopes of the map, and what one noisy output tells.

Averages run over the prior of `encoders.leakage`: every value by itself with density 1 - cos(2 pi x) on [0, 1].
Everything is deterministic, and errs, where it errs, toward more information.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float64

from encoders.randomise import SHOTS_OF_EXPECTATIONS, OutputNoise
from pipeline.core.errors import ConfigError
from pipeline.core.seeds import generator

WindowMap = Callable[[np.ndarray], np.ndarray]
"""`(n, width)` float64 windows -> `(n, component)` outputs without noise."""

_STEP: Final = 1e-5  # of the central differences: their error is below 1e-9 for a circuit (third derivative <= pi^3)
_SLOPE_ROOM: Final = 1e-6  # and the information is enlarged by this share
_NODES: Final = 10  # per value, Gauss-Legendre: exact to 1e-8 for products of four of a circuit's sines
_LEVEL_NODES: Final = 128
_TENSOR_LIMIT: Final = 20_000
_DRAWS: Final = 4096  # where there are too many values for a product of nodes
_BLOCK: Final = 1 << 13
_AFFINE: Final = 1e-9
_CERTAIN: Final = 1e-9  # 1 - z^2 below which a circuit's limit takes the place of a quotient of two zeros


@final
@dataclass(frozen=True, eq=False, repr=False)
class Slopes:
    """Outputs and their derivatives by each of `value` unknowns, at weighted points of the prior."""

    points: Float64[np.ndarray, "point value"]
    weights: Float64[np.ndarray, " point"]
    outputs: Float64[np.ndarray, "point component"]
    slopes: Float64[np.ndarray, "point component value"]
    rotation: Float64[np.ndarray, "value value"]  # D^T D: how strongly unknowns turn a circuit's wires
    exact: bool  # the points are a quadrature, neither a random sample nor one point for an affine map


def mean_information(
    at: Slopes, how: OutputNoise, functions: Float64[np.ndarray, "point function"] | None = None
) -> Float64[np.ndarray, "field field"]:
    """E v^T I(x) v of one window, not less than it is, for the fields v = e_value * function (default: the constant 1).

    Where an outcome is certain (z = +-1) its slope is 0 as well. A value turns one wire by pi x, so that no
    measurement's information exceeds pi^2 per shot (the quantum Fisher information; Braunstein & Caves 1994).
    """
    if how.shots is not None and len(at.weights) == 1:
        raise ConfigError(SHOTS_OF_EXPECTATIONS)
    functions = np.ones((len(at.weights), 1)) if functions is None else functions
    each = output_information(at.outputs, how)
    certain = np.zeros(len(each))
    if how.shots is not None:
        limits = 1.0 - at.outputs**2 < _CERTAIN
        each, certain = np.where(limits, 0.0, each), limits.sum(axis=1) * how.shots * math.pi**2
    n_fields = at.slopes.shape[2] * functions.shape[1]
    if not np.isfinite(each).all():
        return np.full((n_fields, n_fields), math.inf)
    rows = np.sqrt(at.weights[:, None] * each)[:, :, None] * at.slopes
    flat = (rows[:, :, :, None] * functions[:, None, None, :]).reshape(-1, n_fields)
    information = flat.T @ flat
    if certain.any():
        information += np.kron(at.rotation, functions.T @ ((at.weights * certain)[:, None] * functions))
    room = _SLOPE_ROOM
    if not at.exact and information.any():  # four standard errors of its trace
        size = (rows**2).sum((1, 2))
        room += 4.0 * float(size.std()) / (float(size.mean()) * math.sqrt(len(size)))
    return np.asarray(information * (1.0 + room))


def output_information(
    z: Float64[np.ndarray, "point component"], how: OutputNoise
) -> Float64[np.ndarray, "point component"]:
    """Fisher information of one noisy output about its expectation z.

    Gaussian: 1 / sd^2. Shots: shots / (1 - z^2). Both: at most shots * i(z; sd sqrt(shots)), where i is one shot's with
    Gaussian noise: the output is the mean of such shots, and a mean tells no more than they do. (The smaller of the
    two single figures would be wrong: near z = +-1 a little Gaussian noise does less than its own figure says.)
    """
    if how.shots is None:
        return np.full(z.shape, math.inf if how.noise_sd == 0 else how.noise_sd**-2)
    if z.size and float(np.abs(z).max()) > 1 + _AFFINE:
        raise ConfigError(SHOTS_OF_EXPECTATIONS)
    spread = np.maximum(1.0 - z**2, _CERTAIN)
    if how.noise_sd == 0:
        return np.asarray(how.shots / spread)
    one = np.minimum(1.0 / spread, _one_noisy_shot(z, how.noise_sd * math.sqrt(how.shots)))
    return np.asarray(how.shots * one)


def _one_noisy_shot(z: np.ndarray, sd: float) -> np.ndarray:
    """Information about z in +-1 (mean z) plus N(0, sd^2).

    The density is linear in z, so the information is convex in z and its chords lie above it.
    """
    if sd < 0.25:  # the two outcomes stand apart; noise hides nothing
        return np.full(z.shape, math.inf)
    y = np.arange(0.0, 3.0 + 10.0 * sd, sd / 8)
    ratio = np.exp(-2.0 * y / sd**2)  # of the two outcomes' densities
    density = np.exp(-0.5 * ((y - 1.0) / sd) ** 2) / (sd * math.sqrt(2.0 * math.pi))
    step = np.where(y == 0, 0.5, 1.0) * sd / 8  # y and -y meet at 0
    grid = np.cos(np.linspace(math.pi, 0.0, 257))[:, None]
    half = (step * density * (1 - ratio) ** 2 / 4 / ((1 + grid) / 2 + (1 - grid) / 2 * ratio)).sum(axis=1)
    return np.asarray(np.interp(z, grid[:, 0], half + half[::-1]))


def slopes_at(window_map: WindowMap, directions: np.ndarray, affine: np.ndarray | None) -> Slopes:
    """At windows `directions @ unknowns`, with unknowns from the prior; `affine`: see `affine_slopes`."""
    rotation = directions.T @ directions
    if affine is not None and not is_quadrature(directions.shape[1]):  # the same everywhere: any point will do
        points, weights = np.full((1, directions.shape[1]), 0.5), np.ones(1)
        outputs = np.asarray(window_map(points @ directions.T), np.float64)
        return Slopes(points, weights, outputs, (affine @ directions)[None], rotation, exact=False)
    points, weights, exact = prior_points(directions.shape[1])
    outputs, slopes = jacobian(window_map, points @ directions.T)
    return Slopes(points, weights, outputs, slopes @ directions, rotation, exact)


def jacobian(
    window_map: WindowMap, windows: Float64[np.ndarray, "n width"]
) -> tuple[Float64[np.ndarray, "n component"], Float64[np.ndarray, "n component width"]]:
    """Outputs and central differences."""
    n, width = windows.shape
    moved = windows[None] + _STEP * np.concatenate([np.eye(width), -np.eye(width)])[:, None, :]
    values = _in_blocks(window_map, moved.reshape(-1, width))
    up, down = values.reshape(2, width, n, -1)
    return _in_blocks(window_map, windows), np.moveaxis((up - down) / (2.0 * _STEP), 0, 2)


def _in_blocks(window_map: WindowMap, windows: Float64[np.ndarray, "n width"]) -> Float64[np.ndarray, "n component"]:
    """A general circuit of ten qubits holds 1,024 amplitudes per window: not all windows at once."""
    blocks = range(0, len(windows), _BLOCK)
    return np.concatenate([np.asarray(window_map(windows[start : start + _BLOCK]), np.float64) for start in blocks])


def affine_slopes(window_map: WindowMap, width: int) -> np.ndarray | None:
    """`(component, width)` if the map is affine (as it looks at 32 random windows), else None."""
    at_zero = np.asarray(window_map(np.zeros((1, width))), np.float64)
    slopes = (np.asarray(window_map(np.eye(width)), np.float64) - at_zero).T
    windows = generator(0, "encoders", "leakage", "affine").random((32, width))
    found = np.asarray(window_map(windows), np.float64)
    scale = max(1.0, float(np.abs(found).max()))
    return slopes if float(np.abs(found - windows @ slopes.T - at_zero).max()) < _AFFINE * scale * width else None


def is_quadrature(n_values: int) -> bool:
    """Whether a product of nodes is affordable for that many unknowns."""
    return n_values == 1 or _NODES**n_values <= _TENSOR_LIMIT


@functools.cache
def prior_points(n_values: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """Points `(point, value)` and weights that average over the prior; whether they are a quadrature.

    Where that would take too many points they are a fixed random sample.
    """
    nodes = _LEVEL_NODES if n_values == 1 else _NODES
    if not is_quadrature(n_values):
        draws = generator(0, "encoders", "leakage", "prior").random((_DRAWS, n_values))
        return prior_quantile(draws), np.full(_DRAWS, 1.0 / _DRAWS), False
    roots, root_weights = np.polynomial.legendre.leggauss(nodes)
    values = (roots + 1.0) / 2.0
    weights = root_weights / 2.0 * (1.0 - np.cos(2.0 * math.pi * values))
    points = np.stack(np.meshgrid(*[values] * n_values, indexing="ij"), axis=-1).reshape(-1, n_values)
    product = functools.reduce(np.multiply.outer, [weights] * n_values).reshape(-1)
    return points, product / product.sum(), True


def prior_quantile(probability: np.ndarray) -> np.ndarray:
    """The prior's inverse distribution function, x - sin(2 pi x) / (2 pi) = probability, by bisection."""
    low, high = np.zeros_like(probability), np.ones_like(probability)
    for _ in range(50):
        middle = (low + high) / 2.0
        below = middle - np.sin(2.0 * math.pi * middle) / (2.0 * math.pi) < probability
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray((low + high) / 2.0)
