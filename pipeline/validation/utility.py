"""Train on what is shared, test on real held-out stays (TSTR), with the ceiling and equal-size baselines beside it.

The receiver's protocol: fixed training length, no real data, no checkpoint by validation. Trains one model per set,
model and seed; the metrics' 95 % intervals come from one bootstrap over subjects and seeds together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Float64, Int32

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.risk import shifted
from pipeline.core.seeds import child_seed, generator
from pipeline.core.threads import single_threaded
from pipeline.core.types import EncodedCohort, UtilityReport, UtilityScore
from pipeline.core.types.found import OF_TEACHER
from pipeline.probes.panel import DETERMINISTIC_MODELS, MODELS, fit_predict
from pipeline.probes.training import BATCH_SIZE, MAX_STEPS, MIN_STEPS
from pipeline.validation.metrics import METRICS, REGRESSION_METRICS

TEACHER = "teacher"
"""The model of a set's teacher in the table of scores."""
LARGE_SET_SAMPLES = 1000
"""From so many samples on, training is long and differs little between seeds: at most `LARGE_SET_SEEDS` of them."""
LARGE_SET_SEEDS = 2
INTERVAL = (
    "95 % percentile interval of the mean over seeds, from {n} bootstrap replicates that draw the held-out subjects "
    "with all their stays, and the seeds (for random real stays: the draws), each with replacement"
)

TRAINING = f"{{epochs}} epochs, but at least {MIN_STEPS} and at most {MAX_STEPS} steps of {BATCH_SIZE} samples"
SELECTED = "networks: of {epochs} epochs the best by AUROC on real tuning stays, so the receiver needs real data"


