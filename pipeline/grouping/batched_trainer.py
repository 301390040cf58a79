"""Trains many small multi-task networks at once: groups x seeds as one batched model, stopped early per task.

Which groups of tasks help each other is found by training them, often hundreds of groups times several seeds. Each is a
network so small that a machine spends its time on overhead; side by side they are a few large products. Models of one
seed start from the same weights and see the same batches, so that two groups differ by their tasks alone.

A task keeps the predictions of the epoch at which *its* loss on the stopping stays was lowest, so a group is never
charged for a task that needs fewer epochs than its mates. A model rests when none of its tasks has improved for
`patience` evaluations. An under-trained trainer invents negative transfer: `Trained.at_limit` says which models were
still improving when the epochs ran out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64
from scipy.special import xlogy
from torch import Tensor
from torch.nn import functional as F

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.seeds import child_seed

MODELS_AT_ONCE: Final = 64  # so that weights and Adam's moments of a chunk stay near the cache


@final
@dataclass(frozen=True)
class TrainerSettings:
    """How every network trains. Trunk: dense ReLU layers of `hidden` units; one linear head per task."""

    hidden: tuple[int, ...] = (64,)
    learning_rate: float = 2e-3
    weight_decay: float = 1.0  # AdamW's, decoupled; chosen on stays that no benchmark scores
    batch_size: int = 128
    max_epochs: int = 100
    patience: int = 4  # evaluations without a better loss
    evaluate_every: int = 2  # epochs

    def __post_init__(self) -> None:
        numbers = (*self.hidden, self.batch_size, self.max_epochs, self.patience, self.evaluate_every)
        if not self.hidden or min(numbers) < 1 or not self.learning_rate > 0 or not self.weight_decay >= 0:
            raise ConfigError("a trainer needs sizes, epochs, patience >= 1, a learning rate > 0 and a decay >= 0")


@final
@dataclass(frozen=True, eq=False, repr=False)
class Trained:
    """Predictions of every group and seed, each task at its own best epoch; NaN for tasks outside a group."""

    logits: Float32[np.ndarray, "group seed stay task"]
    at_limit: Bool[np.ndarray, "group seed"]  # some task was still improving when the epochs ran out


def train_groups(
    inputs: Float32[np.ndarray, "stay feature"],
    labels: Float32[np.ndarray, "stay task"],
    *,
    train: np.ndarray,
    stopping: np.ndarray,
    scored: np.ndarray,
    groups: Bool[np.ndarray, "group task"],
    seeds: Sequence[int],
    settings: TrainerSettings | None = None,
    device: str = "cpu",
    swap: bool = False,
) -> Trained:
    """Train each group with each seed on `train` rows; predictions for `scored` rows.

    Every member task's log-loss is divided by that of its null model (the training prevalence), so that rare and common
    tasks weigh alike; stays without a label do not count. Labels in [0, 1] (a scaled regression target too).

    `swap` reads every training twice: stopped on `stopping` it scores `scored`, stopped on `scored` it scores
    `stopping`. Then `Trained.logits` has the scored rows first and the stopping rows after them, no row scored by a
    network that it stopped; limits are those of the first reading.

    Raises:
        DataError: a task of some group has no known label, or one class only, among the training or stopping stays.
    """
    settings = settings or TrainerSettings()
    _check(labels, train, stopping, groups)
    null = null_losses(labels, train)
    readings = ((stopping, scored), (scored, stopping)) if swap else ((stopping, scored),)
    if swap:
        _check(labels, train, scored, groups)
    data = _Data.on(device, inputs, labels, train, readings)
    weights = torch.tensor(1 / null, dtype=torch.float32, device=device)
    n_groups, n_tasks = groups.shape
    n_scored = sum(len(rows) for _, rows in readings)
    logits = np.full((n_groups, len(seeds), n_scored, n_tasks), np.nan, dtype=np.float32)
    limit = np.zeros((n_groups, len(seeds)), dtype=bool)
    chunks = [np.arange(n_groups)[start : start + MODELS_AT_ONCE] for start in range(0, n_groups, MODELS_AT_ONCE)]
    for number, seed in enumerate(seeds):
        for rows in chunks:
            members = torch.tensor(groups[rows], device=device)
            chunk = _Chunk(data, members, weights, seed, settings)
            chunk.run()
            outside = ~groups[rows]
            read = torch.cat([one.best_logits for one in chunk.readings], dim=1).cpu().numpy()
            logits[rows, number] = np.where(outside[:, None, :], np.nan, read)
            limit[rows, number] = chunk.at_limit.cpu().numpy()
    return Trained(logits, limit)


def null_losses(labels: Float32[np.ndarray, "stay task"], rows: np.ndarray) -> Float64[np.ndarray, " task"]:
    """Mean loss of always predicting the rows' mean label; at least that of one event in a million."""
    known = labels[rows].astype(np.float64)
    mean = np.nanmean(known, axis=0).clip(1e-6, 1 - 1e-6)
    null = -(mean * np.log(mean) + (1 - mean) * np.log(1 - mean)) - np.nanmean(entropies(known), axis=0)
    return np.asarray(np.maximum(null, 1.4e-5))


