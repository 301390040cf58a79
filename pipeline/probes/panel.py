"""The panel of models a receiver would train, behind one signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import final

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


@final
@dataclass(frozen=True, eq=False)
class _Receiver:
    """What a receiver has beside a training set; `epochs`, `device` and `tuning` matter to networks only."""

    epochs: int
    seed: int
    device: str
    on_step: OnStep
    tuning: Tuning | None


FitPredict = Callable[[np.ndarray, np.ndarray, np.ndarray, _Receiver], np.ndarray]
"""Features `(sample, step, channel)` and labels `(sample, task)`, soft or NaN = missing allowed, and features to
predict -> probabilities `(test, task)`."""


def _network(x: np.ndarray, y: np.ndarray, test: np.ndarray, receiver: _Receiver, *, name: str) -> np.ndarray:
    weights = child_seed(receiver.seed, "weights")
    network = build_network(name, n_channels=x.shape[2], n_steps=x.shape[1], n_tasks=y.shape[1], seed=weights)
    train: Callable[..., object] = train_network
    if receiver.tuning is not None:
        train = partial(train_selected, tuning=receiver.tuning)
    train(network, x, y, epochs=receiver.epochs, seed=receiver.seed, device=receiver.device, on_step=receiver.on_step)
    return predict(network, test, device=receiver.device)


def _classical(
    x: np.ndarray,
    y: np.ndarray,
    test: np.ndarray,
    receiver: _Receiver,
    *,
    fit: Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray],
) -> np.ndarray:
    probabilities = fit(summary_features(x), y, summary_features(test), child_seed(receiver.seed, "fit"))
    receiver.on_step(1, 1, float("nan"))
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
    receiver = _Receiver(epochs, seed, device, on_step, tuning)
    return MODELS[model](train_features, train_labels, test_features, receiver)
