"""Kernel-ridge matching on frozen feature pools: the set whose ridge regression predicts the real stays best.

After Nguyen et al. (KIP, arXiv 2011.00050) and Zhou, Nezhadarya and Ba (FRePo, arXiv 2206.00719): fit kernel ridge
regression on the samples, score it on the real stays, move the samples down that loss,

    w = Z' (Z Z' + m r I)^-1 y,      loss = sum over real stays of weight (w' z - t)^2 / sum of weight t^2,

Z the samples' features and y their centred labels. To that comes `spread` times the distance of the mean and standard
deviation of the samples' summaries from the real stays': trees split at thresholds, and averages of stays vary too
little to show them where. FRePo's features come from networks that evolve on the samples and meet fresh real stays at
every step. Here they are frozen (`condensation.feature_pool`), so the outer sum needs the real stays only through
moments computed once, is exact over all of them, and a step touches m samples and nothing else.

Labels: "hard" leaves the classes as they are; "teacher" labels each sample, wherever it moves, by the ridge regression
of all real stays (`condensation.teacher`: on the summaries while the samples move, on the pool at the end); "learned"
starts from the teacher's labels and lets each move by itself.
No privacy guarantee can be given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, final

import torch
from torch import Tensor

from condensation.feature_map import public_range
from condensation.feature_pool import (
    SUMMARIES,
    FeatureMap,
    Targets,
    balanced_targets,
    build_pool,
    check_maps,
    chosen_stays,
)
from condensation.loop import LoopSettings, Loss, Samples, optimise_samples
from condensation.start import STARTS, Start, condensed_set, initial_samples, rows_for_start, run_context
from condensation.teacher import Teacher
from pipeline.core.errors import ConfigError
from pipeline.core.noise import NoiseSource
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import generator
from pipeline.core.threads import single_threaded
from pipeline.core.types import CondensedSet, EncodedCohort

METHOD: Final = "kernel_matching"
SMALLEST_VARIANCE: Final = 1e-6  # of a summary, in units of all summaries' total
Labels = Literal["hard", "teacher", "learned"]


@final
class KernelMatching:
    """Samples from centroids (or real stays, or noise), matched on a pool of frozen maps."""

    def __init__(
        self,
        *,
        labels: Labels = "teacher",
        initialisation: Start = "centroids",
        iterations: int = 100,
        learning_rate: float = 1e-3,
        label_rate: float = 0.02,
        ridge: float = 1e-3,
        spread: float = 0.1,
        maps: Sequence[str] = ("tcn-b", "lstm-b", SUMMARIES),
        pool_size: int = 9,
        training_steps: Sequence[int] = (0,),
        pool_stays: int | None = 2048,
        components: int | None = None,
        patience: int | None = 3,
        checkpoint: str | Path | None = None,
    ) -> None:
        """Options.

        Args:
            iterations: at most; the loop also stops after `patience` windows of 50 steps without a better mean loss.
            learning_rate: of the samples, `label_rate` of learned labels' logits; both decay to 0.
            ridge: r above, in units of the real stays' total feature variance; more resembles shorter training.
            spread: weight of the mean and spread of summaries; 0 = none.
            maps: networks, or "summaries"; the pool holds `pool_size` of them, each trained `training_steps` in turn.
            pool_stays: stays of each class behind the moments, drawn once; None = all.
            components: samples move along that many slow cosines over time; None = freely.

        Raises:
            ConfigError: an unknown choice, or a number out of range.
        """
        if labels not in ("hard", "teacher", "learned") or initialisation not in STARTS:
            raise ConfigError("kernel matching knows labels hard, teacher, learned and starts noise, real, centroids")
        check_maps(maps)
        if pool_size < 1 or not ridge > 0 or not spread >= 0 or not training_steps or min(training_steps) < 0:
            raise ConfigError("kernel matching needs a pool of at least 1, a ridge > 0, spread and training steps >= 0")
        self.labels: Labels = labels
        self.initialisation: Start = initialisation
        self.rates = (learning_rate, label_rate if labels == "learned" else 0.0)
        self.iterations, self.ridge, self.spread = iterations, ridge, spread
        self.patience, self.components = patience, components
        self.maps, self.pool_size, self.pool_stays = tuple(maps), pool_size, pool_stays
        self.training_steps = tuple(training_steps)
        self.checkpoint = Path(checkpoint) if checkpoint is not None else None

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
        """2 * n_per_class samples, half started from each class of task 0, in the public range; `noise` is not used.

        Raises:
            ConfigError: n_per_class below 1. DataError: a class has no stay, or fewer than the start needs.
        """
        rows = rows_for_start(encoded, self.initialisation, n_per_class, METHOD)
        features, labels = initial_samples(encoded, rows, self.initialisation, n_per_class, seed)
        stays = chosen_stays(encoded, rows, self.pool_stays, seed)
        targets = balanced_targets(stays.labels)
        pool = build_pool(
            stays, self.maps, self.pool_size, training_steps=self.training_steps, seed=seed, device=device
        )
        (shape,) = build_pool(stays, (SUMMARIES,), 1, seed=seed, device=device)
        teacher = Teacher(pool, targets)
        quick = Teacher([shape], targets) if self.labels == "teacher" else None
        settings = self._settings(encoded)
        features = features.clip(*settings.bounds) if settings.bounds else features
        if self.labels == "learned":
            labels = teacher.label(features, device)
        config = self._config(n_per_class)
        features, labels = optimise_samples(
            (features, labels),
            _sum(
                kernel_ridge_loss(pool, targets, self.ridge, seed, quick),
                spread_loss(shape, self.spread),
            ),
            settings,
            context=run_context(METHOD, config, seed, encoded, settings),
            device=device,
            on_step=on_step,
        )
        if self.labels == "teacher":
            labels = teacher.label(features, device)
        return condensed_set(
            encoded,
            features,
            labels,
            METHOD,
            starts_from_records=self.initialisation != "noise",
            config=config,
            seed=seed,
        )

    def _settings(self, encoded: EncodedCohort) -> LoopSettings:
        return LoopSettings(
            self.iterations,
            self.rates[0],
            label_rate=self.rates[1],
            anneal=True,
            components=self.components,
            bounds=public_range(encoded.transforms),
            keep_best=True,
            patience=self.patience,
            checkpoint=self.checkpoint,
        )

    def _config(self, n_per_class: int) -> dict[str, object]:
        return {
            "labels": self.labels,
            "initialisation": self.initialisation,
            "iterations": self.iterations,
            "learning_rate": self.rates[0],
            "label_rate": self.rates[1],
            "ridge": self.ridge,
            "spread": self.spread,
            "maps": list(self.maps),
            "pool_size": self.pool_size,
            "training_steps": list(self.training_steps),
            "pool_stays": self.pool_stays,
            "components": self.components,
            "patience": self.patience,
            "n_per_class": n_per_class,
        }


def kernel_ridge_loss(
    pool: Sequence[FeatureMap], targets: Targets, ridge: float, seed: int, teacher: Teacher | None = None
) -> Loss:
    """One map of the pool per step, mean over the tasks of the real stays' unexplained share.

    Args:
        teacher: labels the samples in place of their own labels.
    """

    def loss(step: int, samples: Samples) -> Tensor:
        one = pool[int(generator(seed, "condense", "map", step).integers(len(pool)))]
        labels = samples.labels if teacher is None else teacher(samples.features)
        return unexplained_share(one, one(samples.features), labels, targets.centre.to(labels.device), ridge)

    return loss


def spread_loss(shape: FeatureMap, weight: float) -> Loss:
    """`weight` times the mean squared difference of the features' means and standard deviations over the samples from
    those over the real stays of `shape`, in units of the latter.
    """
    variance = torch.diagonal(shape.gram[0]).clamp(min=0) + SMALLEST_VARIANCE

    def loss(step: int, samples: Samples) -> Tensor:
        z = shape(samples.features)
        deviation = (z.var(dim=0, unbiased=False) + SMALLEST_VARIANCE).sqrt()
        return weight * ((z.mean(dim=0).square() + (deviation - variance.sqrt()).square()) / variance).mean()

    return loss


def _sum(*losses: Loss) -> Loss:
    return lambda step, samples: torch.stack([loss(step, samples) for loss in losses]).sum()


def unexplained_share(one: FeatureMap, z: Tensor, labels: Tensor, centre: Tensor, ridge: float) -> Tensor:
    """Loss of the ridge regression on samples `z` `(sample, feature)`, mean over tasks; a missing label has no say."""
    known = torch.isfinite(labels)
    y = torch.where(known, labels.double() - centre, 0.0).T[:, :, None]
    mask = known.T.double()
    kernel = (z @ z.T) * mask[:, :, None] * mask[:, None, :]
    penalty = ridge * len(z) * torch.eye(len(z), dtype=torch.float64, device=z.device)
    weights = (torch.linalg.solve(kernel + penalty, y).transpose(1, 2) @ z)[:, 0]  # (task, feature)
    squared = (weights * (one.gram @ weights[:, :, None])[:, :, 0]).sum(dim=1)
    crossed = (weights * one.target_sums).sum(dim=1)
    counted = one.target_squares > 0
    share = 1 + (squared - 2 * crossed) / one.target_squares.clamp(min=1e-12)
    return torch.where(counted, share, 0.0).sum() / counted.sum().clamp(min=1)