def log_losses(
    logits: Float32[np.ndarray, "... stay task"], labels: Float32[np.ndarray, "stay task"]
) -> Float64[np.ndarray, "... stay task"]:
    """Log-loss of each prediction; NaN where label or prediction is missing. 0 = the label itself was predicted."""
    z = logits.astype(np.float64)
    return np.asarray(np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z))) - labels * z - entropies(labels))


def entropies(labels: np.ndarray) -> np.ndarray:
    """What no prediction of a label between 0 and 1, a number, can go below; 0 for classes."""
    known = np.asarray(labels, dtype=np.float64)
    return np.asarray(-(xlogy(known, known) + xlogy(1 - known, 1 - known)))


def _check(labels: np.ndarray, train: np.ndarray, stopping: np.ndarray, groups: np.ndarray) -> None:
    if not bool(groups.any(axis=1).all()):
        raise DataError("a group without a task cannot be trained")
    used = groups.any(axis=0)
    for name, rows in (("training", train), ("stopping", stopping)):
        part = labels[rows][:, used]
        known = np.isfinite(part)
        low = np.where(known, part, np.inf).min(axis=0, initial=np.inf)
        high = np.where(known, part, -np.inf).max(axis=0, initial=-np.inf)
        if bool((low >= high).any()):
            raise DataError(f"{int((low >= high).sum())} tasks have fewer than two classes among the {name} stays")


