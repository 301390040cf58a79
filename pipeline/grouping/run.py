"""The group stage: affinity and its label-only control, the exact partition of both, and what not to conclude."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Final, Literal, final

import numpy as np
from jaxtyping import Float64

from pipeline.core.errors import DataError
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import generator
from pipeline.core.types import EncodedCohort, Grouping, GroupValidation
from pipeline.grouping.affinity.bank import fill_bank, samplewise
from pipeline.grouping.affinity.samplewise import label_hamming, samplewise_multihead, summarise
from pipeline.grouping.checks import N_SHUFFLES, note_on_halves, note_on_shuffles, rank_correlation, smaller_class
from pipeline.grouping.partition import Groups, Limits, exact_partition
from pipeline.grouping.trainings import Trainer, train_here
from pipeline.grouping.validated import validate_groups

AffinityKind = Literal["samplewise_multihead", "label_hamming", "samplewise"]

FEW: Final = 20  # a task with fewer stays in its smaller class is flagged, without its count
LIKE_CONTROL: Final = 0.9  # rank correlation from which the affinity adds nothing to comparing labels
NOT_VALIDATED: Final = (
    "Affinities propose; no gain of grouping has been validated in this version: train the groups, all tasks together "
    "and each task alone, and compare on tuning stays before relying on one."
)
OUTSIDE_ACCOUNT: Final = (
    "These figures and the choice of groups come from real stays and are outside the privacy account: they stay in the "
    "site's own report, or the groups are fixed in public beforehand."
)


@final
@dataclass(frozen=True)
class NamedLimits:
    """`pipeline.grouping.partition.Limits`, tasks by their names."""

    largest: int | None = None
    must_link: tuple[tuple[str, str], ...] = ()
    cannot_link: tuple[tuple[str, str], ...] = ()

    def of(self, names: tuple[str, ...]) -> Limits:
        """For these tasks; a pair with a task that was left out binds nobody."""

        def places(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[int, int], ...]:
            return tuple((names.index(a), names.index(b)) for a, b in pairs if a in names and b in names)

        return Limits(self.largest, places(self.must_link), places(self.cannot_link))


def group_tasks(
    encoded: EncodedCohort,
    *,
    affinity: AffinityKind,
    max_groups: int,
    n_inits: int,
    seed: int,
    limits: NamedLimits | None = None,
    max_stays: int = 2000,
    on_step: OnStep = ignore_step,
) -> Grouping:
    """Propose at most `max_groups` disjoint groups of tasks, classes or numbers, from training stays.

    A random `max_stays` of them are looked at. Tasks whose labels do not vary are left out, with a note. The affinity
    is computed again on two halves of these stays and on shuffled labels (`pipeline.grouping.checks`), so that the
    notes can say that no grouping is identifiable here. Deterministic given the seed.

    Raises:
        DataError: fewer than two tasks with both classes, more than 15 tasks, tasks never labelled together, or limits
            that no partition keeps to.
    """
    rows = _sample(len(encoded.labels), max_stays, seed)
    features, labels = encoded.features[rows], encoded.labels[rows]
    usable = [task for task in range(labels.shape[1]) if smaller_class(labels[:, task]) > 0]
    if len(usable) < 2:
        raise DataError(f"grouping needs two tasks with both classes; {len(usable)} of {labels.shape[1]} tasks qualify")
    labels = labels[:, usable]
    names = tuple(encoded.tasks[task].name for task in usable)
    control = label_hamming(labels)
    within = (limits or NamedLimits()).of(names)
    control_groups, _ = exact_partition(control, max_groups=max_groups, limits=within)

    steps = count(1)

    def measure(part: np.ndarray, part_labels: np.ndarray, inits: int = n_inits) -> np.ndarray:
        return measured(
            affinity,
            features[part],
            part_labels,
            n_inits=inits,
            seed=seed,
            on_step=lambda _step, _steps, value: on_step(next(steps), 3 * n_inits + N_SHUFFLES + 1, value),
        )

    matrix = measure(np.arange(len(rows)), labels)
    groups, objective = exact_partition(matrix, max_groups=max_groups, limits=within)
    correlation = rank_correlation(matrix, control)
    left_out = [task.name for index, task in enumerate(encoded.tasks) if index not in usable]
    notes = [
        *_notes_on_tasks(names, labels, left_out),
        *_notes_on_control(affinity, correlation, groups, control_groups),
        note_on_halves(measure, labels, encoded.subject_index[rows], max_groups, seed),
        note_on_shuffles(partial(measure, inits=1), labels, max_groups, seed),
    ]
    return Grouping(
        tasks=names,
        method=affinity,
        affinity=_rows(matrix),
        control_method="label_hamming",
        control=_rows(control),
        rank_correlation=correlation,
        groups=_named(groups, names),
        control_groups=_named(control_groups, names),
        objective=objective,
        n_stays=len(rows),
        notes=(*notes, NOT_VALIDATED, OUTSIDE_ACCOUNT),
    )


def measured(
    affinity: AffinityKind,
    features: np.ndarray,
    labels: np.ndarray,
    *,
    n_inits: int,
    seed: int,
    on_step: OnStep = ignore_step,
) -> Float64[np.ndarray, "task task"]:
    """The affinity of these stays, `(stay, step, channel)` and `(stay, task)`, by its name.

    Raises:
        DataError: as the affinity.
    """
    if affinity == "label_hamming":
        return label_hamming(labels)
    if affinity == "samplewise_multihead":
        return samplewise_multihead(features, labels, n_inits=n_inits, seed=seed, on_step=on_step)
    bank = fill_bank(summarise(features), labels, n_points=n_inits, seed=seed, on_step=on_step)
    return samplewise(bank, np.ones(len(bank.stays)))


def validate_grouping(
    proposed: Grouping,
    training: EncodedCohort,
    tuning: EncodedCohort,
    *,
    affinity: AffinityKind,
    n_inits: int,
    max_groups: int,
    seed: int,
    limits: NamedLimits | None = None,
    device: str = "cpu",
    trainer: Trainer = train_here,
    on_step: OnStep = ignore_step,
) -> Grouping:
    """The proposal after training candidates: its groups are the validated ones, or every task alone.

    Raises:
        DataError: fewer than four usable tasks, or a task with one class in a part of the stays.
    """
    training, tuning = _with_tasks(training, proposed.tasks), _with_tasks(tuning, proposed.tasks)

    measure = _resampled(affinity, training, n_inits=n_inits, seed=seed)
    within = (limits or NamedLimits()).of(proposed.tasks)
    validation = validate_groups(
        training,
        tuning,
        measure,
        max_groups=max_groups,
        seed=seed,
        limits=within,
        device=device,
        trainer=trainer,
        on_step=on_step,
    )
    alone = _named(within.smallest(len(proposed.tasks)), proposed.tasks)
    return dataclasses.replace(
        proposed,
        groups=validation.chosen if validation.identifiable else alone,
        notes=(*(note for note in proposed.notes if note != NOT_VALIDATED), _told(validation)),
        validation=validation,
    )


def _resampled(
    affinity: AffinityKind, training: EncodedCohort, *, n_inits: int, seed: int
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The affinity as a function of drawn rows and their labels; a bank is filled once and read with weights."""
    if affinity in ("label_hamming", "samplewise_multihead"):
        return lambda rows, labels: measured(affinity, training.features[rows], labels, n_inits=n_inits, seed=seed)
    bank = fill_bank(summarise(training.features), training.labels, n_points=n_inits, seed=seed)
    return lambda rows, _: samplewise(bank, bank.weights(rows))


