"""The affinity read from a gradient bank: (bank, weights of its stays) -> distance (task, task).

[Group]'s mean over stays of the distance between two tasks' steps (Thakur et al., arXiv 2412.04413), in L2, each task's
steps scaled to mean length 1: symmetric, 0 on the diagonal, smaller = more alike. `weights` counts how often each stay
is there: ones, or a draw of a patient bootstrap.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from pipeline.grouping.affinity.bank import GradientBank
from pipeline.grouping.gains import subject_weights


def samplewise(bank: GradientBank, weights: Float64[np.ndarray, " stay"]) -> Float64[np.ndarray, "task task"]:
    """Mean L2 distance of steps on the same stay, over stays where both labels are known."""
    n_tasks = len(bank.known)
    shared = bank.known[:, None] & bank.known[None]
    counted = shared * weights
    total = np.zeros((n_tasks, n_tasks))
    for point, gradient in enumerate(bank.directions):
        inner = np.einsum("sin,tin->sti", gradient, gradient, optimize=True)
        residual = bank.residuals[point]
        inner *= residual[:, None] * residual[None]
        square = inner[np.arange(n_tasks), np.arange(n_tasks)]
        length = (np.sqrt(square) * bank.known * weights).sum(axis=1) / (bank.known * weights).sum(axis=1)
        scale = 1 / np.maximum(length, 1e-12)
        apart = square[:, None] * scale[:, None, None] ** 2 + square[None] * scale[None, :, None] ** 2
        apart = apart - 2 * inner * scale[:, None, None] * scale[None, :, None]
        total += (np.sqrt(np.maximum(apart, 0)) * counted).sum(axis=2) / np.maximum(counted.sum(axis=2), 1e-12)
    np.fill_diagonal(total, 0.0)
    return np.asarray(total / len(bank.directions))


def bootstrap(bank: GradientBank, *, n_draws: int, seed: int) -> Float64[np.ndarray, "draw task task"]:
    """The affinity on draws of the bank's patients, with all their stays."""
    return np.stack([samplewise(bank, weights) for weights in subject_weights(bank.subjects, n_draws, seed)])
