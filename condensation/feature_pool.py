"""Frozen feature maps and what real stays look like through them, computed once.

For a fixed map phi a quadratic loss on real stays needs them only through moments per task: the weighted sums of
phi phi^T, of phi t and of t^2, t being the label less its weighted mean. With these, matching is exact over the full
set, and a step costs the same for five thousand stays and for a million. (Kernel methods on evolving networks, Zhou et
al. 2022, must instead embed a fresh batch of real stays at every step.)

Maps: networks of `pipeline.probes.networks`, at random or trained for a few steps on balanced batches of real stays
(as Kim et al., arXiv 2205.14959, do), and the summaries that a classical receiver would compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from torch import Tensor

from pipeline.core.errors import ConfigError
from pipeline.core.seeds import child_seed, generator
from pipeline.core.types import EncodedCohort
from pipeline.probes.networks import NETWORKS, SeriesNetwork, build_network
from pipeline.probes.training import BATCH_SIZE, LEARNING_RATE, masked_loss

SUMMARIES: Final = "summaries"
CHUNK_STAYS: Final = 512
SPREAD_FLOOR: Final = 1e-4  # added to a variance under a root, whose slope is infinite at 0

Embed = Callable[[Tensor], Tensor]
"""(sample, step, channel) -> (sample, feature)."""


@final
@dataclass(frozen=True, eq=False)
class FeatureMap:
    """One frozen map with the moments of the real stays' centred and scaled features, in float64."""

    name: str
    trained: int  # steps that its network was trained on real stays; 0 = at random, or summaries
    embed: Embed
    mean: Tensor  # (feature,), weighted by the first task
    scale: float  # root of the features' total variance
    gram: Tensor  # (task, feature, feature): sum of w z z^T, weights of a task sum to 1
    target_sums: Tensor  # (task, feature): sum of w t z
    target_squares: Tensor  # (task,): sum of w t^2

    def __call__(self, features: Tensor) -> Tensor:
        """z of some samples, `(sample, feature)`, float64, with gradients."""
        return ((self.embed(features) - self.mean) / self.scale).double()


@final
@dataclass(frozen=True, eq=False)
class Targets:
    """Labels as a quadratic loss needs them."""

    weights: Tensor  # (stay, task), 0 = label missing; columns sum to 1 (or to 0 where no label is known)
    values: Tensor  # (stay, task), label less the task's weighted mean, 0 = missing
    centre: Tensor  # (task,), that mean
    binary: Tensor  # (task,): both 0 and 1 occur and nothing else does
    prior_logits: Tensor  # (task,): log odds of a binary task's events; 0 for task 0, whose samples are balanced


def balanced_targets(labels: np.ndarray) -> Targets:
    """Weights that give both classes of a task one half; labels other than 0 and 1 (a scaled regression) count alike.

    Labels `(stay, task)` in [0, 1], NaN = missing.
    """
    known = np.isfinite(labels)
    y = np.where(known, labels, 0.0).astype(np.float64)
    weights = known.astype(np.float64)
    binary, prior = np.zeros(labels.shape[1], bool), np.zeros(labels.shape[1])
    for task in range(labels.shape[1]):
        values = np.unique(y[known[:, task], task])
        if np.array_equal(values, [0.0, 1.0]):
            binary[task] = True
            share = y[known[:, task], task].mean()
            prior[task] = np.log(share / (1 - share)) if task > 0 else 0.0
            for value in (0.0, 1.0):
                chosen = known[:, task] & (y[:, task] == value)
                weights[chosen, task] /= chosen.sum()
    weights /= np.maximum(weights.sum(axis=0), 1e-300)
    centre = (weights * y).sum(axis=0)
    values = np.where(known, y - centre, 0.0)
    return Targets(*map(torch.from_numpy, (weights, values, centre, binary, prior)))


def chosen_stays(encoded: EncodedCohort, rows: Sequence[np.ndarray], at_most: int | None, seed: int) -> EncodedCohort:
    """Up to `at_most` random stays of each class of task 0; None = all."""
    draws = generator(seed, "pool", "stays")
    parts = [part if at_most is None or len(part) <= at_most else draws.choice(part, at_most, False) for part in rows]
    chosen = np.sort(np.concatenate(parts))
    return encoded if len(chosen) == len(encoded.labels) else encoded.take(chosen)


def class_chunks(encoded: EncodedCohort, label: float, device: str) -> Iterator[Tensor]:
    """The features of a class of task 0, `CHUNK_STAYS` at a time: `(stay, step, channel)`."""
    upper = encoded.labels[:, 0] >= 0.5
    rows = np.flatnonzero(upper if label == 1.0 else encoded.labels[:, 0] < 0.5)
    for start in range(0, len(rows), CHUNK_STAYS):
        yield torch.from_numpy(encoded.features[rows[start : start + CHUNK_STAYS]]).to(device)


def check_maps(maps: Sequence[str]) -> None:
    """Raises ConfigError on an unknown map or none."""
    known = {*NETWORKS, SUMMARIES}
    if not maps or set(maps) - known:
        raise ConfigError(f"feature maps must be among {', '.join(sorted(known))}")


