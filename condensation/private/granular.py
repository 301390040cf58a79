"""Gaussian answers on a grid, so that the low bits of a float64 tell nothing of the exact sum behind it.

A float64 sum plus float64 noise can only take some values, and which ones depends on the sum: who guesses a cohort can
check the guess (Mironov 2012). Here both are rounded to multiples of one power of two before they are added. The answer
is then exactly what rounding the Gaussian mechanism on the rounded sum gives, which is post-processing, and every
multiple can come from every cohort.

What is left: a normal is made of 52 random bits, so beyond about six standard deviations some multiples are never hit.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from pipeline.core.keys.noise import NoiseSource

ROOM: Final = 1e-4  # of the sensitivity: half for the rounding, half for the last bits of a sum over many rows


def noisy_answer(
    exact: np.ndarray, sensitivity: float, multiplier: float, noise: NoiseSource, query: dict[str, object]
) -> tuple[np.ndarray, float]:
    """`exact` plus Gaussian noise, both on a grid, and the noise's scale: `(entry,)` -> `(entry,)`.

    Rounding moves each of d entries of two neighbours apart by at most one step, so the rounded sum has a sensitivity
    of at most sensitivity + step * sqrt(d); the scale makes room for it.
    """
    step = grid_step(sensitivity, exact.size)
    scale = multiplier * sensitivity * (1 + ROOM)
    drawn = noise.normal(query, scale, exact.shape)
    return (np.rint(exact / step) + np.rint(drawn / step)) * step, scale


def grid_step(sensitivity: float, size: int) -> float:
    """The largest power of two of which sqrt(size) are at most half the room."""
    return 2.0 ** math.floor(math.log2(ROOM / 2 * sensitivity / math.sqrt(size)))
