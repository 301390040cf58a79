"""A random dense trunk and the L1 size of one gradient step through it, per sample, without forming a gradient.

The gradient of one sample's loss with respect to a dense layer's weights is an outer product, delta a^T, with `a` the
layer's input and `delta` the loss's derivative at its pre-activation (the bias takes delta itself). The L1 norm of an
outer product factorises, and two tasks share `a`, so for tasks s and t

    || delta_s a^T - delta_t a^T ||_1 + || delta_s - delta_t ||_1  =  || delta_s - delta_t ||_1 * (||a||_1 + 1),

which costs one pass over (task, stay, unit) instead of (task, stay, weight).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, final

import numpy as np
from jaxtyping import Float64

HIDDEN: Final = (64, 64)


@final
@dataclass(frozen=True, eq=False)
class Trunk:
    """Dense tanh layers with zero biases; `weights[l]` is (unit out, unit in), entries N(0, 1 / unit in)."""

    weights: tuple[np.ndarray, ...]


def random_trunk(n_features: int, rng: np.random.Generator, hidden: tuple[int, ...] = HIDDEN) -> Trunk:
    """The common initialisation theta_0 of all tasks."""
    widths = (n_features, *hidden)
    return Trunk(tuple(rng.standard_normal((out, into)) / np.sqrt(into) for into, out in pairwise(widths)))


def activations(trunk: Trunk, inputs: Float64[np.ndarray, "stay feature"]) -> tuple[np.ndarray, ...]:
    """The input of every layer and, last, the embedding: `(stay, unit)` each."""
    layers = [inputs]
    for weights in trunk.weights:
        layers.append(np.tanh(layers[-1] @ weights.T))
    return tuple(layers)


def trunk_deltas(
    trunk: Trunk,
    layers: tuple[np.ndarray, ...],
    heads: Float64[np.ndarray, "task unit"],
    residuals: Float64[np.ndarray, "stay task"],
) -> tuple[np.ndarray, ...]:
    """d loss / d pre-activation, per layer `(task, stay, unit)`; `residuals` = d loss / d logit, NaN passes through."""
    delta = residuals.T[:, :, None] * heads[:, None, :] * (1 - layers[-1] ** 2)
    deltas = [delta]
    for depth in range(len(trunk.weights) - 1, 0, -1):
        delta = (delta @ trunk.weights[depth]) * (1 - layers[depth] ** 2)
        deltas.append(delta)
    return tuple(reversed(deltas))


def input_sizes(layers: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """||a||_1 + 1 of every layer's input, `(stay,)` each; the 1 is the bias's input."""
    return tuple(np.abs(inputs).sum(axis=-1) + 1 for inputs in layers[:-1])


def step_l1(deltas: tuple[np.ndarray, ...], sizes: tuple[np.ndarray, ...]) -> np.ndarray:
    """L1 norm over all trunk weights and biases of the gradients that `deltas` stand for; the unit axis goes."""
    total = np.zeros(deltas[0].shape[:-1])
    for delta, size in zip(deltas, sizes, strict=True):
        total += (np.abs(delta) @ np.ones(delta.shape[-1])) * size
    return total
