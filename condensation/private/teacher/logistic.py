"""A logistic regression of a few features of a stay, learnt by gradient descent on noisy sums of clipped gradients.

Noisy gradient descent in full batches (Bassily, Smith and Thakurta 2014; clipping as in Abadi et al. 2016) asks for as
many numbers a round as there are features, where moments ask for their square. The descent itself sees no stay: it is
given a function that answers a round, so the same one runs on one cohort's noisy sums, on several sites' or on a
running sum's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float64
from scipy.special import expit

from condensation.private.channels import PublicChannels
from condensation.private.teacher.reliability import PRIOR_SLOPE, Reliability, calibrating
from pipeline.core.risk import LARGEST_LOGIT
from pipeline.core.teacher_form import LARGEST, STEP

ROUNDS: Final = 30
LEARNING_RATE: Final = 8.0
MOMENTUM: Final = 0.8
AVERAGED: Final = 15  # of the last rounds' weights
CONSTANT: Final = 0.3  # the entry of a row that carries the intercept
CLIP_NORM: Final = 1.0  # of a standardised row, whose mean square norm is about 1
GRADIENT_CLIP: Final = 0.5  # of a stay's gradient of one task
PRIOR_LOGIT: Final = -1.8  # where a class's intercept starts: one event in seven, a public guess
LEAST_SHARE: Final = 0.01  # of events, and of the rest, that a noisy prevalence is believed

Ask = Callable[[int, Float64[np.ndarray, "task entry"]], Float64[np.ndarray, "task entry"]]
"""(round, weights) -> the noisy sum of every task's clipped gradients at these weights."""


@final
@dataclass(frozen=True)
class LogisticTeacher:
    """Risk = sigmoid(intercept + coefficients . features), for every task: a few lines without our code."""

    coefficients: Float64[np.ndarray, "task feature"]
    intercepts: Float64[np.ndarray, " task"]

    def unbounded(self, levels: Float64[np.ndarray, "stay feature"]) -> Float64[np.ndarray, "stay task"]:
        """Logits of `PublicChannels.features`."""
        return np.asarray(levels @ self.coefficients.T + self.intercepts)

    def logits(self, levels: Float64[np.ndarray, "stay feature"]) -> Float64[np.ndarray, "stay task"]:
        """The same, within +-8."""
        return np.asarray(np.clip(self.unbounded(levels), -LARGEST_LOGIT, LARGEST_LOGIT))

    @property
    def numbers(self) -> Float64[np.ndarray, "task entry"]:
        """Intercepts, then coefficients, on the grid on which they are released."""
        found = np.concatenate([self.intercepts[:, None], self.coefficients], axis=1)
        return np.asarray(np.clip(np.rint(found / STEP) * STEP + 0.0, -LARGEST, LARGEST))

    def score(self, channels: PublicChannels, series: np.ndarray) -> Float64[np.ndarray, "stay task"]:
        """Predicted risk of every task (of a number: its mean) for `(stay, step, channel)` series."""
        return np.asarray(expit(self.logits(channels.features(series))))


def gradient_parts(
    z: Float64[np.ndarray, "stay entry"],
    labels: Float64[np.ndarray, "stay task"],
    weights: Float64[np.ndarray, "task entry"],
    share: Float64[np.ndarray, " stay"],
    task_weights: Float64[np.ndarray, " task"],
) -> Float64[np.ndarray, " part"]:
    """The sum over stays of task_weights[t] * share * clip((p - y) z), flat; a missing label gives a gradient of zero.

    Sensitivity per subject: each task's gradient is clipped to `GRADIENT_CLIP` and a subject's shares sum to one, so a
    subject moves the sum by at most GRADIENT_CLIP * sqrt(sum of task_weights^2); with weights whose squares sum to one
    (`accounting.task_weights(n, 1)`) by `GRADIENT_CLIP`, however many tasks there are.
    """
    residual = expit(z @ weights.T) - np.clip(labels, 0.0, 1.0)
    residual = np.where(np.isnan(residual), 0.0, residual)
    norm = np.linalg.norm(z, axis=1)[:, None] * np.abs(residual)
    kept = residual * np.minimum(1.0, GRADIENT_CLIP / np.maximum(norm, 1e-300))
    return np.asarray((task_weights[:, None] * ((kept * share[:, None]).T @ z)).ravel())


