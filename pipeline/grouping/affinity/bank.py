"""One bank of per-sample, per-task trunk gradients that every gradient-based affinity reads.

The gradient of stay i's loss on task t by the trunk is residual[i, t] * J_i^T w_t: a number that holds the label, times
a direction that does not. One backward pass for each task gives all directions (`affinity.taped`). They are
kept as sketches that preserve inner products: the tensor sketch (Pham and Pagh 2013), which never forms the outer
product, for maps that run once per stay; random signs summed in buckets (the count sketch of Charikar et al. 2002) for
maps that run at every step. Resampling patients is then a change of weights and costs no further gradient.

The bank is filled after a short joint training of all tasks from a random start; more starts can be averaged over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int32, Shaped
from torch import Tensor

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import child_seed
from pipeline.grouping.affinity.taped import Tape, TapedTrunk, TrunkKind
from pipeline.grouping.batched_trainer import null_losses, task_losses

SKETCH: Final = 256  # numbers that stand for the gradient by one affine map
MAX_STAYS: Final = {"mlp": 800, "tcn": 256, "gru": 256}  # a gradient over time costs that much more
BATCH: Final = 128
LEARNING_RATE: Final = 2e-3  # Adam


@final
@dataclass(frozen=True, eq=False, repr=False)
class GradientBank:
    """Directions and residuals at every point (a trained start); 0 where a label is missing."""

    directions: Float32[np.ndarray, "point task stay number"]  # sketches of d logit / d trunk
    residuals: Float32[np.ndarray, "point task stay"]  # d loss / d logit, losses in units of the task's null loss
    known: Bool[np.ndarray, "task stay"]
    subjects: Int32[np.ndarray, " stay"]
    stays: Int32[np.ndarray, " stay"]  # which of the stays that it was filled from

    def weights(self, rows: Int32[np.ndarray, " drawn"]) -> Float64[np.ndarray, " stay"]:
        """How often each of the bank's stays is among drawn rows of the stays that it was filled from."""
        return np.asarray(np.bincount(rows, minlength=int(self.stays.max()) + 1)[self.stays], dtype=np.float64)


def fill_bank(
    inputs: Shaped[np.ndarray, "stay ..."],
    labels: Shaped[np.ndarray, "stay task"],
    subjects: Int32[np.ndarray, " stay"],
    *,
    trunk: TrunkKind = "mlp",
    n_points: int = 1,
    epochs: int = 1,
    max_stays: int | None = None,
    seed: int,
    on_step: OnStep = ignore_step,
) -> GradientBank:
    """Train all tasks together for `epochs` from `n_points` starts and keep the gradients at the end of each.

    Args:
        inputs: `(stay, feature)` for "mlp", `(stay, step, channel)` for "tcn" and "gru".
        labels: in [0, 1]; NaN = missing.
        max_stays: trained on are all stays, gradients are kept of so many of them; None = as `MAX_STAYS` says.

    Raises:
        ConfigError: an unknown trunk. DataError: a task has fewer than two different labels.
    """
    if trunk not in MAX_STAYS:
        raise ConfigError(f"no trunk is named {trunk!r}; there are: {', '.join(MAX_STAYS)}")
    values = np.asarray(labels, dtype=np.float32)
    if any(len(np.unique(column[np.isfinite(column)])) < 2 for column in values.T):
        raise DataError("a task has fewer than two different labels: it has no gradient to compare")
    null = null_losses(values, np.arange(len(values))).astype(np.float32)
    x, y = torch.tensor(np.asarray(inputs, dtype=np.float32)), torch.tensor(values)
    known, y = y.isfinite(), y.nan_to_num(0.0)
    kept = torch.randperm(len(x), generator=_draws(seed, "stays"))[: max_stays or MAX_STAYS[trunk]].sort().values
    found = list[tuple[Tensor, Tensor]]()
    for point in range(n_points):
        draws = _draws(seed, "point", point)
        network = TapedTrunk(trunk, x.shape[-1], draws)
        mean = torch.tensor(np.nanmean(values, axis=0)).clamp(1e-6, 1 - 1e-6)
        heads = (torch.rand(network.n_units, values.shape[1], generator=draws) * 2 - 1) / math.sqrt(network.n_units)
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
        subjects=np.asarray(subjects, dtype=np.int32)[kept.numpy()],
        stays=kept.numpy().astype(np.int32),
    )


def _draws(seed: int, *names: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(child_seed(seed, "grouping", "bank", *names))


def _train(
    network: TapedTrunk,
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


def _gradients(
    network: TapedTrunk, heads: Tensor, bias: Tensor, x: Tensor, draws: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Sketched directions `(task, stay, number)` and logits `(stay, task)`; stays do not meet, so one pass for all."""
    embedding, tapes = network.run(x)
    outputs = [out for tape in tapes for out in tape.outputs]
    asked = [torch.autograd.grad(embedding, outputs, head.expand_as(embedding), retain_graph=True) for head in heads.T]
    sketched, start = torch.empty(heads.shape[1], len(x), SKETCH * len(tapes)), 0
    for tape, whole in zip(tapes, torch.split(sketched, SKETCH, dim=2), strict=True):
        end = start + len(tape.outputs)
        delta = torch.stack([_by_position(one[start:end]) for one in asked])
        sketch(delta, tape, draws, whole)
        start = end
    return sketched, (embedding @ heads + bias).detach()


def _by_position(deltas: tuple[Tensor, ...]) -> Tensor:
    """`(stay, position, unit out)`, however the map ran."""
    if len(deltas) > 1:
        return torch.stack(deltas, dim=1)
    return deltas[0] if deltas[0].dim() == 3 else deltas[0][:, None]


def sketch(delta: Tensor, tape: Tape, draws: torch.Generator, into: Tensor) -> None:
    """Of the gradients by weights and bias of one map: `(task, stay, position, unit out)` into `(task, stay, size)`.

    Inner products are preserved on average over `draws`, with a deviation of about |g| |g'| sqrt(2 / size).
    """
    inputs = tape.inputs.detach()
    inputs = torch.cat([inputs, torch.ones_like(inputs[..., :1])], dim=-1)
    n_in, n_out, size = inputs.shape[-1], delta.shape[-1], into.shape[-1]
    if inputs.shape[1] > 1:
        # signs on both sides and zeros on the small one, so that the large product is touched once
        fill = -n_in % (size // math.gcd(n_out, size))
        signed = torch.nn.functional.pad(inputs * _signs(n_in, draws), (0, fill))
        outer = (delta * _signs(n_out, draws)).transpose(2, 3) @ signed  # (task, stay, out, in), summed over positions
        torch.sum(outer.view(*outer.shape[:2], -1, size), dim=2, out=into)
    else:
        _tensor_sketch(inputs[..., 0, :], delta[..., 0, :], draws, into)


def _tensor_sketch(inputs: Tensor, delta: Tensor, draws: torch.Generator, into: Tensor) -> None:
    """Of the outer products of `(stay, unit in)` and `(task, stay, unit out)`, into `(task, stay, size)`, `size` even.

    The count sketch of an outer product is the convolution of two count sketches, a product of their spectra. It stays
    a spectrum, scaled so that inner products are those of the sketch (Parseval): nothing is transformed back.
    """
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
