"""Trajectory matching: a few steps on the samples lead where many steps on the real stays led.

After Cazenavette et al., *Dataset distillation by matching training trajectories* (CVPR 2022, arXiv 2203.11932):
experts train on real stays and leave their weights at regular marks; at each step a student starts from a mark, takes
a few steps of gradient descent on the samples, and the loss is

    || student - expert's mark `span` later ||^2 / || start - that mark ||^2.

The student's learning rate is learned in the original; here it is chosen anew at every step, as the rate that takes
the first gradient on the samples nearest to the mark, so that no second schedule is needed. Experts descend plainly: a
few plain steps cannot follow Adam, whose steps have another direction. Small on purpose: one network of two layers and
short trajectories. No privacy guarantee can be given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from condensation.feature_pool import training_marks
from condensation.loop import LoopSettings, Loss, Samples
from condensation.private.feature_map import public_range
from condensation.start import condense_with
from pipeline.core.errors import ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.options.base import BESIDE, Positive, PositiveInt
from pipeline.core.options.condensers import MatchingOptions
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import child_seed, generator
from pipeline.core.threads import single_threaded
from pipeline.core.types import CondensedSet, EncodedCohort
from pipeline.probes.networks import SeriesNetwork, build_network, check_networks
from pipeline.probes.training import masked_loss

METHOD: Final = "trajectory_matching"
EXPERT_RATE: Final = 0.05
SMALLEST_RATE, LARGEST_RATE = 1e-4, 10.0  # of a student

Weights = dict[str, Tensor]


@final
@dataclass(frozen=True, kw_only=True)
class TrajectoryMatching(MatchingOptions):
    """Samples from centroids (or real stays, or noise), hard labels."""

    patience: PositiveInt | None = None
    iterations: PositiveInt = 100
    learning_rate: Positive = 1e-3
    network: str = "tcn-b"
    experts: PositiveInt = 8  # trained for `marks` * `mark_every` steps each
    mark_every: PositiveInt = 10
    marks: PositiveInt = 6
    span: PositiveInt = 2  # a student aims so many marks ahead
    student_steps: PositiveInt = 4
    checkpoint: str | Path | None = field(default=None, metadata=BESIDE)

    def __post_init__(self) -> None:
        """Raises ConfigError on an unknown choice, or a number out of range."""
        super().__post_init__()
        check_networks([self.network])
        if self.marks < self.span:
            raise ConfigError("trajectory matching needs at least as many marks as span")

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
            ConfigError: n_per_class below 1. DataError: a class has no stay, or fewer than the start needs.
        """

        def make_loss(rows: Sequence[np.ndarray]) -> Loss:
            lengths = [self.mark_every] * self.marks
            trails = [
                training_marks(encoded, self.network, lengths, EXPERT_RATE, child_seed(seed, "expert", k), device)
                for k in range(self.experts)
            ]
            shape = encoded.features.shape[1:]
            student = build_network(
                self.network, n_channels=shape[1], n_steps=shape[0], n_tasks=len(encoded.tasks), seed=0
            )
            return trajectory_loss(student.to(device).eval(), trails, self.span, self.student_steps, seed)

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


def trajectory_loss(
    student: SeriesNetwork, trails: Sequence[Sequence[Weights]], span: int, student_steps: int, seed: int
) -> Loss:
    """One expert and one starting mark per step; `student` lends its structure only."""

    def loss(step: int, samples: Samples) -> Tensor:
        draws = generator(seed, "condense", "mark", step)
        trail = trails[int(draws.integers(len(trails)))]
        first = int(draws.integers(len(trail) - span))
        start, goal = trail[first], trail[first + span]
        weights = {name: value.clone().requires_grad_(True) for name, value in start.items()}
        rate: float | None = None
        for _ in range(student_steps):
            gradients = _gradients(student, weights, samples)
            if rate is None:
                rate = _rate(gradients, start, goal) / student_steps
            weights = {name: value - rate * gradients[name] for name, value in weights.items()}
        return _distance(weights, goal) / _distance(start, goal).clamp(min=1e-12)

    return loss


def _gradients(student: SeriesNetwork, weights: Weights, samples: Samples) -> Weights:
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
        logits = functional_call(student, weights, (samples.features,))
        found = torch.autograd.grad(masked_loss(logits, samples.labels), list(weights.values()), create_graph=True)
    return dict(zip(weights, found, strict=True))


@torch.no_grad()
def _rate(gradients: Weights, start: Weights, goal: Weights) -> float:
    """The step along the first gradient that ends nearest to the goal."""
    along = sum(float((gradients[name] * (start[name] - goal[name])).sum()) for name in start)
    length = sum(float(gradient.square().sum()) for gradient in gradients.values())
    return min(max(along / max(length, 1e-12), SMALLEST_RATE), LARGEST_RATE)


def _distance(one: Weights, other: Weights) -> Tensor:
    return torch.stack([(one[name] - other[name]).square().sum() for name in one]).sum()