def _with_tasks(encoded: EncodedCohort, names: tuple[str, ...]) -> EncodedCohort:
    columns = [index for name in names for index, task in enumerate(encoded.tasks) if task.name == name]
    tasks = tuple(encoded.tasks[column] for column in columns)
    return dataclasses.replace(encoded, labels=encoded.labels[:, columns], tasks=tasks)


def _told(validation: GroupValidation) -> str:
    """The verdict, and what the chosen groups were worth to stays that had no say."""
    interval = f"{100 * validation.gain:.1f} % [{100 * validation.gain_low:.1f}, {100 * validation.gain_high:.1f}]"
    chosen = "; ".join(" + ".join(group) for group in validation.chosen)
    harmed = f" Significantly harmed: {', '.join(validation.harmed)}." if validation.harmed else ""
    return (
        f"Trained: {validation.verdict} Validation chooses {chosen}; on stays that had no say this is worth {interval} "
        f"of a task's null log-loss over learning each task alone (80 % interval).{harmed}"
    )


def _sample(n_stays: int, max_stays: int, seed: int) -> np.ndarray:
    order = generator(seed, "grouping", "stays").permutation(n_stays)
    return np.sort(order[:max_stays])


def _notes_on_tasks(names: tuple[str, ...], labels: np.ndarray, left_out: list[str]) -> list[str]:
    notes = [f"Task {name} has a single class among the stays looked at and is left out." for name in left_out]
    few = [name for index, name in enumerate(names) if smaller_class(labels[:, index]) < FEW]
    notes += [f"Task {name} has fewer than {FEW} stays in its smaller class: its affinities are noise." for name in few]
    if len(names) < 3:
        notes.append("With two tasks there is no order of pairs; rank correlations are recorded as 0.")
    return notes


def _notes_on_control(affinity: str, correlation: float, groups: Groups, control: Groups) -> list[str]:
    if affinity == "label_hamming":
        return ["The chosen affinity is the label control itself: it never looks at a feature."]
    same = "the same groups" if set(groups) == set(control) else "other groups"
    notes = [f"Rank correlation with the label-only control is {correlation:.2f}; the control proposes {same}."]
    if correlation >= LIKE_CONTROL:
        notes.append("The affinity ranks pairs as the label control does: comparing labels would have been enough.")
    return notes


def _rows(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in matrix)


def _named(groups: Groups, names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(names[task] for task in group) for group in groups)
