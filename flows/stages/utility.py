"""Is a set worth sharing: models trained on it, tested on real stays, and the floor that a release must reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from flows.compute.devices import device
from flows.compute.maps import calls, everywhere, for_much_work
from flows.progress import steps
from flows.stages.artefacts import Encoded, condensed_sets, set_name, table_of
from flows.workspace.job import Job
from pipeline.core.risk import teacher_risks
from pipeline.core.seeds import generator
from pipeline.core.types import (
    CondensedSet,
    EncodedCohort,
    Split,
    UtilityReport,
    UtilityScore,
    with_tasks,
)
from pipeline.core.types.found import FULL_DATA, OF_TEACHER, RANDOM_REAL
from pipeline.store import Made

if TYPE_CHECKING:
    from pipeline.validation.utility import Training, TrainingSet

BESIDE_NETWORKS: Final = 10.0  # a network's training costs about so many of another model


def utility(
    job: Job, encoded: Mapping[str, Made[Encoded]], condensed: Mapping[str, Made[CondensedSet]]
) -> Made[UtilityReport]:
    """Train on every condensed set, on all real training stays and on equally many random ones; test on real stays."""
    config, table = job.config, job.config.utility
    seed = job.seed("utility")
    where = device(config.device)
    options = {"utility": table.model_dump(mode="json"), "reference": [config.release.kind, config.release.artefact]}
    parents = tuple(made.first for made in (*encoded.values(), *condensed.values()))

    def make(_: object) -> tuple[UtilityReport]:
        from pipeline.validation.utility import measure_utility

        sets = _training_sets(job, encoded, condensed)
        with steps("training the panel", "") as on_step:
            report = measure_utility(
                sets,
                models=table.models,
                n_seeds=table.n_seeds,
                epochs=table.epochs,
                seed=seed,
                device=where,
                on_step=on_step,
                elsewhere=_by_workers(job, encoded, condensed, sets, seed) if where == "cpu" else None,
            )
        rows = tuple(dataclasses.replace(row, training_set=_shown(row)) for row in report.scores)
        return (dataclasses.replace(report, scores=rows),)

    return job.once("utility", parents, options, seed, make)


def _shown(row: UtilityScore) -> str:
    """A row's set by its table's name."""
    return table_of(row.training_set.removesuffix(OF_TEACHER)) + OF_TEACHER * row.training_set.endswith(OF_TEACHER)


_Named = tuple[tuple[str, Made[Encoded]], ...]
_Sets = tuple[tuple[str, Made[CondensedSet]], ...]


def _by_workers(
    job: Job,
    encoded: Mapping[str, Made[Encoded]],
    condensed: Mapping[str, Made[CondensedSet]],
    sets: Mapping[str, TrainingSet],
    seed: int,
) -> Iterator[np.ndarray] | None:
    """What each training predicts, where there is more than this process to train; networks share no process."""
    table = job.config.utility
    job = for_much_work(job, max(len(one.test.labels) for one in sets.values()))
    if not job.config.compute.by_workers:
        return None
    from pipeline.probes.networks import NETWORKS
    from pipeline.validation.utility import trainings

    told = tuple(encoded.items()), tuple(condensed.items())
    wanted = trainings(sets, table.models, table.n_seeds)
    pieces = [(job, *told, one, seed) for one in wanted]
    costs = [
        len(sets[one.training_set].draws[0][0]) * (BESIDE_NETWORKS if one.model in NETWORKS else 1) for one in wanted
    ]

    def there() -> Iterator[np.ndarray]:
        try:
            yield from calls(job, _predicted, pieces, costs)
        finally:
            everywhere(job, _forget)

    return there()


def _predicted(job: Job, encoded: _Named, condensed: _Sets, training: Training, seed: int) -> np.ndarray:
    """On a worker: one training."""
    from pipeline.validation.utility import predictions

    sets = _sets_there(job, encoded, condensed)
    return predictions(sets[training.training_set], training, epochs=job.config.utility.epochs, seed=seed)


@lru_cache(maxsize=1)
def _sets_there(job: Job, encoded: _Named, condensed: _Sets) -> dict[str, TrainingSet]:
    return _training_sets(job, dict(encoded), dict(condensed))


def _forget() -> None:
    """Hold no patient's series any longer: a worker outlives the run."""
    _sets_there.cache_clear()


def _training_sets(
    job: Job, encoded: Mapping[str, Made[Encoded]], condensed: Mapping[str, Made[CondensedSet]]
) -> dict[str, TrainingSet]:
    """The condensed sets, then their ceiling and their baseline in the reference set's encoding and tasks."""
    from pipeline.validation.utility import TrainingSet

    tables = job.config.condense
    sets: dict[str, TrainingSet] = {}
    for name, made in condensed.items():
        held_out = job.only(encoded[tables[name].input], EncodedCohort).part(Split.HELD_OUT)
        for number, samples in enumerate(condensed_sets(job, made)):
            test = with_tasks(held_out, samples.tasks)
            key = set_name(name, number)
            sets[key] = trained_on(tables[name].input, samples, test)
    reference = _reference(job, sets)
    table, test = tables[reference], sets[reference].test
    source = job.config.release.artefact if job.config.release.kind == "encoded" else table.input
    training = job.only(encoded[source], EncodedCohort)
    test = with_tasks(training.part(Split.HELD_OUT), test.tasks)
    training = with_tasks(training.part(Split.TRAIN), test.tasks)
    draws = [_random_rows(job, training, table.n_per_class, draw) for draw in range(job.config.utility.n_random_draws)]
    sets[FULL_DATA] = TrainingSet(source, training.features, training.labels, test)
    sets[RANDOM_REAL] = TrainingSet(
        source, tuple(training.features[rows] for rows in draws), tuple(training.labels[rows] for rows in draws), test
    )
    return sets


def trained_on(source: str, samples: CondensedSet, test: EncodedCohort) -> TrainingSet:
    """A condensed set as a receiver trains on it: risks corrected for its balanced labels, its teacher scored."""
    from pipeline.validation.utility import TrainingSet

    risks = None
    if samples.teacher is not None and samples.teacher_features is not None:
        risks = teacher_risks(test.features, samples.teacher, samples.teacher_features, samples.channels)
    return TrainingSet(
        source, samples.features, samples.labels, test, label_shift=samples.label_shift, teacher_risks=risks
    )


def _reference(job: Job, sets: Mapping[str, TrainingSet]) -> str:
    """The condensed set whose size and tasks the full-data and random rows take: the released one, else the first."""
    return job.config.release.artefact if job.config.release.artefact in sets else next(iter(sets))


def _random_rows(job: Job, training: EncodedCohort, n_per_class: int, draw: int) -> np.ndarray:
    random = generator(job.seed("random real stays"), draw)
    classes = [np.flatnonzero(training.labels[:, 0] < 0.5), np.flatnonzero(training.labels[:, 0] >= 0.5)]
    return np.concatenate([random.choice(rows, min(n_per_class, len(rows)), replace=False) for rows in classes])