Part = tuple[Tensor, Tensor, Tensor]
"""Inputs (stay, feature), labels and known (stay, task); missing labels 0 with weight 0."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class _Data:
    """What is trained on, and pairs of what stops and what is then scored; on the device."""

    train: Part
    readings: tuple[tuple[Part, Tensor], ...]

    @classmethod
    def on(
        cls,
        device: str,
        inputs: np.ndarray,
        labels: np.ndarray,
        train: np.ndarray,
        readings: tuple[tuple[np.ndarray, np.ndarray], ...],
    ) -> _Data:
        def part(rows: np.ndarray) -> Part:
            label = torch.tensor(labels[rows], device=device)
            return torch.tensor(inputs[rows], device=device), label.nan_to_num(0.0), label.isfinite().float()

        return cls(
            part(train),
            tuple((part(stops), torch.tensor(inputs[scored], device=device)) for stops, scored in readings),
        )


@final
class _Reading:
    """The best epoch of every model and task by one set of stopping stays, and its predictions for others."""

    def __init__(self, stopping: Part, scored: Tensor, members: Tensor) -> None:
        self.stopping, self.scored, self.members = stopping, scored, members
        n_models, n_tasks = members.shape
        device = members.device
        self.best_loss = torch.full((n_models, n_tasks), math.inf, device=device)
        self.best_logits = torch.zeros((n_models, len(scored), n_tasks), device=device)

    def look(self, logits: Callable[[Tensor], Tensor], awake: Tensor) -> Tensor:
        """Keep what is better than before; which awake models have a task that is."""
        inputs, labels, known = self.stopping
        loss = task_losses(logits(inputs), labels, known)
        better = (loss < self.best_loss) & self.members & awake[:, None]
        self.best_loss = torch.where(better, loss, self.best_loss)
        if bool(better.any()):
            self.best_logits = torch.where(better[:, None, :], logits(self.scored), self.best_logits)
        return better.any(dim=1)


@final
class _Chunk:
    """Some groups of one seed while they train; all tensors have the model axis first."""

    def __init__(self, data: _Data, members: Tensor, weights: Tensor, seed: int, settings: TrainerSettings) -> None:
        self.data, self.settings, self.members = data, settings, members
        device = members.device
        n_models, n_tasks = members.shape
        self.draws = torch.Generator().manual_seed(child_seed(seed, "grouping", "trainer"))
        self.weight = weights * members.float()
        self.parameters = [
            one.expand(n_models, *one.shape).clone().to(device).requires_grad_(True)
            for one in self._initial(data.train[0].shape[1], n_tasks)
        ]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.readings = [_Reading(stopping, scored, members) for stopping, scored in data.readings]
        self.since_gain = torch.zeros(n_models, dtype=torch.int32, device=device)
        self.at_limit = torch.ones(n_models, dtype=torch.bool, device=device)

    def _initial(self, n_features: int, n_tasks: int) -> list[Tensor]:
        """One model's weights and biases, drawn as torch.nn.Linear draws them; all models of the seed start here."""
        widths = (n_features, *self.settings.hidden, n_tasks)
        found = []
        for into, out in pairwise(widths):
            bound = 1 / math.sqrt(into)
            found.append((torch.rand(into, out, generator=self.draws) * 2 - 1) * bound)
            found.append((torch.rand(1, out, generator=self.draws) * 2 - 1) * bound)
        return found

    def logits(self, inputs: Tensor) -> Tensor:
        """`(stay, feature)` -> `(model, stay, task)`. The first layer is one product for all models."""
        first, bias = self.parameters[:2]
        n_models, n_features, width = first.shape
        flat = inputs @ first.permute(1, 0, 2).reshape(n_features, n_models * width)
        hidden = F.relu(flat.view(len(inputs), n_models, width).transpose(0, 1) + bias)
        for weight, bias in zip(self.parameters[2:-2:2], self.parameters[3:-2:2], strict=True):
            hidden = F.relu(torch.baddbmm(bias, hidden, weight))
        return torch.baddbmm(self.parameters[-1], hidden, self.parameters[-2])

    def run(self) -> None:
        """Train until every model rests or the epochs are over."""
        inputs, labels, known = self.data.train
        for epoch in range(1, self.settings.max_epochs + 1):
            order = torch.randperm(len(inputs), generator=self.draws)
            for rows in torch.split(order, self.settings.batch_size):
                batch = rows.to(inputs.device)
                loss = task_losses(self.logits(inputs[batch]), labels[batch], known[batch])
                self.optimiser.zero_grad(set_to_none=True)
                (loss * self.weight).sum().backward()  # type: ignore[no-untyped-call]  # torch has no annotation here
                self.optimiser.step()
            if epoch % self.settings.evaluate_every == 0 or epoch == self.settings.max_epochs:
                self._evaluate()
                self.at_limit = self.since_gain < self.settings.patience
                if not bool(self.at_limit.any()):
                    return

    @torch.no_grad()
    def _evaluate(self) -> None:
        """A model that has rested keeps what it has, so that its result does not depend on its neighbours."""
        awake = self.since_gain < self.settings.patience
        gained = torch.stack([reading.look(self.logits, awake) for reading in self.readings]).any(dim=0)
        self.since_gain = torch.where(awake, torch.where(gained, 0, self.since_gain + 1), self.since_gain)


def task_losses(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Mean log-loss over the stays with a known label: logits `(model, stay, task)` -> `(model, task)`."""
    losses = F.softplus(logits) - labels * logits
    return (losses * known).sum(dim=1) / known.sum(dim=0).clamp(min=1.0)
