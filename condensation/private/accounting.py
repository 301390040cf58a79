"""Sensitivity and noise of the private release: what one person can move, and how much Gaussian noise hides it.

Adjacency: add or remove one person with all their stays. dp-accounting prices the mechanism (Doroshenko et al. 2022,
privacy loss distributions, pessimistic); Balle and Wang (2018, arXiv 1805.06530) give the closed form used to check it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from scipy.stats import norm

from pipeline.core.errors import ConfigError

LARGEST_EPSILON: Final = 100.0  # beyond it the statement says nothing and the accountant loses its precision


@lru_cache(maxsize=64)
def noise_multipliers(epsilon: float, delta: float, shares: tuple[float, ...]) -> tuple[float, ...]:
    """Noise multipliers of Gaussian queries that together are (epsilon, delta)-DP; query i spends `shares[i]`.

    Adaptively composed Gaussian queries are exactly as private as one with 1 / multiplier^2 = sum_i 1 / multiplier_i^2
    (Dong, Roth and Su 2022, corollary 3.3), so one query is calibrated and its 1 / multiplier^2 shared out.

    The calibrated multiplier is rounded up: a scale whose last bits moved with a library or a processor would draw
    fresh noise for a question already answered.

    Raises:
        ConfigError: epsilon or delta out of range, or shares that do not sum to one.
    """
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    if not (0 < epsilon <= LARGEST_EPSILON and 0 < delta < 1):
        raise ConfigError(
            f"a private release needs an epsilon above 0 and at most {LARGEST_EPSILON:g}, and a delta between 0 and 1"
        )
    if not shares or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ConfigError("shares of the privacy budget must be positive and sum to one")
    guess = _analytic_multiplier(epsilon, delta)
    found = dp_accounting.calibrate_dp_mechanism(
        lambda: PLDAccountant(value_discretization_interval=max(1e-4, epsilon / 1000)),
        dp_accounting.GaussianDpEvent,
        epsilon,
        delta,
        bracket_interval=dp_accounting.ExplicitBracketInterval(guess * 0.9, guess * 1.2),
        tol=guess * 1e-6,
    )
    return tuple(_rounded_up(float(found)) / math.sqrt(share) for share in shares)


def accountant_name() -> str:
    """Library, version and method, for the guarantee."""
    from importlib.metadata import version

    return f"dp-accounting {version('dp-accounting')} PLDAccountant, add-or-remove-one"


def analytic_epsilon(multiplier: float, delta: float) -> float:
    """The exact epsilon of one Gaussian query at `delta` (Balle and Wang 2018, theorem 8), by bisection."""
    low, high = 0.0, 1.0
    while _analytic_delta(multiplier, high) > delta:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _analytic_delta(multiplier, middle) > delta else (low, middle)
    return high


def centre_sensitivity(clip: float, half_width: float, count_weight: float, square_weight: float) -> float:
    """Joint L2 sensitivity of (count_weight, sum x, square_weight * sum x^2) per subject.

    With ||x||_2 <= clip and |x_j| <= half_width: ||x^2||_2 <= half_width * clip. A subject's stays are averaged, and
    the ball is convex, so the bound holds for any number of stays.
    """
    return math.sqrt(clip**2 + count_weight**2 + (square_weight * half_width * clip) ** 2)


def moment_sensitivity(row_norm: float, task_weights: Sequence[float]) -> float:
    """Joint L2 sensitivity of (upper triangle of z z^T with off-diagonals times sqrt 2, w_t y_t z for every task).

    With ||z|| <= row_norm and |y_t| <= 1: ||z z^T||_F = row_norm^2, and each task adds (w_t * row_norm)^2. The weighted
    upper triangle has exactly the Frobenius norm. Signed counts ride along as the constant entry of z: with
    C^2 + 1 = row_norm^2 and unit weights this is the usual sqrt(C^4 + T C^2 + T) with the extra cross terms of z z^T.
    """
    return math.sqrt(row_norm**4 + sum(weight**2 for weight in task_weights) * row_norm**2)


def task_weights(n_tasks: int, row_norm: float) -> np.ndarray:
    """Public weights of the task sums: together as much as the gram; the first task, which makes the classes, half."""
    if n_tasks == 1:
        return np.array([row_norm])
    shares = np.full(n_tasks, 0.5 / (n_tasks - 1))
    shares[0] = 0.5
    return np.asarray(row_norm * np.sqrt(shares))


def pack_symmetric(matrix: np.ndarray) -> np.ndarray:
    """Upper triangle with off-diagonals times sqrt 2: its Euclidean norm is the Frobenius norm of the matrix."""
    rows, columns = np.triu_indices(len(matrix))
    return np.asarray(matrix[rows, columns] * np.where(rows == columns, 1.0, math.sqrt(2)))


def unpack_symmetric(packed: np.ndarray, size: int) -> np.ndarray:
    """The symmetric matrix that `pack_symmetric` packed."""
    rows, columns = np.triu_indices(size)
    matrix = np.zeros((size, size))
    matrix[rows, columns] = packed / np.where(rows == columns, 1.0, math.sqrt(2))
    return matrix + np.triu(matrix, 1).T


def _rounded_up(multiplier: float) -> float:
    """The next number with five significant digits: at most 0.01 % more noise, never less."""
    unit = 10.0 ** (4 - math.floor(math.log10(multiplier)))
    return math.ceil(multiplier * unit) / unit


def _analytic_delta(multiplier: float, epsilon: float) -> float:
    """Balle and Wang 2018, equation 6, for sensitivity 1."""
    shift, slope = 1 / (2 * multiplier), epsilon * multiplier
    return float(norm.cdf(shift - slope) - math.exp(epsilon + norm.logcdf(-shift - slope)))


def _analytic_multiplier(epsilon: float, delta: float) -> float:
    """The smallest multiplier of one Gaussian query that is (epsilon, delta)-DP."""
    low, high = 1e-3, 1.0
    while _analytic_delta(high, epsilon) > delta:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _analytic_delta(middle, epsilon) > delta else (low, middle)
    return high