def descend(ask: Ask, count: float, starts: Float64[np.ndarray, " task"], n_features: int) -> np.ndarray:
    """`ROUNDS` steps of momentum; the mean of the last `AVERAGED` weights, `(task, 1 + feature)`.

    Args:
        count: number of subjects, noisy: the step is LEARNING_RATE / count.
        starts: logit of the intercept of each task, public.
    """
    weights = np.zeros((len(starts), 1 + n_features))
    weights[:, 0] = starts / CONSTANT
    velocity, kept = np.zeros_like(weights), np.zeros_like(weights)
    for number in range(ROUNDS):
        velocity = MOMENTUM * velocity - LEARNING_RATE / max(float(count), 1.0) * ask(number, weights)
        # rounded, so that the last bits of a sum on another machine do not ask for other noise in the next round
        weights = np.round(weights + velocity, 6)
        kept += weights * (number >= ROUNDS - AVERAGED)
    return kept / AVERAGED


def starting_logits(kinds: Sequence[str]) -> np.ndarray:
    """Of each task's intercept: a class's at the public prior, a number's in the middle."""
    return np.array([PRIOR_LOGIT if kind == "binary" else 0.0 for kind in kinds])


def linear_teacher(weights: np.ndarray, centre: np.ndarray, gain: np.ndarray) -> LogisticTeacher:
    """From weights of (CONSTANT, (level - centre) * gain) to coefficients of the levels themselves."""
    # rounded, so that the last bits of another machine do not ask for other noise in the next query
    coefficients = np.round(weights[:, 1:] * gain, 6)
    return LogisticTeacher(coefficients, np.round(CONSTANT * weights[:, 0] - coefficients @ centre, 6))


def shares_of_events(known: np.ndarray, kinds: Sequence[str], noise: np.ndarray) -> np.ndarray:
    """Each task's mean label from noisy sums of (y, 1 - y), `(task, 2)`: `(task,)`.

    The noise's own scale, `(task,)`, counts as that many stays of the public prior, so a handful of stays states
    no prevalence.
    """
    prior = expit(starting_logits(kinds))
    events, others = np.maximum(known, 0.0).T
    return np.asarray(np.clip((events + noise * prior) / (events + others + noise), LEAST_SHARE, 1 - LEAST_SHARE))


def calibrated(teacher: LogisticTeacher, levels: np.ndarray, shares: np.ndarray, known: Reliability) -> LogisticTeacher:
    """The teacher with the slope and the intercept that its risks need; post-processing.

    Where `known` tells little the mean risk over `levels`, drawn from the process, is each task's private mean label.
    """
    scores = PRIOR_SLOPE[0] * teacher.unbounded(levels)
    low, high = -LARGEST_LOGIT - scores.max(axis=0), LARGEST_LOGIT - scores.min(axis=0)
    for _ in range(60):
        middle = (low + high) / 2
        below = expit(scores + middle).mean(axis=0) < shares
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    expected = (low + high) / 2
    slope, intercept = np.array([calibrating(known, task, float(one)) for task, one in enumerate(expected)]).T
    return LogisticTeacher(slope[:, None] * teacher.coefficients, slope * teacher.intercepts + intercept)


def balancing_shift(logits: Float64[np.ndarray, " series"]) -> float:
    """What is taken off a class's logit so that half of the pool lies on either side: the median, on the grid."""
    return float(np.rint(np.median(logits) / STEP) * STEP + 0.0)
