"""Which of several training sets serves one's own patients best: AUROC side by side, differences with intervals.

Paired: every set's models start from the same weights and meet the same stays, and one bootstrap draws the same
subjects (with all their stays) and the same trainings for all. An interval of a difference is therefore much narrower
than the two rows' own intervals suggest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float64

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import child_seed, generator
from pipeline.core.types import EncodedCohort
from pipeline.probes.panel import MODELS, fit_predict
from pipeline.validation.metrics import auroc
from pipeline.validation.utility import subject_weights, untestable_tasks

INTERVAL: Final = (
    "95 % percentile intervals from {n} bootstrap replicates that draw the held-out subjects with all their stays, and "
    "the trainings, with replacement; the same draws for every row, so that differences are paired"
)

Rows = tuple[np.ndarray, np.ndarray]
"""Features (sample, step, channel) and labels (sample, task)."""


@final
@dataclass(frozen=True)
class PairedScore:
    """Mean AUROC of one model trained on one set, and how far it is from the reference set's."""

    training_set: str
    model: str
    task: str
    n_samples: int
    n_trainings: int
    n_test: int
    mean: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float


def compare_sets(
    sets: Mapping[str, Rows],
    reference: str,
    test: EncodedCohort,
    *,
    models: Sequence[str],
    n_seeds: int,
    epochs: int,
    seed: int,
    device: str = "cpu",
    n_bootstrap: int = 500,
    on_step: OnStep = ignore_step,
) -> tuple[PairedScore, ...]:
    """Scores of every set and model on `test`, for each binary task with both classes there; deterministic.

    Raises:
        ConfigError: an unknown model.
        DataError: the reference is no set, no task can be tested, or a set's shape is not the test stays'.
    """
    if unknown := [model for model in models if model not in MODELS]:
        raise ConfigError(f"no model named {unknown[0]!r}; known: {', '.join(MODELS)}")
    tasks = _testable(test)
    if reference not in sets or not tasks:
        raise DataError(f"there is no {reference} to compare with, or no task with both classes on the held-out stays")
    for name, (features, labels) in sets.items():
        if features.shape[1:] != test.features.shape[1:] or labels.shape != (len(features), len(test.tasks)):
            raise DataError(f"{name} has other steps, channels or tasks than the stays to test on")
    total, done = len(sets) * len(models) * n_seeds, 0
    scores: list[PairedScore] = []
    for model in models:
        predictions: dict[str, np.ndarray] = {}
        for name, (features, labels) in sets.items():
            rows = []
            for k in range(n_seeds):
                seed_k = child_seed(seed, "utility", model, k)  # of the model and k alone: the same initial weights
                rows.append(
                    fit_predict(model, features, labels, test.features, epochs=epochs, seed=seed_k, device=device)
                )
                done += 1
                on_step(done, total, float("nan"))
            predictions[name] = np.stack(rows).astype(np.float64)
        for task in tasks:
            scores += _scores(predictions, reference, test, task, model, n_bootstrap, seed, sets)
    return tuple(scores)


def _testable(test: EncodedCohort) -> list[int]:
    left_out = set(untestable_tasks(test))
    return [
        index
        for index, task in enumerate(test.tasks)
        if task.name not in left_out and getattr(task, "kind", "binary") == "binary"
    ]


def _scores(
    predictions: Mapping[str, Float64[np.ndarray, "training stay task"]],
    reference: str,
    test: EncodedCohort,
    task: int,
    model: str,
    n_bootstrap: int,
    seed: int,
    sets: Mapping[str, Rows],
) -> list[PairedScore]:
    known = np.isfinite(test.labels[:, task])
    truth = test.labels[known, task].astype(np.float64)
    draw = generator(seed, "utility-bootstrap", test.tasks[task].name)
    weights = subject_weights(test.subject_index[known], n_bootstrap, draw)
    n_trainings = len(predictions[reference])
    chosen = draw.integers(n_trainings, size=(n_bootstrap, n_trainings))
    means, replicates = {}, {}
    for name, rows in predictions.items():
        of_task = rows[:, known, task]
        means[name] = float(np.mean([auroc(row, truth, np.ones((1, len(truth))))[0] for row in of_task]))
        by_subjects = np.stack([auroc(row, truth, weights) for row in of_task], axis=1)
        replicates[name] = np.take_along_axis(by_subjects, chosen, axis=1).mean(axis=1)
    found = []
    for name in predictions:
        low, high = _interval(replicates[name])
        difference_low, difference_high = _interval(replicates[name] - replicates[reference])
        found.append(
            PairedScore(
                training_set=name,
                model=model,
                task=test.tasks[task].name,
                n_samples=len(sets[name][0]),
                n_trainings=n_trainings,
                n_test=len(truth),
                mean=means[name],
                low=low,
                high=high,
                difference=means[name] - means[reference],
                difference_low=difference_low,
                difference_high=difference_high,
            )
        )
    return found


def _interval(replicates: Float64[np.ndarray, " draw"]) -> tuple[float, float]:
    finite = replicates[np.isfinite(replicates)]  # a resample without a death has no AUROC
    if not finite.size:
        return float("nan"), float("nan")
    low, high = np.quantile(finite, (0.025, 0.975))
    return float(low), float(high)
