"""The losses of kernel-ridge matching, as functions of the samples and of the real stays' moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from condensation.feature_pool import SUMMARIES, FeatureMap, Targets
from condensation.loop import Loss, Samples
from condensation.teacher import Teacher
from pipeline.core.seeds import generator

SMALLEST_VARIANCE: Final = 1e-6  # of a summary, in units of all summaries' total


def kernel_ridge_loss(
    pool: Sequence[FeatureMap], targets: Targets, ridges: tuple[float, float], seed: int, teacher: Teacher | None = None
) -> Loss:
    """One map of the pool per step, mean over the tasks of the real stays' unexplained share.

    Args:
        ridges: of networks, and of summaries.
        teacher: labels the samples in place of their own labels.
    """

    def loss(step: int, samples: Samples) -> Tensor:
        one = pool[int(generator(seed, "condense", "map", step).integers(len(pool)))]
        labels = samples.labels if teacher is None else teacher(samples.features)
        ridge = ridges[one.name == SUMMARIES]
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


def sum_of(*losses: Loss) -> Loss:
    """Their sum as one loss."""
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
