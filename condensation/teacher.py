"""Soft labels from the real stays' moments: what ridge regression on every map of a pool says of a series.

A label computed from all stays tells a receiver far more than the class of 80 samples does; it also tells more of the
stays. Published figures with a teacher flatter every method, so compare them with other teacher-labelled sets alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import numpy as np
import torch
from torch import Tensor

from condensation.feature_pool import FeatureMap, Targets

RIDGE: Final = 1e-4  # in units of the features' total variance
LARGEST_FIT: Final = 0.9  # share of explained variance above which a fit is not believed
LARGEST_LOGIT: Final = 6.0


def ridge_weights(one: FeatureMap) -> Tensor:
    """Each task's ridge regression of the real targets on one map, from moments alone: `(task, feature)`."""
    penalty = RIDGE * torch.eye(one.gram.shape[1], dtype=torch.float64, device=one.gram.device)
    weights: Tensor = torch.linalg.solve(one.gram + penalty, one.target_sums[:, :, None])[:, :, 0]
    return weights


@final
class Teacher:
    """Labels in [0, 1] for any series, as a differentiable function of the series.

    Binary tasks: two Gaussians of one variance on the score, so that a score s (centred, both classes one half) with
    explained share R2 of the label has the logit 4 s / (1 - R2); logits are averaged over the maps. Task 0 is balanced,
    as its samples are; the others keep their prevalence. Other tasks: the mean prediction, clipped to [0, 1].
    """

    def __init__(self, pool: Sequence[FeatureMap], targets: Targets) -> None:
        """`targets` are those that the pool's moments were made of.

        Networks that were trained on real stays have seen their labels, and are left out if there is any other map.
        """
        untrained = [one for one in pool if one.trained == 0] or pool
        distinct = list({id(one): one for one in untrained}.values())
        self.maps = [(one, ridge_weights(one)) for one in distinct]
        self.targets = targets

    def __call__(self, features: Tensor) -> Tensor:
        """`(sample, step, channel)` -> `(sample, task)`, float32."""
        binary = self.targets.binary.to(features.device)
        logits, means = [], []
        for one, weights in self.maps:
            score = one(features) @ weights.T
            squares = one.target_squares.clamp(min=1e-12)
            explained = ((weights * one.target_sums).sum(dim=1) / squares).clamp(0, LARGEST_FIT)
            logits.append(4 * score / (1 - explained))
            means.append(score)
        logit = torch.stack(logits).mean(dim=0) + self.targets.prior_logits.to(features.device)
        mean = torch.stack(means).mean(dim=0) + self.targets.centre.to(features.device)
        chance = torch.sigmoid(logit.clamp(-LARGEST_LOGIT, LARGEST_LOGIT))
        return torch.where(binary, chance, mean.clamp(0, 1)).float()

    @torch.no_grad()
    def label(self, features: np.ndarray, device: str) -> np.ndarray:
        """The labels of finished samples, `(sample, task)` float32."""
        return self(torch.from_numpy(features).to(device)).cpu().numpy()
