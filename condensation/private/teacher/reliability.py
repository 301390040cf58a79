"""How a teacher's logit and what happened go together, asked in private, and the two numbers that calibrate it.

A stay's logit is shared between the two nearest of `KNOTS`, by linear interpolation (what lies beyond stands at the
last), and its label between the columns 1 - y and y. Both have norm at most 1, so a stay adds at most 1, and with
public weights of the tasks whose squares sum to one that holds for any number of tasks. Clipped gradients make a
teacher too sure, and samples of a process, whose channels hardly move together, do not show how far its logits spread
among patients; these counts do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float64
from scipy.special import expit

KNOTS: Final = np.arange(-8.0, 5.0)  # logits
SLOPES: Final = np.linspace(0.3, 1.5, 61)  # that a teacher may be given
OFFSETS: Final = np.linspace(-2.0, 2.0, 81)  # from the intercept that the process alone would give it
PRIOR_SLOPE: Final = (0.9, 0.2)  # mean and standard deviation: a public guess, which few stays do not move
PRIOR_OFFSET: Final = (0.0, 1.0)


@final
@dataclass(frozen=True)
class Reliability:
    """Noisy sums of 1 - y and of y around every knot, and the standard deviation of each sum's noise."""

    sums: Float64[np.ndarray, "task knot 2"]
    noise: Float64[np.ndarray, " task"]


def reliability_parts(
    logits: Float64[np.ndarray, "stay task"],
    labels: Float64[np.ndarray, "stay task"],
    share: Float64[np.ndarray, " stay"],
    task_weights: Float64[np.ndarray, " task"],
) -> Float64[np.ndarray, " part"]:
    """The sum over stays of task_weights[t] * share * (around the knots) x (1 - y, y), flat; missing labels add 0.

    Sensitivity per subject: sqrt(sum of task_weights^2).
    """
    known = np.clip(labels.astype(np.float64), 0.0, 1.0)
    columns = np.nan_to_num(np.stack([1.0 - known, known], axis=2), nan=0.0)
    places = np.clip(logits, KNOTS[0], KNOTS[-1])
    # of hats of width 1 around knots that lie 1 apart, two overlap at every place and sum to one there
    around = np.maximum(0.0, 1.0 - np.abs(places[:, :, None] - KNOTS))
    return np.asarray((task_weights[:, None, None] * np.einsum("n,ntk,ntc->tkc", share, around, columns)).ravel())


def calibrating(known: Reliability, task: int, intercept: float) -> tuple[float, float]:
    """(a, b) so that sigmoid(a logit + b) is the risk: what fits the noisy sums of a task best, of a grid.

    Sums of y are held against the number of stays times the risk at a knot, with the variance of both the outcomes and
    the noise. Where the noise hides everything the prior is left: slope .9, and `intercept`.
    """
    others, events = known.sums[task].T
    stays = np.maximum(others + events, 0.0)
    slope, offset = SLOPES[:, None], OFFSETS[None, :]
    risk = expit(slope[:, :, None] * KNOTS + (intercept + offset)[:, :, None])
    left = events - (others + events) * risk
    variance = stays * risk * (1 - risk) + known.noise[task] ** 2 * ((1 - risk) ** 2 + risk**2) + 1e-9
    surprise = (left**2 / variance).sum(axis=2)
    for value, (mean, sd) in ((slope, PRIOR_SLOPE), (offset, PRIOR_OFFSET)):
        surprise = surprise + ((value - mean) / sd) ** 2
    best = np.unravel_index(np.argmin(surprise), surprise.shape)
    return float(SLOPES[best[0]]), float(intercept + OFFSETS[best[1]])