@final
@dataclass(frozen=True, eq=False)
class TrainingSet:
    """What a model trains on and the held-out stays it meets, both in the encoding named `input`.

    `features` and `labels` are arrays `(sample, step, channel)` and `(sample, task)`, or tuples of equal length of such
    arrays: the draws of a random baseline, taken in turn by the seeds. With `tuning`, real stays in the same encoding,
    networks are evaluated as [Cond] does: the epoch is chosen there.
    """

    input: str
    features: np.ndarray | tuple[np.ndarray, ...]
    labels: np.ndarray | tuple[np.ndarray, ...]
    test: EncodedCohort
    tuning: EncodedCohort | None = None
    label_shift: np.ndarray | None = None  # (task,): added to the log odds that models trained on it predict
    teacher_risks: np.ndarray | None = None  # (stay, task) of `test`, by the teacher that came with the set

    @property
    def draws(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """The (features, labels) pairs.

        Raises:
            DataError: features and labels hold different numbers of draws, or none.
        """
        features = self.features if isinstance(self.features, tuple) else (self.features,)
        labels = self.labels if isinstance(self.labels, tuple) else (self.labels,)
        if not features or len(features) != len(labels):
            raise DataError(f"a training set has {len(features)} draws of features and {len(labels)} of labels")
        return tuple(zip(features, labels, strict=True))


@final
@dataclass(frozen=True)
class Training:
    """One of the models that a measurement trains: on which set, of which kind, and the how-manieth of these."""

    training_set: str
    model: str
    number: int


def trainings(sets: Mapping[str, TrainingSet], models: Sequence[str], n_seeds: int) -> tuple[Training, ...]:
    """All that `measure_utility` trains, in its order.

    Raises:
        ConfigError: an unknown model.
    """
    unknown = [model for model in models if model not in MODELS]
    if unknown:
        raise ConfigError(f"no model named {unknown[0]!r}; known: {', '.join(MODELS)}")
    return tuple(
        Training(name, model, number)
        for name in sets
        for model in models
        for number in range(_n_trainings(sets[name], model, n_seeds))
    )


@single_threaded
def predictions(
    training_set: TrainingSet, training: Training, *, epochs: int, seed: int, device: str = "cpu"
) -> Float64[np.ndarray, "stay task"]:
    """Of one trained model for the set's real held-out stays; the same bits on any number of cores.

    The training's seed names the model and its number alone: sets are compared under the same initial weights.
    """
    features, labels = training_set.draws[training.number % len(training_set.draws)]
    seed = child_seed(seed, "utility", training.model, training.number)
    test, stays = training_set.test.features, training_set.tuning
    real = None if stays is None else (stays.features, stays.labels)
    return fit_predict(training.model, features, labels, test, epochs=epochs, seed=seed, device=device, tuning=real)


def measure_utility(
    sets: Mapping[str, TrainingSet],
    *,
    models: Sequence[str],
    n_seeds: int,
    epochs: int,
    seed: int,
    device: str = "cpu",
    n_bootstrap: int = 500,
    on_step: OnStep = ignore_step,
    elsewhere: Iterable[np.ndarray] | None = None,
) -> UtilityReport:
    """Scores of every set x model x task x metric on the set's real held-out stays; deterministic given `seed`.

    Sets of `LARGE_SET_SAMPLES` and more train with at most `LARGE_SET_SEEDS` seeds, and a model without randomness
    trains once per draw; each row's `n_seeds` says how many trainings it rests on. `on_step` is called once per
    finished training with its loss as NaN.

    Args:
        elsewhere: what `predictions` gives for each of `trainings(...)`, in that order, made by others.

    Raises:
        ConfigError: an unknown model.
        DataError: no held-out stay, no task with both classes among them, or channels, steps or tasks of a set and its
            test stays differ. Tasks with one class only are left out; `interval` of the report names them.
    """
    work = trainings(sets, models, n_seeds)
    for name, training_set in sets.items():
        _check(name, training_set)
    if elsewhere is None:
        elsewhere = (predictions(sets[one.training_set], one, epochs=epochs, seed=seed, device=device) for one in work)
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for done, (one, predicted) in enumerate(zip(work, elsewhere, strict=True)):
        found.setdefault((one.training_set, one.model), []).append(predicted)
        on_step(done + 1, len(work), float("nan"))
    scores = [
        score
        for (name, model), of_seeds in found.items()
        for score in _score(name, sets[name], model, np.stack(of_seeds), n_bootstrap, seed)
    ]
    for name, taught in sets.items():
        if taught.teacher_risks is not None:
            as_is = replace(taught, label_shift=None)
            scores += _score(name + OF_TEACHER, as_is, TEACHER, taught.teacher_risks[None], n_bootstrap, seed)
    untestable = sorted({task for training_set in sets.values() for task in untestable_tasks(training_set.test)})
    note = f"; left out for want of both classes among the held-out stays: {', '.join(untestable)}" * bool(untestable)
    protocols = dict.fromkeys(TRAINING if one.tuning is None else SELECTED for one in sets.values())
    training = "; ".join(text.format(epochs=epochs) for text in protocols)
    return UtilityReport(tuple(scores), epochs, INTERVAL.format(n=n_bootstrap) + note, training)


def _n_trainings(training_set: TrainingSet, model: str, n_seeds: int) -> int:
    n_draws = len(training_set.draws)
    if model in DETERMINISTIC_MODELS:
        return min(n_draws, n_seeds)
    large = max(len(features) for features, _ in training_set.draws) >= LARGE_SET_SAMPLES
    return min(n_seeds, LARGE_SET_SEEDS) if large else n_seeds


def _score(
    name: str,
    training_set: TrainingSet,
    model: str,
    predictions: Float64[np.ndarray, "seed stay task"],
    n_bootstrap: int,
    seed: int,
) -> Iterator[UtilityScore]:
    """All tasks and metrics of one set and model."""
    test = training_set.test
    n_samples = len(training_set.draws[0][0])  # draws are of one size
    untestable = untestable_tasks(test)
    for task_index, task in enumerate(test.tasks):
        if task.name in untestable:
            continue
        known = np.isfinite(test.labels[:, task_index])
        truth = test.labels[known, task_index].astype(np.float64)
        scores = predictions[:, known, task_index].astype(np.float64)
        # The draws name the task alone, so that rows of one task are compared on the same resampled subjects.
        draw = generator(seed, "utility-bootstrap", task.name)
        if task.kind == "binary" and training_set.label_shift is not None:
            scores = shifted(scores, float(training_set.label_shift[task_index]))
        weights = subject_weights(test.subject_index[known], n_bootstrap, draw)
        seeds_drawn = draw.integers(len(scores), size=(n_bootstrap, len(scores)))
        if task.kind == "regression":  # in clinical units; R2 does not care, the mean absolute error does
            truth, scores = task.low + truth * (task.high - task.low), task.low + scores * (task.high - task.low)
        for metric, function in (METRICS if task.kind == "binary" else REGRESSION_METRICS).items():
            per_seed = np.array([function(row, truth, np.ones((1, len(truth))))[0] for row in scores])
            by_subjects = np.stack([function(row, truth, weights) for row in scores], axis=1)
            replicates = np.take_along_axis(by_subjects, seeds_drawn, axis=1).mean(axis=1)
            low, high = np.nanquantile(replicates, (0.025, 0.975)) if np.isfinite(replicates).any() else (np.nan,) * 2
            yield UtilityScore(
                training_set=name,
                input=training_set.input,
                model=model,
                task=task.name,
                metric=metric,
                mean=float(per_seed.mean()),
                low=float(low),
                high=float(high),
                seed_sd=float(per_seed.std(ddof=1)) if len(per_seed) > 1 else 0.0,
                n_seeds=len(per_seed),
                n_test=len(truth),
                n_samples=n_samples,
            )


def subject_weights(
    subjects: Int32[np.ndarray, " stay"], n_draws: int, draw: np.random.Generator
) -> Float64[np.ndarray, "draw stay"]:
    """How often each stay is in each bootstrap draw of subjects with replacement; a subject's stays go together."""
    people, person_of_stay = np.unique(subjects, return_inverse=True)
    counts = draw.multinomial(len(people), np.full(len(people), 1 / len(people)), size=n_draws)
    return counts[:, person_of_stay].astype(np.float64)


def untestable_tasks(test: EncodedCohort) -> list[str]:
    """Tasks with fewer than two different labels among the held-out stays: nothing can be told apart there."""
    return [
        task.name
        for task, labels in zip(test.tasks, test.labels.T, strict=True)
        if len(np.unique(labels[np.isfinite(labels)])) < 2
    ]


def _check(name: str, training_set: TrainingSet) -> None:
    test = training_set.test
    if len(test.labels) == 0:
        raise DataError(f"utility of {name}: there is no held-out stay to test on")
    if len(untestable_tasks(test)) == len(test.tasks):
        raise DataError(f"utility of {name}: no task has both classes among the held-out stays")
    for features, labels in training_set.draws:
        if features.shape[1:] != test.features.shape[1:] or labels.shape != (len(features), len(test.tasks)):
            raise DataError(
                f"utility of {name}: features {features.shape} and labels {labels.shape} do not fit the held-out stays "
                f"{test.features.shape} with {len(test.tasks)} tasks"
            )
    tuning = training_set.tuning
    if tuning is not None and (tuning.features.shape[1:], tuning.tasks) != (test.features.shape[1:], test.tasks):
        raise DataError(
            f"utility of {name}: the tuning stays have other steps, channels or tasks than the held-out ones"
        )
