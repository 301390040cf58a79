"""Affinities read from a gradient bank, behind one protocol: (bank, weights of its stays) -> distance (task, task).

All are symmetric, 0 on the diagonal, smaller = more alike. `weights` counts how often each stay is there: ones, or a
draw of a patient bootstrap.

* `samplewise`: [Group]'s mean over stays of the distance between two tasks' steps (Thakur et al., arXiv 2412.04413),
  in L2, each task's steps scaled to mean length 1.
* `cosine`: 1 - cosine of the tasks' mean gradients.
* `lookahead`: TAG (Fifty et al. 2021) to first order. A small step on task s changes the loss of t by -rate <g_s, g_t>;
  the inner product is taken between different stays only, for a label's noise on a stay is shared by tasks and helps
  nobody else (the first-order form is that of TAG-Gram and of Grad-TAG, Li et al. 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import numpy as np
from jaxtyping import Float64

from pipeline.grouping.affinity.bank import GradientBank
from pipeline.grouping.batched_trainer import log_losses
from pipeline.grouping.gains import subject_weights


class BankAffinity(Protocol):
    """How an affinity is read."""

    def __call__(self, bank: GradientBank, weights: Float64[np.ndarray, " stay"]) -> Float64[np.ndarray, "task task"]:
        """The distances between tasks, stays counted as often as `weights` says."""
        ...


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


def cosine(bank: GradientBank, weights: Float64[np.ndarray, " stay"]) -> Float64[np.ndarray, "task task"]:
    """1 - cosine of mean gradients, mean over points; between 0 and 2."""
    means = _means(bank, weights)
    unit = means / np.maximum(np.linalg.norm(means, axis=2, keepdims=True), 1e-12)
    distance = 1 - (unit @ unit.transpose(0, 2, 1)).mean(axis=0)
    np.fill_diagonal(distance, 0.0)
    return np.asarray(np.maximum((distance + distance.T) / 2, 0.0))


def lookahead(bank: GradientBank, weights: Float64[np.ndarray, " stay"]) -> Float64[np.ndarray, "task task"]:
    """First-order TAG between different stays, as a distance from the best pair."""
    counts = (bank.known * weights).sum(axis=1)
    shared = (bank.known[:, None] & bank.known[None]) * weights**2
    total = np.zeros((len(counts),) * 2)
    for point, mean in enumerate(_means(bank, weights)):
        direction = bank.directions[point]
        same = np.einsum("sin,tin->sti", direction, direction, optimize=True)
        same = (same * bank.residuals[point][:, None] * bank.residuals[point][None] * shared).sum(axis=2)
        pairs = counts[:, None] * counts[None] - shared.sum(axis=2)
        inner = (mean @ mean.T * counts[:, None] * counts[None] - same) / np.maximum(pairs, 1e-12)
        loss = _losses(bank.logits[point], bank, weights)
        total += inner / loss[None]  # row s, column t: what a step on s does for t
    return _from_gains(total)


AFFINITIES: Final[Mapping[str, BankAffinity]] = {
    "samplewise": samplewise,
    "gradient_cosine": cosine,
    "lookahead": lookahead,
}


def bootstrap(
    bank: GradientBank, affinity: BankAffinity, *, n_draws: int, seed: int
) -> Float64[np.ndarray, "draw task task"]:
    """The affinity on draws of the bank's patients, with all their stays."""
    return np.stack([affinity(bank, weights) for weights in subject_weights(bank.subjects, n_draws, seed)])


def _means(bank: GradientBank, weights: np.ndarray) -> Float64[np.ndarray, "point task number"]:
    counted = bank.residuals * weights.astype(np.float32)
    sums = np.einsum("pti,ptin->ptn", counted, bank.directions, optimize=True)
    return np.asarray(sums / np.maximum((bank.known * weights).sum(axis=1), 1e-12)[None, :, None], dtype=np.float64)


def _losses(logits: np.ndarray, bank: GradientBank, weights: np.ndarray) -> Float64[np.ndarray, "... task"]:
    """Weighted mean log-loss, in units of the null loss; logits `(..., task, stay)`."""
    loss = log_losses(logits, bank.labels) * bank.known * weights
    return np.asarray(loss.sum(axis=-1) / np.maximum((bank.known * weights).sum(axis=-1), 1e-12) / bank.null)


def _from_gains(gain: np.ndarray) -> Float64[np.ndarray, "task task"]:
    """Symmetric gains to distances: 0 for the best pair."""
    both = (gain + gain.T) / 2
    off = ~np.eye(len(both), dtype=bool)
    return np.asarray(np.where(off, (both[off].max() if off.any() else 0.0) - both, 0.0))
