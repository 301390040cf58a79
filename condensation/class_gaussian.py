"""Draws from one Gaussian per class: its mean, and its covariance over all cells of a series and all labels.

A sample is the class's mean plus a random sum of *all* stays' deviations from it,

    x = mean + sum over stays of g_i (x_i - mean) / sqrt(n),    g_i from N(0, 1),

which has the class's covariance without anybody forming that matrix (2,112 x 2,112 for 48 steps of 44 channels): a pass
over the stays, in memory that does not grow with them, and any number of samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Final

import numpy as np
from jaxtyping import Float32, Float64

from condensation.coresets import flat, in_chunks
from pipeline.core.seeds import generator
from pipeline.core.threads import single_threaded
from pipeline.core.types import EncodedCohort, Task

SMALLEST_CLASS: Final = 10  # stays below which there is no covariance to speak of; both numbers are public
FEW_STAYS: Final = 100  # below, a draw counts as an average of few stays: as made of records


@single_threaded
def class_gaussians(
    encoded: EncodedCohort, rows: Sequence[np.ndarray], n_per_class: int, seed: int
) -> tuple[Float32[np.ndarray, "sample step channel"], Float32[np.ndarray, "sample task"]]:
    """`n_per_class` draws for each class's stays `rows`; the mean of a class's samples is its mean exactly.

    One draw is the mean itself. Labels are drawn jointly with the series: a number's is clipped to [0, 1], a binary
    task's is 1 where its coordinate lies above the normal quantile of the class's share (so hard, and the class itself
    for task 0), and a task without a known label in the class is missing.
    """
    features, labels = [], []
    for label, part in enumerate(rows):
        draws = generator(seed, "gaussian", label)
        values, shares = encoded.labels[part], _shares(encoded.labels[part])
        # a missing label is as good as the share: it adds nothing, and the known ones make up for it
        deviations = np.where(np.isfinite(values), values - shares, 0.0)
        known = np.maximum(np.isfinite(values).mean(axis=0), 1e-12)
        mean = sum((flat(encoded, chunk).sum(axis=0, dtype=np.float64) for chunk in in_chunks(part)), np.float64(0.0))
        mean = np.asarray(mean / len(part))
        moves = np.zeros((n_per_class, len(mean)))
        coordinates = np.zeros((n_per_class, values.shape[1]))
        for chunk, deviation in zip(in_chunks(part), in_chunks(deviations), strict=True):
            weights = _centred(draws.normal(size=(n_per_class, len(chunk)))) / math.sqrt(len(part))
            moves += weights.astype(np.float32) @ (flat(encoded, chunk) - mean.astype(np.float32))
            coordinates += weights @ deviation
        features.append((mean + moves).reshape(n_per_class, *encoded.features.shape[1:]))
        labels.append(_labels(coordinates / np.sqrt(known), shares, encoded.tasks))
    return np.concatenate(features).astype(np.float32), np.concatenate(labels).astype(np.float32)


def _centred(draws: Float64[np.ndarray, "sample stay"]) -> Float64[np.ndarray, "sample stay"]:
    """Draws whose mean over the samples is 0 and whose variance is 1 in expectation; one sample: zeros."""
    n = len(draws)
    return np.asarray((draws - draws.mean(axis=0)) * math.sqrt(n / max(n - 1, 1)))


def _shares(values: np.ndarray) -> Float64[np.ndarray, " task"]:
    """Mean known label of each task, NaN where none is known."""
    known = np.isfinite(values)
    sums, counts = np.where(known, values, 0.0).sum(axis=0, dtype=np.float64), known.sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _labels(
    coordinates: Float64[np.ndarray, "sample task"], shares: Float64[np.ndarray, " task"], tasks: Sequence[Task]
) -> Float64[np.ndarray, "sample task"]:
    columns = []
    for coordinate, share, task in zip(coordinates.T, shares, tasks, strict=True):
        if task.kind == "regression" or not 0 < share < 1:  # a share of 0 or 1, and NaN: all samples alike
            columns.append(np.clip(share + coordinate, 0.0, 1.0))
        else:
            threshold = math.sqrt(share * (1 - share)) * NormalDist().inv_cdf(1 - share)
            columns.append((coordinate > threshold).astype(np.float64))
    return np.stack(columns, axis=1)
