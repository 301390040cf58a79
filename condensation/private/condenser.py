"""Private condensation: release moments once, then make any number of samples from them without the patients.

`samples_from_moments` sees `Moments` and nothing else, so it spends no privacy: any size, any seed, any number of
times, also at another institution or on the sum of several. Samples are drawn from class-conditional Gaussians with the
private means and covariance, moved so that a class's sample mean and covariance *are* the private ones; labels are the
class posterior of the private linear score (soft), for every task.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from condensation.private.feature_map import LevelAndTrend, from_description
from condensation.private.moments import gains, release_moments
from condensation.private.pooling import noise_scale
from condensation.roles import roles_of
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.options.base import check_n_per_class
from pipeline.core.options.condensers import PrivateMomentsOptions
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import generator
from pipeline.core.threads import single_threaded
from pipeline.core.types import CondensedSet, EncodedCohort, Moments, Provenance

METHOD: Final = "private_moments"
RIDGE: Final = 2.0  # in units of the noise matrix's largest eigenvalue, about noise_scale * sqrt(2 * features)
SMALLEST_CLASS: Final = 0.01  # share below which a noisy class size is not believed
LARGEST_LOGIT: Final = 8.0


@final
@dataclass(frozen=True, kw_only=True)
class PrivateMoments(PrivateMomentsOptions):
    """The default condenser: (epsilon, delta)-differentially private, one release."""

    def release(self, encoded: EncodedCohort, *, noise: NoiseSource) -> Moments:
        """The moments behind the samples: the same query, so no further cost. Raises as `release_moments`."""
        return release_moments(encoded, **self.told(), noise=noise)

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
        """Release and draw; `device` is not used. Raises as `release_moments` and `samples_from_moments`."""
        moments = self.release(encoded, noise=noise)
        on_step(1, 2, math.nan)
        condensed = samples_from_moments(moments, n_per_class=n_per_class, seed=seed)
        on_step(2, 2, math.nan)
        return condensed


@final
@dataclass(frozen=True)
class _Estimate:
    """What the moments say, in standardised coordinates z = (x - mean) * gain of `phi`."""

    phi: LevelAndTrend
    mean: np.ndarray  # (feature,), of x
    gain: np.ndarray  # (feature,)
    within: np.ndarray  # (feature, feature), covariance of z inside the classes of task 0, positive semidefinite
    class_means: np.ndarray  # (task, 2, feature), of z; class 0 and class 1 of each task
    directions: np.ndarray  # (task, feature), ridge scores
    event_share: np.ndarray  # (task,)
    ridge: float  # added to every variance: what the noise may hide


@single_threaded
def samples_from_moments(moments: Moments, *, n_per_class: int, seed: int, hard_labels: bool = False) -> CondensedSet:
    """Draw 2 * n_per_class series whose features carry the moments; pure post-processing.

    Args:
        hard_labels: label task 0 by the class a sample was drawn from and the others by the rounded posterior;
            numbers stay as they are.

    Raises:
        ConfigError: n_per_class below 1. DataError: moments of an unknown feature map or noise.
    """
    check_n_per_class(n_per_class)
    estimate = _estimate(moments)
    root = _root(estimate.within)
    z = np.concatenate(
        [estimate.class_means[0, label] + _spread(n_per_class, len(root), seed, label) @ root for label in (0, 1)]
    )
    roles = roles_of(moments.channels, moments.transforms)
    z = _without_trend_of_statics(estimate, z, roles.static)
    labels = _labels(estimate, z, [task.kind for task in moments.tasks])
    if hard_labels:
        binary = np.array([task.kind == "binary" for task in moments.tasks])
        labels = np.where(binary, labels >= 0.5, labels)
        if binary[0]:
            labels[:, 0] = np.repeat([0.0, 1.0], n_per_class)
    series = estimate.phi.series(z / estimate.gain + estimate.mean)
    ending = list(roles.falling)
    series[:, :, ending] = np.minimum.accumulate(series[:, :, ending], axis=1)
    return CondensedSet(
        features=series.astype(np.float32),
        labels=labels.astype(np.float32),
        channels=moments.channels,
        tasks=moments.tasks,
        step_hours=moments.step_hours,
        transforms=moments.transforms,
        method=METHOD,
        starts_from_records=False,
        guarantee=moments.guarantee,
        label_shift=_balance(estimate, moments),
        provenance=Provenance(
            "condense",
            config={**moments.provenance.config, "n_per_class": n_per_class, "hard_labels": hard_labels},
            seed=seed,
        ),
    )


def _estimate(moments: Moments) -> _Estimate:
    phi = from_description(moments.feature_map)
    bound = phi.half_range * np.repeat([1.0, 2.0], phi.n_channels)
    count = max(float(moments.gram[0, 0]), 1.0)
    total = moments.gram[0, 1:]
    mean = np.clip(total / count, -bound, bound)
    covariance = moments.gram[1:, 1:] / count - np.outer(mean, mean)
    gain = gains(np.diag(covariance), phi)
    covariance = _positive(covariance * np.outer(gain, gain))
    means, shares = [], []
    for sums in moments.signed_sums:
        events = float(np.clip((count + sums[0]) / 2, SMALLEST_CLASS * count, (1 - SMALLEST_CLASS) * count))
        no_event, event = (total - sums[1:]) / 2 / (count - events), (total + sums[1:]) / 2 / events
        means.append([(np.clip(m, -bound, bound) - mean) * gain for m in (no_event, event)])
        shares.append(events / count)
    class_means, event_share = np.array(means), np.array(shares)
    gap = class_means[:, 1] - class_means[:, 0]
    ridge = RIDGE * noise_scale(moments.guarantee) / count * math.sqrt(2 * len(gain))
    values, vectors = np.linalg.eigh(covariance)
    directions = (gap @ vectors / (np.maximum(values, 0) + ridge + 1e-12)) @ vectors.T
    share = event_share[0]
    within = _positive(covariance - share * (1 - share) * np.outer(gap[0], gap[0]))
    return _Estimate(phi, mean, gain, within, class_means, directions, event_share, ridge)


def _without_trend_of_statics(estimate: _Estimate, z: np.ndarray, static: Sequence[int]) -> np.ndarray:
    """What is constant over a stay has no trend: there the release holds noise alone, and nobody needs patients to know
    it.
    """
    trends = [estimate.phi.n_channels + channel for channel in static]
    z = z.copy()
    z[:, trends] = -estimate.mean[trends] * estimate.gain[trends]
    return z


def _labels(estimate: _Estimate, z: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    """P(event | score) per task if scores are Gaussian with one variance in both classes: `(sample, task)`.

    The variance includes the ridge, so that labels claim no more than the noise allows. Task 0 is balanced
    by construction, the others keep their prevalence. A number in [0, 1] is its ridge regression on z: a sum of
    (2y - 1) z gives cov(y, z) = s (1 - s) (mean of z weighted by y, less that by 1 - y), s the mean of y.
    """
    columns = []
    for task, (direction, kind) in enumerate(zip(estimate.directions, kinds, strict=True)):
        if kind == "regression":
            mean = estimate.event_share[task]
            columns.append(np.clip(mean + mean * (1 - mean) * (z @ direction), 0.0, 1.0))
            continue
        low, high = estimate.class_means[task] @ direction
        variance = float(direction @ estimate.within @ direction + estimate.ridge * direction @ direction)
        slope = (high - low) / max(variance, 1e-12)
        share = estimate.event_share[task]
        prior = 0.0 if task == 0 else math.log(share / (1 - share))
        logit = np.clip(slope * (z @ direction - (low + high) / 2) + prior, -LARGEST_LOGIT, LARGEST_LOGIT)
        columns.append(1 / (1 + np.exp(-logit)))
    return np.stack(columns, axis=1)


def _balance(estimate: _Estimate, moments: Moments) -> np.ndarray | None:
    """The log odds that the balanced first task lacks, `(task,)`; moments that nobody accounted for tell none."""
    if moments.guarantee is None:
        return None
    shift = np.zeros(len(moments.tasks))
    if moments.tasks[0].kind == "binary":
        shift[0] = math.log(estimate.event_share[0] / (1 - estimate.event_share[0]))
    return shift


def _spread(n: int, size: int, seed: int, label: int) -> np.ndarray:
    """`(n, size)` draws with mean exactly 0 and second moment exactly the identity (or a random n - 1 of its axes).

    With fewer draws than axes the total variance is kept.
    """
    draws = generator(seed, METHOD, "class", label).normal(size=(n, size))
    draws -= draws.mean(axis=0)
    left, _, right = np.linalg.svd(draws, full_matrices=False)
    rank = min(n - 1, size)
    if rank == 0:
        return np.zeros((n, size))
    return np.asarray(left[:, :rank] @ right[:rank] * math.sqrt(n * size / rank))


def _positive(matrix: np.ndarray) -> np.ndarray:
    """The nearest positive semidefinite matrix."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((vectors * np.maximum(values, 0)) @ vectors.T)


def _root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric square root."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T)
