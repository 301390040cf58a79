"""The affinity that is read from one bank of per-sample, per-task trunk gradients.

The gradient of stay i's loss on task t by the trunk is residual[i, t] * J_i^T w_t: a number that holds the label, times
a direction that does not. The gradient by the weights of a dense layer is the outer product of what went in and what
comes back, so that one backward pass for each task gives all directions. They are kept as sketches that preserve inner
products, the tensor sketch (Pham and Pagh 2013), which never forms the outer product. Resampling patients is then a
change of weights and costs no further gradient.

The bank is filled after a short joint training of all tasks from a random start; more starts can be averaged over.
`samplewise` is [Group]'s mean over stays of the distance between two tasks' steps (Thakur et al., arXiv 2412.04413),
in L2, each task's steps scaled to mean length 1: symmetric, 0 on the diagonal, smaller = more alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int32, Shaped
from torch import Tensor

from pipeline.core.errors import DataError
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import child_seed
from pipeline.grouping.batched_trainer import null_losses, task_losses

HIDDEN: Final = (64, 64)
SKETCH: Final = 256  # numbers that stand for the gradient by one layer
MAX_STAYS: Final = 800  # trained on are all, gradients are kept of so many
BATCH: Final = 128
LEARNING_RATE: Final = 2e-3  # Adam


@final
class Trunk:
    """Dense tanh layers that give what went into and came out of each of them."""

    def __init__(self, n_inputs: int, draws: torch.Generator) -> None:
        shapes = list(pairwise((n_inputs, *HIDDEN)))
        self.weights = [_uniform(into, out, draws) for into, out in shapes]
        self.biases = [torch.zeros(out, requires_grad=True) for _, out in shapes]

    @property
    def parameters(self) -> list[Tensor]:
        """Everything that tasks share."""
        return [*self.weights, *self.biases]

    def run(self, inputs: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """`(stay, feature)` to the embedding `(stay, unit)`, and of each layer what went in and the sum before tanh."""
        now, layers = inputs, []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            out = torch.addmm(bias, now, weight)
            layers.append((now, out))
            now = torch.tanh(out)
        return now, layers


def _uniform(into: int, out: int, draws: torch.Generator) -> Tensor:
    """Glorot and Bengio (2010)."""
    bound = math.sqrt(6 / (into + out))
    return ((torch.rand(into, out, generator=draws) * 2 - 1) * bound).requires_grad_(True)


@final
@dataclass(frozen=True, eq=False, repr=False)
class GradientBank:
    """Directions and residuals at every point (a trained start); 0 where a label is missing."""

    directions: Float32[np.ndarray, "point task stay number"]  # sketches of d logit / d trunk
    residuals: Float32[np.ndarray, "point task stay"]  # d loss / d logit, losses in units of the task's null loss
    known: Bool[np.ndarray, "task stay"]
    stays: Int32[np.ndarray, " stay"]  # which of the stays that it was filled from

    def weights(self, rows: Int32[np.ndarray, " drawn"]) -> Float64[np.ndarray, " stay"]:
        """How often each of the bank's stays is among drawn rows of the stays that it was filled from."""
        return np.asarray(np.bincount(rows, minlength=int(self.stays.max()) + 1)[self.stays], dtype=np.float64)


def fill_bank(
    inputs: Shaped[np.ndarray, "stay feature"],
    labels: Shaped[np.ndarray, "stay task"],
    *,
    n_points: int = 1,
    epochs: int = 1,
    seed: int,
    on_step: OnStep = ignore_step,
) -> GradientBank:
    """Train all tasks together for `epochs` from `n_points` starts and keep the gradients at the end of each.

    Args:
        labels: in [0, 1]; NaN = missing.

    Raises:
        DataError: a task has fewer than two different labels.
    """
    values = np.asarray(labels, dtype=np.float32)
    if any(len(np.unique(column[np.isfinite(column)])) < 2 for column in values.T):
        raise DataError("a task has fewer than two different labels: it has no gradient to compare")
    null = null_losses(values, np.arange(len(values))).astype(np.float32)
    x, y = torch.tensor(np.asarray(inputs, dtype=np.float32)), torch.tensor(values)
    known, y = y.isfinite(), y.nan_to_num(0.0)
    kept = torch.randperm(len(x), generator=_draws(seed, "stays"))[:MAX_STAYS].sort().values
    found = list[tuple[Tensor, Tensor]]()
    for point in range(n_points):
        draws = _draws(seed, "point", point)
        network = Trunk(x.shape[-1], draws)
        mean = torch.tensor(np.nanmean(values, axis=0)).clamp(1e-6, 1 - 1e-6)
        heads = (torch.rand(HIDDEN[-1], values.shape[1], generator=draws) * 2 - 1) / math.sqrt(HIDDEN[-1])
        bias = torch.log(mean / (1 - mean))
        _train(network, heads.requires_grad_(True), bias.requires_grad_(True), (x, y, known), null, epochs, draws)
        found.append(_gradients(network, heads.detach(), bias.detach(), x[kept], _draws(seed, "sketch", point)))
        on_step(point + 1, n_points, float("nan"))
    logits = torch.stack([one[1] for one in found]).transpose(1, 2)
    directions = torch.stack([one[0] for one in found]) if n_points > 1 else found[0][0][None]
    here, seen = y[kept].T, known[kept].T
    residuals = torch.where(seen, torch.sigmoid(logits) - here, 0.0) / torch.tensor(null)[:, None]
    return GradientBank(
        directions=directions.numpy(),
        residuals=residuals.numpy(),
        known=seen.numpy(),
        stays=kept.numpy().astype(np.int32),
    )


