"""Gaussian answers on a grid, so that the low bits of a float64 tell nothing of the exact sum behind it.

A float64 sum plus float64 noise can only take some values, and which ones depends on the sum: who guesses a cohort can
check the guess (Mironov 2012). Here the sum is rounded to multiples of one power of two, and the noise is a discrete
Gaussian on the same multiples (Canonne, Kamath and Steinke 2020, arXiv 2004.00010), sampled exactly: every multiple can
come from every cohort, with the chance that the mechanism gives it. It costs what continuous noise of that scale
costs, for the scale is some 10^5 steps and more; docs/reference/guarantee.md has the bound.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from pipeline.core.keys.noise import NoiseSource

ROOM: Final = 1e-4  # of the sensitivity: half for the rounding, half for last bits and for the noise being discrete


def noisy_answer(
    exact: np.ndarray, sensitivity: float, multiplier: float, noise: NoiseSource, query: dict[str, object]
) -> tuple[np.ndarray, float]:
    """`exact` plus discrete Gaussian noise, both on a grid, and the noise's scale: `(entry,)` -> `(entry,)`.

    Rounding moves each of d entries of two neighbours apart by at most one step, so the rounded sum has a sensitivity
    of at most sensitivity + step * sqrt(d); the scale makes room for it and is rounded up to whole steps.

    Raises:
        BudgetError: nobody reserved the query. EnvironmentProblem: the noise would be more than 2^46 steps wide.
    """
    step = grid_step(sensitivity, exact.size)
    steps = math.ceil(multiplier * sensitivity * (1 + ROOM) / step)
    drawn = noise.discrete_normal({**query, "step": step.hex()}, steps, exact.shape)
    return (np.rint(exact / step) + drawn) * step, steps * step


def grid_step(sensitivity: float, size: int) -> float:
    """The largest power of two of which sqrt(size) are at most half the room."""
    return 2.0 ** math.floor(math.log2(ROOM / 2 * sensitivity / math.sqrt(size)))
