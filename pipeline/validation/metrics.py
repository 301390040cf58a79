"""Discrimination, calibration and error for many weightings at once, so that a bootstrap sorts the scores only once.

All take scores `(stay,)` in [0, 1], truth `(stay,)` in {0, 1} (r2 and mae: numbers in the task's unit, both) and
weights `(draw, stay)` >= 0 (how often a draw holds a stay) and return `(draw,)`, NaN where the figure is not defined,
e.g. an AUROC with one class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64

Metric = Literal["auroc", "auprc", "brier", "calibration_error", "r2", "mae"]
CALIBRATION_BINS = 10


def auroc(
    scores: Float[np.ndarray, " stay"], truth: np.ndarray, weights: Float64[np.ndarray, "draw stay"]
) -> Float64[np.ndarray, " draw"]:
    """Probability that a positive outranks a negative; ties count one half."""
    positives, negatives = _by_threshold(scores, truth, weights)
    all_negatives = negatives.sum(axis=1)
    below = all_negatives[:, None] - np.cumsum(negatives, axis=1)
    return _ratio((positives * (below + negatives / 2)).sum(axis=1), positives.sum(axis=1) * all_negatives)


def auprc(
    scores: Float[np.ndarray, " stay"], truth: np.ndarray, weights: Float64[np.ndarray, "draw stay"]
) -> Float64[np.ndarray, " draw"]:
    """Average precision: precision at each threshold, weighted by the recall it adds (scikit-learn's definition)."""
    positives, negatives = _by_threshold(scores, truth, weights)
    found = np.cumsum(positives, axis=1)
    flagged = found + np.cumsum(negatives, axis=1)
    precision = np.divide(found, flagged, out=np.zeros_like(found), where=flagged > 0)
    return _ratio((precision * positives).sum(axis=1), positives.sum(axis=1))


def brier(
    scores: Float[np.ndarray, " stay"], truth: np.ndarray, weights: Float64[np.ndarray, "draw stay"]
) -> Float64[np.ndarray, " draw"]:
    """Mean squared difference of probability and outcome."""
    return _ratio(weights @ (scores - truth) ** 2, weights.sum(axis=1))


def calibration_error(
    scores: Float[np.ndarray, " stay"], truth: np.ndarray, weights: Float64[np.ndarray, "draw stay"]
) -> Float64[np.ndarray, " draw"]:
    """Expected calibration error over ten bins of equal width (Naeini et al. 2015)."""
    bins = np.minimum((scores * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    in_bin = bins[:, None] == np.arange(CALIBRATION_BINS)
    gaps = weights @ (in_bin * (scores - truth)[:, None])
    return _ratio(np.abs(gaps).sum(axis=1), weights.sum(axis=1))


def r2(
    scores: Float[np.ndarray, " stay"], truth: np.ndarray, weights: Float64[np.ndarray, "draw stay"]
) -> Float64[np.ndarray, " draw"]:
    """Share of the truth's variance in the draw that the scores explain; below 0: worse than the draw's own mean."""
    total = weights.sum(axis=1)
    mean = _ratio(weights @ truth, total)
    scatter = weights @ truth**2 - total * mean**2
    return 1 - _ratio(weights @ (scores - truth) ** 2, np.where(scatter > 1e-12 * total, scatter, 0.0))


def mae(
    scores: Float[np.ndarray, " stay"], truth: np.ndarray, weights: Float64[np.ndarray, "draw stay"]
) -> Float64[np.ndarray, " draw"]:
    """Mean absolute error, in the unit of scores and truth."""
    return _ratio(weights @ np.abs(scores - truth), weights.sum(axis=1))


MetricFunction = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
METRICS: Mapping[Metric, MetricFunction] = MappingProxyType(
    {"auroc": auroc, "auprc": auprc, "brier": brier, "calibration_error": calibration_error}
)
"""Of binary tasks."""
REGRESSION_METRICS: Mapping[Metric, MetricFunction] = MappingProxyType({"r2": r2, "mae": mae})


def _by_threshold(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight of positives and of negatives at each distinct score, highest first: `(draw, threshold)` both."""
    order = np.argsort(-scores, kind="stable")
    ranked, truth_ranked, weights_ranked = scores[order], truth[order], weights[:, order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    positives = np.add.reduceat(weights_ranked * truth_ranked, starts, axis=1)
    negatives = np.add.reduceat(weights_ranked * (1 - truth_ranked), starts, axis=1)
    return positives, negatives


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    ratio = np.full(len(denominator), np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return ratio
