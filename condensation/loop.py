"""The one condensation loop: ask the method for a loss, take a step on the samples, keep the best, write checkpoints.

A method is a function (step, samples) -> loss; it owns its networks and its batches. It must be a *pure function of the
step and the samples*: what it draws at random at a step comes from a seed that names that step. So a run that is
interrupted and resumed takes exactly the steps that it would have taken. The loop owns the samples, their labels, the
optimiser and nothing else.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from condensation.checkpoint import LoopState, load_state, save_state
from pipeline.core.digest import digest_array, digest_json
from pipeline.core.errors import ConfigError, DataError
from pipeline.core.protocols import OnStep
from pipeline.core.seeds import generator
from pipeline.core.types import EncodedCohort
from pipeline.probes.training import rows_on

REPORT_EVERY = 10  # steps between calls of on_step: reading a loss back would stall an accelerator
WINDOW_STEPS = 50
"""Steps over which losses are averaged before they are compared: one loss depends on the network drawn for it."""
SMALLEST_GAIN = 1e-3  # share of the loss by which a window must be better, for `patience`
LARGEST_LOGIT = 6.0  # a learned label starts no nearer to 0 or 1 than 0.0025


class StopCondensing(Exception):
    """Raised by an `on_step` callback: end the loop here and keep the best samples so far."""


@final
@dataclass(frozen=True)
class Samples:
    """The samples as a method sees them, classes of task 0 one after the other; gradients flow into them."""

    features: Tensor  # (sample, step, channel)
    labels: Tensor  # (sample, task) in [0, 1], NaN = missing

    def per_class(self, n_classes: int = 2) -> tuple[Tensor, ...]:
        """The features of each class of task 0."""
        return torch.split(self.features, len(self.features) // n_classes)


Loss = Callable[[int, Samples], Tensor]
"""(step, samples) -> scalar loss, the same for the same step and samples."""


@final
@dataclass(frozen=True)
class LoopSettings:
    """What the loop needs to know beyond the loss."""

    iterations: int
    learning_rate: float
    label_rate: float = 0.0  # learning rate of the known labels' logits; 0 = labels stay
    anneal: bool = False  # cosine decay of the rates to 0, as if all iterations were taken
    components: int | None = None  # samples move in the span of that many slowest cosines over time; None = freely
    units: tuple[float, ...] | None = None  # what a move of 1 is worth in each channel; None = 1
    bounds: tuple[float, float] | None = None  # samples are clamped to this range
    tied: tuple[int, ...] = ()  # channels with one value per sample: statics, which have no course over time
    masks: tuple[int, ...] = ()  # channels clamped to [0, 1] whatever the bounds
    falling: tuple[int, ...] = ()  # channels that never rise over time
    keep_best: bool = False  # return the samples of the best window of steps, not the last
    patience: int | None = None  # windows without a better one before the loop stops by itself
    checkpoint: str | Path | None = None  # state is written here and taken up from here

    def __post_init__(self) -> None:
        if self.iterations < 0 or not self.learning_rate > 0 or not self.label_rate >= 0:
            raise ConfigError("a condensation loop needs iterations >= 0, a learning rate > 0 and a label rate >= 0")
        if self.patience is not None and (self.patience < 1 or not self.keep_best):
            raise ConfigError("patience counts windows from 1 on and needs the best window to be kept")
        if self.components is not None and self.components < 1:
            raise ConfigError("samples need at least one cosine to move along")


def class_rows(encoded: EncodedCohort, at_least: int, why: str) -> list[np.ndarray]:
    """Row numbers of the stays of class 0 and class 1 of task 0; stays without that label belong to neither.

    The classes of a number are the halves of its public range: below the middle, and from it on.

    Raises:
        DataError: a class has fewer than `at_least` stays.
    """
    labels = encoded.labels[:, 0]
    rows = [np.flatnonzero(labels < 0.5), np.flatnonzero(labels >= 0.5)]
    for label, found in enumerate(rows):
        if len(found) < at_least:
            raise DataError(
                f"class {label} of task {encoded.tasks[0].name} has too few training stays: {why} needs {at_least}"
            )
    return rows


def class_batches(
    encoded: EncodedCohort, rows: Sequence[np.ndarray], batch_size: int, seed: int, device: str
) -> Callable[[int], list[Tensor]]:
    """Step -> a batch of up to `batch_size` real stays of each class, without replacement within a batch."""
    stays = rows_on(encoded.features, device)

    def batches(step: int) -> list[Tensor]:
        draws = generator(seed, "condense", "batch", step)
        chosen = [draws.choice(part, min(batch_size, len(part)), replace=False) for part in rows]
        return [stays(torch.from_numpy(part)) for part in chosen]

    return batches


def optimise_samples(
    initial: tuple[np.ndarray, np.ndarray],
    loss: Loss,
    settings: LoopSettings,
    *,
    context: object,
    device: str,
    on_step: OnStep,
) -> tuple[np.ndarray, np.ndarray]:
    """Move features `(sample, step, channel)` and, if asked for, labels `(sample, task)` down the loss with Adam.

    Args:
        context: plain data that names the run (method, configuration, seed, data): a checkpoint of another context is
            refused.

    Returns:
        features and labels: of the best window of steps, or the last ones (`LoopSettings.keep_best`).

    Raises:
        ConfigError: the checkpoint belongs to another run. DataError: it cannot be read, or the loss is not finite.
    """
    parameters = _Parameters(*initial, settings, device)
    state = LoopState.fresh("")
    if settings.checkpoint:
        start = [digest_array(array) for array in initial]
        fingerprint = digest_json({"context": context, "settings": _plain(settings), "start": start})
        stored = load_state(settings.checkpoint, fingerprint)
        state = parameters.restore(stored) if stored else LoopState.fresh(fingerprint)
    while state.step < settings.iterations and not _out_of_patience(state, settings):
        rate = 0.5 * (1 + math.cos(math.pi * state.step / settings.iterations)) if settings.anneal else 1.0
        value = loss(state.step, parameters.samples())
        parameters.descend(value, rate)
        state.step += 1
        state.losses.append(value.detach())
        if len(state.losses) == WINDOW_STEPS or state.step == settings.iterations:
            _close_window(state, parameters, settings)
        if state.step % REPORT_EVERY == 0 or state.step == settings.iterations:
            try:
                on_step(state.step, settings.iterations, float(value.detach()))
            except StopCondensing:
                break
    return state.best if settings.keep_best and state.best is not None else parameters.arrays()


def _close_window(state: LoopState, parameters: _Parameters, settings: LoopSettings) -> None:
    """Compare the window's mean loss with the best one's, remember the better samples, write the checkpoint."""
    mean = float(torch.stack(state.losses).mean())
    if not math.isfinite(mean):
        raise DataError(f"the condensation loss is not finite at step {state.step}; a lower learning rate may help")
    state.losses.clear()
    state.windows_since_gain = 0 if mean < state.best_loss * (1 - SMALLEST_GAIN) else state.windows_since_gain + 1
    if mean < state.best_loss:
        state.best_loss, state.best = mean, parameters.arrays()
    if settings.checkpoint:
        parameters.store(state)
        save_state(settings.checkpoint, state)


def _out_of_patience(state: LoopState, settings: LoopSettings) -> bool:
    return settings.patience is not None and state.windows_since_gain >= settings.patience


@final
class _Parameters:
    """The leaves that Adam moves, and the samples they stand for.

    With `components`, a sample is its start plus slow cosines over time: random networks notice fast wiggles that no
    trained network has any use for, and a loss on few of them would otherwise be lowered by such wiggles.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, settings: LoopSettings, device: str) -> None:
        self.start = torch.tensor(features, dtype=torch.float32, device=device)
        self.units = torch.tensor(settings.units or 1.0, dtype=torch.float32, device=device)
        self.bounds = settings.bounds
        self.tied = _at(settings.tied, features.shape[2], device)
        self.masks = _at(settings.masks, features.shape[2], device)
        self.falling = _at(settings.falling, features.shape[2], device)
        if self.tied is not None:
            self.start = torch.where(self.tied, self.start[:, :1], self.start)
        n_steps = features.shape[1]
        self.basis = None
        shape: tuple[int, ...] = features.shape
        if settings.components is not None and settings.components < n_steps:
            self.basis = _cosines(settings.components, n_steps).to(device)
            shape = (features.shape[0], settings.components, features.shape[2])
        self.moves = torch.zeros(shape, device=device, requires_grad=True)
        self.fixed_labels = torch.tensor(labels, dtype=torch.float32, device=device)
        logits = torch.logit(self.fixed_labels.nan_to_num(0.5).double()).clamp(-LARGEST_LOGIT, LARGEST_LOGIT).float()
        self.logits = logits.requires_grad_(settings.label_rate > 0)
        groups: list[dict[str, Any]] = [{"params": [self.moves], "lr": settings.learning_rate}]
        if settings.label_rate > 0:
            groups.append({"params": [self.logits], "lr": settings.label_rate})
        self.rates = [group["lr"] for group in groups]
        self.optimiser = torch.optim.Adam(groups)

    def samples(self) -> Samples:
        """Inside the bounds; a value that was clamped still passes its gradient on, so that it can come back."""
        moves = self.moves if self.basis is None else torch.einsum("kt,skc->stc", self.basis, self.moves)
        features = self.start + moves * self.units
        if self.bounds is not None:
            features = features + (features.detach().clamp(*self.bounds) - features.detach())
        if self.masks is not None:
            inside = torch.where(self.masks, features.detach().clamp(0, 1), features.detach())
            features = features + (inside - features.detach())
        if self.falling is not None:
            lowest = torch.cummin(features.detach(), dim=1).values
            features = features + (torch.where(self.falling, lowest, features.detach()) - features.detach())
        if self.tied is not None:
            features = torch.where(self.tied, features.mean(dim=1, keepdim=True), features)
        labels = self.fixed_labels
        if self.logits.requires_grad:
            labels = torch.where(labels.isnan(), labels, torch.sigmoid(self.logits))
        return Samples(features, labels)

    def descend(self, loss: Tensor, rate: float) -> None:
        """One step of Adam, its learning rates multiplied by `rate`."""
        for group, base in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = base * rate
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward without annotations
        self.optimiser.step()

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Copies of features and labels on the CPU."""
        now = self.samples()
        return now.features.detach().cpu().numpy().copy(), now.labels.detach().cpu().numpy().copy()

    def _leaves(self) -> list[Tensor]:
        return [parameter for group in self.optimiser.param_groups for parameter in group["params"]]

    def store(self, state: LoopState) -> None:
        """Write the leaves and Adam's two moments of each into `state`."""
        moments = [self.optimiser.state[leaf] for leaf in self._leaves()]
        state.leaves = [leaf.detach().cpu().numpy().copy() for leaf in self._leaves()]
        state.first = [one["exp_avg"].cpu().numpy().copy() for one in moments]
        state.second = [one["exp_avg_sq"].cpu().numpy().copy() for one in moments]

    def restore(self, state: LoopState) -> LoopState:
        """Take the leaves and moments from `state`, and return it."""
        stored = zip(self._leaves(), state.leaves, state.first, state.second, strict=True)
        for leaf, values, first, second in stored:
            with torch.no_grad():
                leaf.copy_(torch.from_numpy(values))
            self.optimiser.state[leaf] = {
                "step": torch.tensor(float(state.step)),
                "exp_avg": torch.from_numpy(first).to(leaf.device),
                "exp_avg_sq": torch.from_numpy(second).to(leaf.device),
            }
        return state


def _at(channels: tuple[int, ...], n_channels: int, device: str) -> Tensor | None:
    """Whether each channel is one of these, `(channel,)`; None when there are none."""
    if not channels:
        return None
    found = torch.zeros(n_channels, dtype=torch.bool, device=device)
    found[list(channels)] = True
    return found


def _cosines(components: int, n_steps: int) -> Tensor:
    """The `components` slowest vectors of the discrete cosine transform, amplitude 1: `(component, step)`."""
    middle = (torch.arange(n_steps) + 0.5) / n_steps
    return torch.cos(math.pi * torch.arange(components)[:, None] * middle[None])


def _plain(settings: LoopSettings) -> dict[str, object]:
    plain = dataclasses.asdict(dataclasses.replace(settings, checkpoint=None))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
