"""The square-root Toeplitz factor: noise correlated over nights so that a running sum's error grows like a logarithm.

Let x_t be what night t adds. All running sums S_t = x_1 + ... + x_t are A x, A the prefix matrix. With A = C C and
independent Gaussian Z, the answers A x + C Z = C (C x + Z) are post-processing of *one* Gaussian query C x + Z, of
sensitivity ||column of C|| times what a stay may add (Fichtenberger, Henzinger and Upadhyay 2023; Denisov et al. 2022
for x chosen in view of earlier answers). C is the square root of A as a power series: f_0 = 1,
f_k = f_(k-1) (2k - 1) / (2k). For the sums of the last w nights it is the square root of (1 - z^w) / (1 - z), whose
norm stays bounded for ever.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

LONGEST: Final = 10_000  # nights of a stream: 27 years


def square_root_factor(nights: int, window: int | None = None) -> np.ndarray:
    """First column of C, `(nights,)`: the factor of all sums so far, or of the sums of the last `window` nights."""
    k = np.arange(1, nights)
    factor = np.concatenate([[1.0], np.cumprod((2 * k - 1) / (2 * k))])
    if window is None:
        return factor
    windowed, binomial = np.zeros(nights), 1.0
    for place, start in enumerate(range(0, nights, window)):  # (1 - z^w)^(1/2) times the factor
        windowed[start:] += binomial * factor[: nights - start]
        binomial *= (place - 0.5) / (place + 1)
    return windowed


def factor_sensitivity(factor: np.ndarray, entries: int = 1, separation: int = 1) -> float:
    """Bound of ||C x|| where a person adds at most `entries` rows of norm 1, each `separation` nights after the last.

    One entry: the norm of a column, reached. More, for a factor that is nowhere negative and never rises: the entries
    0, b, 2b, ... are the worst (Choquette-Choo et al. 2023, theorem 2), reached as well. Other factors: the absolute
    inner products of columns that lie so far apart, summed.
    """
    entries = min(entries, 1 + (len(factor) - 1) // separation)
    if entries == 1:
        return float(np.linalg.norm(factor))
    if factor.min() >= 0 and np.all(np.diff(factor) <= 0):
        total = factor.copy()
        for lag in range(separation, entries * separation, separation):
            total[lag:] += factor[: len(factor) - lag]
        return float(np.linalg.norm(total))
    size = np.abs(factor)
    products = np.correlate(size, size, "full")[len(size) - 1 :]  # by lag
    worst = np.maximum.accumulate(products[::-1])[::-1]  # at this lag or a longer one
    apart = sum((entries - steps) * worst[steps * separation] for steps in range(1, entries))
    return math.sqrt(entries * products[0] + 2 * apart)


def running_sums(increments: np.ndarray, window: int | None = None) -> np.ndarray:
    """A x: `(night, entry)` -> the sums so far, or of the last `window` nights, of every night."""
    sums = np.cumsum(increments, axis=0)
    if window is not None:
        sums[window:] -= sums[:-window].copy()
    return np.asarray(sums)


def correlated(draws: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """The last row of C Z: independent draws `(night, entry)` -> the noise of the last night's sum, `(entry,)`."""
    return np.asarray(factor[: len(draws)][::-1] @ draws)


def relative_noise(factor: np.ndarray, entries: int = 1, separation: int = 1) -> tuple[float, float]:
    """Noise of a night's sum beside that of one release of the same epsilon: root mean square and worst night."""
    rows = np.sqrt(np.cumsum(factor**2))  # norm of each row of C
    sensitivity = factor_sensitivity(factor, entries, separation)
    return sensitivity * float(np.sqrt(np.mean(rows**2))), sensitivity * float(rows[-1])
