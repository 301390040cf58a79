"""Affinities between tasks: sample-wise convergence affinity (SCA-style, [Group]) and the label-only control.

[Group] (Thakur et al., arXiv 2412.04413) takes, for one sample, the point that one gradient step reaches from a common
initialisation, theta*_t = theta_0 - grad l_t, and calls two tasks alike where these points lie close in L1 on average
over samples. All affinities here are distances: 0 on the diagonal, symmetric, smaller = more alike.

The literal form with one shared head is a weighted label distance and no more (docs/grouping.md); the multi-head form
keeps a head per task and looks at the trunk's step alone. Networks, data and cluster counts of the
paper are not public, hence "SCA-style".
"""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Float64, Shaped

from pipeline.core.errors import DataError
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import generator
from pipeline.grouping.affinity.heads import one_step_heads
from pipeline.grouping.affinity.trunk import activations, input_sizes, random_trunk, step_l1, trunk_deltas

BLOCK: Final = 256  # stays


def summarise(features: Shaped[np.ndarray, "stay ..."]) -> Float64[np.ndarray, "stay feature"]:
    """Mean, deviation, minimum, maximum and last value of every channel, standardised over the stays.

    Takes series `(stay, step, channel)` or ready features `(stay, feature)`, which are only standardised; columns that
    do not vary become 0.

    Raises:
        DataError: no column varies.
    """
    if features.ndim == 3:
        series = features.astype(np.float64)
        columns = [series.mean(1), series.std(1), series.min(1), series.max(1), series[:, -1]]
        features = np.concatenate(columns, axis=1)
    values = features.astype(np.float64)
    centred = values - values.mean(axis=0)
    spread = centred.std(axis=0)
    varies = spread > 1e-9
    if not bool(varies.any()):
        raise DataError(f"no feature varies over {len(values)} stays: no affinity is defined")
    return np.where(varies, centred / np.where(varies, spread, 1.0), 0.0)


def samplewise_multihead(
    features: Shaped[np.ndarray, "stay ..."],
    labels: Shaped[np.ndarray, "stay task"],
    *,
    n_inits: int,
    seed: int,
    on_step: OnStep = ignore_step,
) -> Float64[np.ndarray, "task task"]:
    """SCA-style affinity with a head per task and trunk gradients only, averaged over `n_inits` random trunks.

    Each task's loss is divided by the mean L1 size of its own steps, so that a rare or an easy task is not "far" merely
    because its steps are short: entries lie in [0, 2] up to the effect of stays with only one of the two labels
    (0 = the same step on every sample; unrelated directions of equal length give sqrt 2). Flipping a task's labels
    changes nothing, as it should: what the trunk has to learn is the same.
    Missing labels (NaN): a pair of tasks is compared on the stays where both are known.

    Raises:
        DataError: a task has one class only, two tasks share no stay with both labels known, or no feature varies.
    """
    known = _checked(labels)
    inputs = summarise(features)
    total = np.zeros((labels.shape[1],) * 2)
    for start in range(n_inits):
        trunk = random_trunk(inputs.shape[1], generator(seed, "grouping", "trunk", start))
        layers = activations(trunk, inputs)
        head = one_step_heads(layers[-1], known)
        deltas = trunk_deltas(trunk, layers, head.weights, head.residuals)
        sizes = input_sizes(layers)
        length = np.nanmean(step_l1(deltas, sizes), axis=1)
        scaled = tuple(delta / np.where(length > 0, length, 1.0)[:, None, None] for delta in deltas)
        one = _pairwise(scaled, sizes)
        total += one / n_inits
        on_step(start + 1, n_inits, float(one.mean()))
    return total


def label_hamming(labels: Shaped[np.ndarray, "stay task"]) -> Float64[np.ndarray, "task task"]:
    """The control that never looks at a feature: share of stays, both labels known, on which two tasks differ.

    Raises:
        DataError: as `samplewise_multihead`.
    """
    known = _checked(labels)
    return np.asarray(np.nanmean(np.abs(known[:, :, None] - known[:, None, :]), axis=0))


def _checked(labels: np.ndarray) -> np.ndarray:
    known = labels.astype(np.float64)
    seen = np.isfinite(known)
    for task in range(known.shape[1]):
        if len(np.unique(known[seen[:, task], task])) < 2:
            raise DataError(f"task {task} has fewer than two classes among {len(known)} stays: no affinity is defined")
    together = seen.T.astype(np.int64) @ seen.astype(np.int64)
    if together.size and int(together.min()) == 0:
        first, second = (int(index[0]) for index in np.nonzero(together == 0))
        raise DataError(f"tasks {first} and {second} share no stay on which both labels are known")
    return known


def _pairwise(deltas: tuple[np.ndarray, ...], sizes: tuple[np.ndarray, ...]) -> np.ndarray:
    """Mean over stays of the L1 distance between two tasks' steps, for all pairs; in blocks that fit the cache."""
    n_tasks, n_stays = deltas[0].shape[:2]
    apart = np.zeros((n_tasks, n_tasks, n_stays))
    for start in range(0, n_stays, BLOCK):
        block = slice(start, start + BLOCK)
        inside = tuple(size[block] for size in sizes)
        for first in range(n_tasks - 1):
            gaps = tuple(delta[first + 1 :, block] - delta[first, block] for delta in deltas)
            apart[first, first + 1 :, block] = step_l1(gaps, inside)
    distance = np.nanmean(apart, axis=2)
    return np.asarray(distance + distance.T)
