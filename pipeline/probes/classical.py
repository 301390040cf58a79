"""Classical receivers: summary features of each series, then logistic regression or gradient boosting per task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Float64

from pipeline.core.errors import ConfigError
from pipeline.core.files.mapped import row_chunks

SUMMARIES = ("last", "mean", "min", "max", "sd", "change")
LOGISTIC_C = 0.01
"""Inverse penalty, chosen on the tuning stays of PhysioNet 2012 at 80 samples (centroids and random stays, mean of
both); the full set is indifferent to it."""


class _Classifier(Protocol):
    def fit(self, x: np.ndarray, y: np.ndarray, *, sample_weight: np.ndarray) -> Any: ...

    def predict_proba(self, x: np.ndarray) -> np.ndarray: ...


def summary_features(features: Float[np.ndarray, "stay step channel"]) -> Float64[np.ndarray, "stay summary"]:
    """Last, mean, min, max, standard deviation and first-to-last change of each channel, in that order of blocks."""
    parts = [_summaries(np.asarray(features[part])) for part in row_chunks(features)]
    return np.concatenate(parts) if parts else _summaries(np.asarray(features))


def _summaries(x: np.ndarray) -> np.ndarray:
    blocks = (
        x[:, -1],
        x.mean(axis=1, dtype=np.float64),
        x.min(axis=1),
        x.max(axis=1),
        x.std(axis=1, dtype=np.float64),
        x[:, -1] - x[:, 0],
    )
    return np.concatenate(blocks, axis=1, dtype=np.float64)


def split_soft_labels(
    summaries: Float64[np.ndarray, "sample summary"], labels: Float[np.ndarray, " sample"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hard-label form of soft labels: each sample as a 1 with weight y and as a 0 with weight 1 - y; NaN dropped.

    Returns features, labels and weights; rows of weight 0 are left out, so hard labels pass through unchanged.
    """
    known = np.isfinite(labels)
    x, y = summaries[known], labels[known].astype(np.float64)
    weights = np.concatenate([y, 1 - y])
    kept = weights > 0
    hard = np.concatenate([np.ones(len(y)), np.zeros(len(y))])
    return np.concatenate([x, x])[kept], hard[kept], weights[kept]


def fit_predict_logistic(
    train: Float64[np.ndarray, "sample summary"], labels: np.ndarray, test: np.ndarray, seed: int
) -> Float64[np.ndarray, "stay task"]:
    """Logistic regression, deterministic (`seed` is not used), on centred features divided by one scale for all.

    The scale is the training set's pooled standard deviation: condensed samples spread far less than real stays, and
    differently so per feature, so that standardising each feature costs centroids .07 of AUROC on real stays.
    """
    from sklearn.linear_model import LogisticRegression

    mean = train.mean(axis=0)
    scale = float(np.sqrt(train.var(axis=0).mean())) or 1.0  # 0: all samples alike, nothing to scale

    def make() -> _Classifier:
        model: _Classifier = LogisticRegression(C=LOGISTIC_C, max_iter=500)
        return model

    return _fit_tasks(make, (train - mean) / scale, labels, (test - mean) / scale)


def fit_predict_boosting(
    train: Float64[np.ndarray, "sample summary"], labels: np.ndarray, test: np.ndarray, seed: int
) -> Float64[np.ndarray, "stay task"]:
    """Histogram gradient boosting; leaves of few samples and a random share of the features per split, for n = 80."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    def make() -> _Classifier:
        model: _Classifier = HistGradientBoostingClassifier(
            learning_rate=0.05,
            max_iter=100,
            max_leaf_nodes=4 if len(train) < 1000 else 8,
            min_samples_leaf=max(5, len(train) // 100),
            max_features=0.1,
            l2_regularization=1.0,
            early_stopping=False,
            random_state=seed % 2**32,
        )
        return model

    return _fit_tasks(make, train, labels, test)


def fit_predict_lightgbm(
    train: Float64[np.ndarray, "sample summary"], labels: np.ndarray, test: np.ndarray, seed: int
) -> Float64[np.ndarray, "stay task"]:
    """LightGBM under the settings of `fit_predict_boosting`; by its own, 80 samples make four leaves at most.

    Raises:
        ConfigError: LightGBM is not installed.
    """
    try:
        from lightgbm import LGBMClassifier
    except ImportError:
        raise ConfigError("the model lightgbm needs the package lightgbm: pip install 'decoct[lightgbm]'") from None

    def make() -> _Classifier:
        model: _Classifier = LGBMClassifier(
            learning_rate=0.05,
            n_estimators=100,
            num_leaves=4 if len(train) < 1000 else 8,
            min_child_samples=max(5, len(train) // 100),
            colsample_bynode=0.1,
            reg_lambda=1.0,
            deterministic=True,
            force_row_wise=True,
            n_jobs=1,
            random_state=seed % 2**31,
            verbose=-1,
        )
        return model

    return _fit_tasks(make, train, labels, test)


def _fit_tasks(make: Callable[[], _Classifier], train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """One classifier per task; a task with one class only predicts that class's share."""
    columns = []
    for task in range(labels.shape[1]):
        x, y, weights = split_soft_labels(train, labels[:, task])
        if len(np.unique(y)) < 2:
            columns.append(np.full(len(test), y.mean() if len(y) else 0.5))
            continue
        columns.append(make().fit(x, y, sample_weight=weights).predict_proba(test)[:, 1])
    return np.stack(columns, axis=1)
