"""Gradient matching: samples that pull a network's weights where the real stays pull them.

After Zhao, Mopuri and Bilen, *Dataset condensation with gradient matching* (ICLR 2021, arXiv 2006.05929): per class,
the loss is the sum over weight tensors of the distances between the gradients of the cross-entropy on real stays and on
samples, a distance being 1 - cosine per output unit. They walk one network along its training on the samples; here the
networks are frozen, at random or trained for some steps on real stays (Kim et al., arXiv 2205.14959), so that the real
gradients are exact means over all stays, computed once. No privacy guarantee can be given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from condensation.feature_pool import chosen_stays, class_chunks, trained_network
from condensation.loop import LoopSettings, Loss, Samples
from condensation.private.feature_map import public_range
from condensation.start import condense_with
from pipeline.core.errors import ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.options.base import BESIDE, Names, Positive, PositiveInt
from pipeline.core.options.condensers import MatchingOptions, TrainingSteps
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import child_seed, generator
from pipeline.core.threads import single_threaded
from pipeline.core.types import CondensedSet, EncodedCohort
from pipeline.probes.networks import SeriesNetwork, check_networks

METHOD: Final = "gradient_matching"
Gradients = tuple[Tensor, ...]


@final
@dataclass(frozen=True, eq=False)
class GradientTarget:
    """A frozen network and the mean gradients of the real stays of each class."""

    network: SeriesNetwork
    real: tuple[Gradients, ...]


@final
@dataclass(frozen=True, kw_only=True)
class GradientMatching(MatchingOptions):
    """Samples from centroids (or real stays, or noise), hard labels."""

    iterations: PositiveInt = 150
    learning_rate: Positive = 1e-3
    networks: Names = ("tcn-b", "lstm-b")
    pool_size: PositiveInt = 8
    training_steps: TrainingSteps = (0, 20)
    pool_stays: PositiveInt | None = 1024
    checkpoint: str | Path | None = field(default=None, metadata=BESIDE)

    def __post_init__(self) -> None:
        """Raises ConfigError on a bad choice; options shared with kernel matching mean the same there."""
        super().__post_init__()
        check_networks(self.networks)

    @single_threaded
    def condense(
        self,
        encoded: EncodedCohort,
        *,
        n_per_class: int,
        seed: int,
        noise: NoiseSource,
        device: str = "cpu",
        on_step: OnStep = ignore_step,
    ) -> CondensedSet:
        """2 * n_per_class samples in the public range, half of each class; `noise` is not used.

        Raises:
            ConfigError: n_per_class below 1, or task 0 is a number: this loss knows classes only.
            DataError: a class has no stay, or fewer than the start needs.
        """
        if encoded.tasks[0].kind != "binary":
            raise ConfigError(f"gradient matching needs a binary first task; {encoded.tasks[0].name} is a number")

        def make_loss(rows: Sequence[np.ndarray]) -> Loss:
            stays = chosen_stays(encoded, rows, self.pool_stays, seed)
            return gradient_loss([self._target(stays, k, seed, device) for k in range(self.pool_size)], seed)

        return condense_with(
            encoded,
            make_loss,
            method=METHOD,
            start=self.initialisation,
            settings=LoopSettings(
                self.iterations,
                self.learning_rate,
                anneal=True,
                bounds=public_range(encoded.transforms),
                keep_best=True,
                patience=self.patience,
                checkpoint=self.checkpoint,
            ),
            config=self.told(),
            n_per_class=n_per_class,
            seed=seed,
            device=device,
            on_step=on_step,
        )

    def _target(self, stays: EncodedCohort, number: int, seed: int, device: str) -> GradientTarget:
        name, turn = self.networks[number % len(self.networks)], number // len(self.networks)
        length = self.training_steps[turn % len(self.training_steps)]
        # dropout would make the two gradients differ by chance
        network = trained_network(stays, name, length, child_seed(seed, "pool", number), device).eval()
        real = tuple(class_gradients(network, class_chunks(stays, label, device), label) for label in (0.0, 1.0))
        return GradientTarget(network, real)


def class_gradients(network: SeriesNetwork, chunks: Iterable[Tensor], label: float) -> Gradients:
    """Mean gradient of task 0's cross-entropy over all stays of one class, which come in chunks."""
    sums: list[Tensor] = []
    stays = 0
    for chunk in chunks:
        found = torch.autograd.grad(_entropy(network, chunk, label, "sum"), list(network.parameters()))
        sums = [old + new for old, new in zip(sums, found, strict=True)] if sums else list(found)
        stays += len(chunk)
    return tuple(part / stays for part in sums)


def gradient_distance(real: Gradients, found: Gradients) -> Tensor:
    """Sum over weight tensors of the mean over output units (first axis) of 1 - cosine; vectors are one unit."""
    terms = []
    for one, other in zip(real, found, strict=True):
        flat, moved = (part.reshape(len(part), -1) if part.ndim > 1 else part[None] for part in (one, other))
        terms.append((1 - F.cosine_similarity(flat, moved, dim=1, eps=1e-12)).mean())
    return torch.stack(terms).sum()


def gradient_loss(pool: Sequence[GradientTarget], seed: int) -> Loss:
    """One network of the pool per step, sum over classes of task 0."""

    def loss(step: int, samples: Samples) -> Tensor:
        one = pool[int(generator(seed, "condense", "map", step).integers(len(pool)))]
        weights = list(one.network.parameters())
        terms = []
        for label, (part, real) in enumerate(zip(samples.per_class(), one.real, strict=True)):
            with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
                entropy = _entropy(one.network, part, float(label), "mean")
                found = torch.autograd.grad(entropy, weights, create_graph=True)
            terms.append(gradient_distance(real, found))
        return torch.stack(terms).sum()

    return loss


def _entropy(network: SeriesNetwork, features: Tensor, label: float, reduction: str) -> Tensor:
    logits = network(features)[:, 0]
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label), reduction=reduction)