def _draws(seed: int, *names: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(child_seed(seed, "grouping", "bank", *names))


def _train(
    network: Trunk,
    heads: Tensor,
    bias: Tensor,
    data: tuple[Tensor, Tensor, Tensor],
    null: np.ndarray,
    epochs: int,
    draws: torch.Generator,
) -> None:
    """All tasks together, losses in units of their null losses."""
    x, y, known = data
    weight = 1 / torch.tensor(null)
    optimiser = torch.optim.Adam([*network.parameters, heads, bias], lr=LEARNING_RATE, fused=True)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x), generator=draws), BATCH):
            logits = network.run(x[rows])[0] @ heads + bias
            loss = task_losses(logits[None], y[rows], known[rows].float())[0]
            optimiser.zero_grad(set_to_none=True)
            (loss * weight).sum().backward()  # type: ignore[no-untyped-call]  # torch has no annotation here
            optimiser.step()


def _gradients(network: Trunk, heads: Tensor, bias: Tensor, x: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sketched directions `(task, stay, number)` and logits `(stay, task)`; stays do not meet, so one pass for all."""
    embedding, layers = network.run(x)
    outputs = [out for _, out in layers]
    asked = [torch.autograd.grad(embedding, outputs, head.expand_as(embedding), retain_graph=True) for head in heads.T]
    sketched = torch.empty(heads.shape[1], len(x), SKETCH * len(layers))
    for nth, ((inputs, _), whole) in enumerate(zip(layers, torch.split(sketched, SKETCH, dim=2), strict=True)):
        sketch(inputs.detach(), torch.stack([one[nth] for one in asked]), draws, whole)
    return sketched, (embedding @ heads + bias).detach()


def sketch(inputs: Tensor, delta: Tensor, draws: torch.Generator, into: Tensor) -> None:
    """Of the gradients by weights and bias of one layer: `(stay, unit in)`, `(task, stay, unit out)` into
    `(task, stay, size)`, `size` even.

    Inner products are preserved on average over `draws`, with a deviation of about |g| |g'| sqrt(2 / size).
    The count sketch of an outer product is the convolution of two count sketches, a product of their spectra. It stays
    a spectrum, scaled so that inner products are those of the sketch (Parseval): nothing is transformed back.
    """
    inputs = torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=-1)
    size = into.shape[-1]
    scale = torch.full((size // 2 + 1,), math.sqrt(2 / size))
    scale[[0, -1]] = math.sqrt(1 / size)  # the two frequencies that come once
    first, second = (_hashed(side.shape[-1], size, draws) for side in (inputs, delta))
    a, b = inputs @ (first[0] * scale), inputs @ (first[1] * scale)
    for one, whole in zip(delta, into, strict=True):  # task by task, so that what is in between stays in the cache
        c, d = one @ second[0], one @ second[1]
        torch.sub(a * c, b * d, out=whole[:, : size // 2 + 1])
        torch.add((a * d)[:, 1:-1], (b * c)[:, 1:-1], out=whole[:, size // 2 + 1 :])


def _hashed(n_units: int, size: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """What takes values of so many units to the spectrum of their `size` signed buckets, `(unit, frequency)`: real and
    imaginary part."""
    table = torch.zeros(n_units, size)
    table[torch.arange(n_units), torch.randint(size, (n_units,), generator=draws)] = _signs(n_units, draws)
    spectrum = torch.fft.rfft(table)
    return spectrum.real.contiguous(), spectrum.imag.contiguous()


def _signs(size: int, draws: torch.Generator) -> Tensor:
    return torch.randint(2, (size,), generator=draws).float() * 2 - 1


def samplewise(bank: GradientBank, weights: Float64[np.ndarray, " stay"]) -> Float64[np.ndarray, "task task"]:
    """Mean L2 distance of steps on the same stay, over stays where both labels are known.

    `weights` counts how often each of the bank's stays is there: ones, or a draw of a patient bootstrap.
    """
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
