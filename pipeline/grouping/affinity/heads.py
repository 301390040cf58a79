"""One linear head per task on a random trunk: one gradient step from zero.

Why not random. With zero bias and a head law that is symmetric, (head w, label y) and (head -w, label 1 - y) give the
same trunk gradient, (sigma(w.h) - y) w: the gradient's law does not depend on the label. With independent random heads
the expected distance of two tasks' steps is then the same number whatever their labels are, and what one
initialisation shows is which random heads happen to lie close.

Why one step. All tasks then start from the same point: zero head weights, bias at the log-odds of the task's
prevalence (the null model). Gradient descent on the training stays moves only the head at first, as the trunk's
gradient vanishes with it: w_t = step * mean_i (y_it - prevalence_t) h_i, the difference of the class means. The
next step is the first in which the trunk moves, to first order in the step size by (prevalence_t - y_it) w_t for stay
i; that step is what the affinity compares. Its length cancels, as steps are compared on a common scale.

Heads fitted until convergence were tried and are worse: the residuals they leave are each label's noise, and planted
groups of tasks that share their signal at different thresholds were no longer found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64


@final
@dataclass(frozen=True, eq=False)
class Heads:
    """Weights `(task, unit)` and the derivative of the cross-entropy by the logit `(stay, task)`, NaN = no label."""

    weights: Float64[np.ndarray, "task unit"]
    residuals: Float64[np.ndarray, "stay task"]


def one_step_heads(embedding: Float64[np.ndarray, "stay unit"], labels: Float64[np.ndarray, "stay task"]) -> Heads:
    """Heads after one unit step from the null model, each on the stays whose label is known; residuals at the null."""
    known = np.isfinite(labels)
    residuals = np.nanmean(labels, axis=0) - labels
    sums = np.where(known, -residuals, 0.0).T @ embedding
    return Heads(sums / known.sum(axis=0)[:, None], residuals)