def build_pool(
    encoded: EncodedCohort,
    maps: Sequence[str],
    size: int,
    *,
    training_steps: Sequence[int] = (0,),
    seed: int,
    device: str,
) -> list[FeatureMap]:
    """`size` maps, `maps` taken in turn, each kind trained for each of `training_steps` in turn.

    A map without random parts is built once and listed as often as its turn comes. Memory: one chunk of stays and the
    moments.
    """
    targets = balanced_targets(encoded.labels)
    pool: list[FeatureMap] = []
    fixed: dict[str, FeatureMap] = {}
    frozen = frozen_maps(encoded, maps, size, training_steps=training_steps, seed=seed, device=device)
    for name, length, embed in frozen:
        one = fixed.get(name) or _with_moments(name, length, embed, encoded, targets, device)
        if name == SUMMARIES:
            fixed[name] = one
        pool.append(one)
    return pool


def frozen_maps(
    encoded: EncodedCohort, maps: Sequence[str], size: int, *, training_steps: Sequence[int], seed: int, device: str
) -> Iterator[tuple[str, int, Embed]]:
    """`size` names, training steps and maps; `maps` in turn, each kind trained for each of `training_steps` in turn."""
    for number in range(size):
        name, turn = maps[number % len(maps)], number // len(maps)
        if name == SUMMARIES:
            yield name, 0, summaries
        else:
            length = training_steps[turn % len(training_steps)]
            network = trained_network(encoded, name, length, child_seed(seed, "pool", number), device)
            yield name, length, network.eval().requires_grad_(False).embed


def trained_network(encoded: EncodedCohort, name: str, steps: int, seed: int, device: str) -> SeriesNetwork:
    """A random network after `steps` steps of Adam on batches of real stays, half of each class of task 0."""
    network = build_network(
        name,
        n_channels=encoded.features.shape[2],
        n_steps=encoded.features.shape[1],
        n_tasks=encoded.labels.shape[1],
        seed=child_seed(seed, "weights"),
    ).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    for _ in _training(network, optimiser, encoded, [steps], seed, device):
        pass
    return network


def training_marks(
    encoded: EncodedCohort, name: str, lengths: Sequence[int], rate: float, seed: int, device: str
) -> list[dict[str, Tensor]]:
    """Copies of a network's weights before training and after each of `lengths` further steps of plain descent."""
    network = trained_network(encoded, name, 0, seed, device)
    optimiser = torch.optim.SGD(network.parameters(), lr=rate)

    def copy() -> dict[str, Tensor]:
        return {key: value.detach().clone() for key, value in network.named_parameters()}

    return [copy(), *(copy() for _ in _training(network, optimiser, encoded, lengths, seed, device))]


def _training(
    network: SeriesNetwork,
    optimiser: torch.optim.Optimizer,
    encoded: EncodedCohort,
    lengths: Sequence[int],
    seed: int,
    device: str,
) -> Iterator[None]:
    """Train, pausing after each length: cross-entropy over the known labels, batches half of each class of task 0."""
    draws = generator(seed, "batches")
    classes = [np.flatnonzero(encoded.labels[:, 0] < 0.5), np.flatnonzero(encoded.labels[:, 0] >= 0.5)]
    done = 0
    for length in lengths:
        for _ in range(length):
            batch = np.concatenate([draws.choice(part, BATCH_SIZE // 2) for part in classes])
            x = torch.from_numpy(encoded.features[batch]).to(device)
            y = torch.from_numpy(encoded.labels[batch]).to(device)
            with _dropout(child_seed(seed, "dropout", done), device):
                value = masked_loss(network(x), y)
            optimiser.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]  # torch leaves backward without annotations
            optimiser.step()
            done += 1
        yield


@contextmanager
def _dropout(seed: int, device: str) -> Iterator[None]:
    """Dropout's draws come from `seed`, and no global generator moves."""
    devices = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed(seed)
        yield


def summaries(x: Tensor) -> Tensor:
    """Last, mean, min, max, standard deviation and first-to-last change of each channel: `(sample, 6 * channel)`."""
    spread = (x.var(dim=1, unbiased=False) + SPREAD_FLOOR).sqrt()
    return torch.cat([x[:, -1], x.mean(dim=1), x.amin(dim=1), x.amax(dim=1), spread, x[:, -1] - x[:, 0]], dim=1)


@torch.no_grad()
def _with_moments(
    name: str, trained: int, embed: Embed, encoded: EncodedCohort, targets: Targets, device: str
) -> FeatureMap:
    """One pass in chunks; the stays' features are never held."""
    weights, values = targets.weights.to(device), targets.values.to(device)
    sums_of: list[Tensor] = []  # of w z z^T, w t z and w z
    for start in range(0, len(weights), CHUNK_STAYS):
        part = slice(start, start + CHUNK_STAYS)
        x = np.require(encoded.features[part], requirements="W")  # torch takes no read-only array quietly
        z = embed(torch.from_numpy(x).to(device)).double()
        w, t = weights[part], values[part]
        added = [torch.stack([(z * column[:, None]).T @ z for column in w.T]), (w * t).T @ z, w.T @ z]
        sums_of = [old + new for old, new in zip(sums_of, added, strict=True)] if sums_of else added
    gram, sums, totals = sums_of
    mean = totals[0]
    # about the mean: float64 of float32 features leaves digits enough; sums need nothing, as w t adds up to 0
    crossed = totals[:, :, None] * mean
    gram = gram - crossed - crossed.transpose(1, 2) + weights.sum(dim=0)[:, None, None] * torch.outer(mean, mean)
    scale = float(torch.diagonal(gram[0]).sum().clamp(min=0).sqrt()) or 1.0  # 0: the map tells no stays apart
    squares = (weights * values.square()).sum(dim=0)
    return FeatureMap(name, trained, embed, mean.float(), scale, gram / scale**2, sums / scale, squares)
