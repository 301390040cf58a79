"""The panel of models a receiver would train, behind one signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Protocol

import numpy as np

from pipeline.core.errors import ConfigError
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import child_seed
from pipeline.probes.classical import (
    fit_predict_boosting,
    fit_predict_lightgbm,
    fit_predict_logistic,
    summary_features,
)
from pipeline.probes.networks import NETWORKS, build_network
from pipeline.probes.training import predict, train_network, train_selected

Tuning = tuple[np.ndarray, np.ndarray]
"""Series `(stay, step, channel)` and labels `(stay, task)` of real stays by which a network's epoch is chosen."""


class FitPredict(Protocol):
    """Train on one set, predict another: probabilities `(test, task)`."""

    def __call__(
        self,
        train_features: np.ndarray,
        train_labels: np.ndarray,
        test_features: np.ndarray,
        *,
        epochs: int,
        seed: int,
        device: str,
        on_step: OnStep,
        tuning: Tuning | None,
    ) -> np.ndarray:
        """Features `(sample, step, channel)`, labels `(sample, task)`, soft or NaN = missing allowed."""
        ...


def _network(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    *,
    name: str,
    epochs: int,
    seed: int,
    device: str,
    on_step: OnStep,
    tuning: Tuning | None,
) -> np.ndarray:
    network = build_network(
        name,
        n_channels=train_features.shape[2],
        n_steps=train_features.shape[1],
        n_tasks=train_labels.shape[1],
        seed=child_seed(seed, "weights"),
    )
    if tuning is None:
        train_network(network, train_features, train_labels, epochs=epochs, seed=seed, device=device, on_step=on_step)
    else:
        train_selected(
            network, train_features, train_labels, tuning, epochs=epochs, seed=seed, device=device, on_step=on_step
        )
    return predict(network, test_features, device=device)


def _classical(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    *,
    fit: Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray],
    epochs: int,
    seed: int,
    device: str,
    on_step: OnStep,
    tuning: Tuning | None,
) -> np.ndarray:
    probabilities = fit(
        summary_features(train_features), train_labels, summary_features(test_features), child_seed(seed, "fit")
    )
    on_step(1, 1, float("nan"))
    return probabilities


MODELS: Mapping[str, FitPredict] = MappingProxyType(
    {
        **{name: partial(_network, name=name) for name in NETWORKS},
        "gradient_boosting": partial(_classical, fit=fit_predict_boosting),
        "lightgbm": partial(_classical, fit=fit_predict_lightgbm),
        "logistic_regression": partial(_classical, fit=fit_predict_logistic),
    }
)
DETERMINISTIC_MODELS = frozenset({"logistic_regression"})
"""Models whose result does not depend on the seed: training them again on the same set shows nothing."""


def fit_predict(
    model: str,
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    *,
    epochs: int,
    seed: int,
    device: str = "cpu",
    on_step: OnStep = ignore_step,
    tuning: Tuning | None = None,
) -> np.ndarray:
    """Train `model` and return its probabilities `(test, task)`; `epochs` and `tuning` matter to networks only.

    With `tuning` the epoch is chosen on these real stays, the evaluator of [Cond] (`train_selected`); without, the
    length is fixed and the receiver needs no real data.

    Raises:
        ConfigError: no model of that name.
        DataError: the training set is empty or has no label.
    """
    if model not in MODELS:
        raise ConfigError(f"no model named {model!r}; known: {', '.join(MODELS)}")
    return MODELS[model](
        train_features,
        train_labels,
        test_features,
        epochs=epochs,
        seed=seed,
        device=device,
        on_step=on_step,
        tuning=tuning,
    )
