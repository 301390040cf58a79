"""Propose, train, select: groups that have been trained before they are recommended, and the right to say "none".

Candidates are every task alone, all tasks together, what the affinity and the label control propose (on the stays as
they are and on bootstrap replicates of them), and random groups; with one seed each at first, then the better half with
all seeds. Half of the tuning subjects stop the training and select; the other half, which had no say, tell the gain.
Whether there is anything to select is asked apart (`pipeline.grouping.reliability`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Bool, Float32

from pipeline.core.errors import DataError
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import child_seed, generator
from pipeline.core.types import EncodedCohort, GroupsCompared, GroupValidation
from pipeline.grouping.affinity.samplewise import label_hamming, summarise
from pipeline.grouping.batched_trainer import log_losses
from pipeline.grouping.checks import smaller_class
from pipeline.grouping.choose import Choice, choose
from pipeline.grouping.cover import best_cover
from pipeline.grouping.gains import GroupLosses, alone, gain_of, gains, null_log_losses, values
from pipeline.grouping.partition import Limits, exact_partition
from pipeline.grouping.reliability import Reliability, pair_reliability
from pipeline.grouping.trainings import Trainer, Training, train_here

N_REPLICATES: Final = 6  # bootstrap replicates of the affinity that propose groups
MIN_VALIDATED: Final = 4  # tasks; fewer have too few pairs to tell agreement from chance
RANDOM_TRIES: Final = 200  # for each candidate wanted; under tight limits there are not so many
LARGEST_INPUT: Final = 5.0  # standard deviations; a summary further out is an outlier of the record, not of the task

CEILING: Final = "ceiling: chosen on the stays that score it"

Affinity = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(rows of stays, labels of these rows) -> affinity (task, task)."""


@final
@dataclass(frozen=True)
class Effort:
    """How much is trained: candidates, seeds of each, and halvings for the reliability."""

    n_candidates: int = 64
    n_seeds: int = 4
    n_splits: int = 4


def validate_groups(
    training: EncodedCohort,
    tuning: EncodedCohort,
    affinity: Affinity,
    *,
    max_groups: int,
    seed: int,
    effort: Effort | None = None,
    limits: Limits | None = None,
    device: str = "cpu",
    trainer: Trainer = train_here,
    on_step: OnStep = ignore_step,
) -> GroupValidation:
    """Choose at most `max_groups` groups by training candidates; tasks are those of `training`.

    Raises:
        DataError: fewer than four tasks, a task with one class in a part of the stays, or limits that no choice keeps.
    """
    effort, limits = effort or Effort(), limits or Limits()
    names = tuple(task.name for task in training.tasks)
    if len(names) < MIN_VALIDATED:
        raise DataError(f"groups are validated from {MIN_VALIDATED} tasks on; {len(names)} qualify")
    both = np.concatenate([training.features, tuning.features])
    inputs = trainer_inputs(both)
    labels = np.concatenate([training.labels, tuning.labels])
    subjects = np.concatenate([training.subject_index, tuning.subject_index])
    train, select, estimate = _parts(training, tuning, seed)
    seen = np.concatenate([train, select])
    reliability = pair_reliability(
        inputs[seen],
        labels[seen],
        subjects[seen],
        n_splits=effort.n_splits,
        n_seeds=1,
        seed=seed,
        device=device,
        trainer=trainer,
        on_step=lambda step, _steps, gain: on_step(step, 2 * effort.n_splits + 2, gain),
    )
    groups = candidates(
        training, affinity, max_groups=max_groups, n_candidates=effort.n_candidates, seed=seed, limits=limits
    )

    def losses(kept: np.ndarray, n_seeds: int) -> tuple[GroupLosses, GroupLosses, float]:
        scored = np.concatenate([select, estimate])
        seeds = [child_seed(seed, "grouping", "candidate", number) for number in range(n_seeds)]
        asked = [Training(train, select, scored, kept, (one,)) for one in seeds]
        found = list(trainer(inputs, labels, asked, device=device))
        loss = np.concatenate([log_losses(one.logits, labels[scored]).astype(np.float32) for one in found], axis=1)
        null = null_log_losses(labels[scored], np.nanmean(labels[train].astype(np.float64), axis=0))
        whole = GroupLosses(kept, loss, null, subjects[scored])
        first = np.arange(len(select))
        return (
            whole.take(first),
            whole.take(np.arange(len(select), len(scored))),
            float(np.mean([one.at_limit for one in found])),
        )

    first, _, _ = losses(groups, 1)
    on_step(2 * effort.n_splits + 1, 2 * effort.n_splits + 2, 0.0)
    selecting, estimating, at_limit = losses(groups[_better_half(first, max_groups, limits)], effort.n_seeds)
    on_step(2 * effort.n_splits + 2, 2 * effort.n_splits + 2, 0.0)
    choice = choose(selecting, max_groups=max_groups, seed=seed, limits=limits)
    compared = compare_choices(selecting, estimating, max_groups=max_groups, limits=limits, seed=seed)
    told = _told(names, choice, estimating, reliability, len(groups), effort.n_seeds, at_limit)
    return dataclasses.replace(told, compared=compared)


def compare_choices(
    selecting: GroupLosses, estimating: GroupLosses, *, max_groups: int, limits: Limits, seed: int
) -> tuple[GroupsCompared, ...]:
    """What other choices from the same trained groups gain: all tasks together, the best of at most 1, 2, ... groups,
    and the ceiling, which chooses by looking at the very stays that score it and is out of reach."""
    n_tasks = selecting.groups.shape[1]
    found = {"all tasks together": (int(selecting.groups.sum(axis=1).argmax()),) * n_tasks}
    for most in range(2, max_groups + 1):
        with suppress(DataError):  # under limits so few groups may not cover the tasks
            cover = choose(selecting, max_groups=most, seed=seed, limits=limits, n_replicates=1).cover
            found[f"validation, at most {most} groups"] = cover.serves
    with suppress(DataError):
        allowed = np.where(limits.allow(estimating.groups)[:, None], values(estimating)[0], np.nan)
        found[CEILING] = best_cover(allowed, max_groups=max_groups).serves
    rows = []
    for name, serves in found.items():
        gain = gain_of(estimating, serves)
        rows.append(GroupsCompared(name, len(set(serves)), gain.mean, gain.low, gain.high))
    return tuple(rows)


def trainer_inputs(features: Float32[np.ndarray, "stay step channel"]) -> Float32[np.ndarray, "stay feature"]:
    """Standardised summaries, each once: a static's mean, minimum and last value are one column, not three.

    Repeated columns would learn that many times faster than the others.
    """
    columns = summarise(features).astype(np.float32).clip(-LARGEST_INPUT, LARGEST_INPUT)
    once = np.unique(columns.round(4), axis=1, return_index=True)[1]
    return np.asarray(columns[:, np.sort(once)])


def _parts(training: EncodedCohort, tuning: EncodedCohort, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of both cohorts, one after the other: training, selection, estimation; tuning halves by subject."""
    people = generator(seed, "grouping", "estimation").permutation(np.unique(tuning.subject_index))
    selects = np.isin(tuning.subject_index, people[: len(people) // 2])
    rows = len(training.labels) + np.arange(len(tuning.labels))
    return np.arange(len(training.labels)), rows[selects], rows[~selects]


def candidates(
    training: EncodedCohort,
    affinity: Affinity,
    *,
    max_groups: int,
    n_candidates: int,
    seed: int,
    limits: Limits | None = None,
) -> Bool[np.ndarray, "group task"]:
    """Different groups: singles, all together, proposals, then random ones until there are `n_candidates`.

    Within the limits but for the singles, against which every gain is told, and all together, for comparison.
    """
    limits = limits or Limits()
    n_stays, n_tasks = training.labels.shape
    found = dict.fromkeys([*((task,) for task in range(n_tasks)), tuple(range(n_tasks)), *limits.smallest(n_tasks)])
    for replicate in range(N_REPLICATES + 1):
        draws = generator(seed, "grouping", "replicate", replicate)
        rows = np.arange(n_stays)
        if replicate:
            rows = np.asarray(draws.integers(n_stays, size=n_stays))
        if any(smaller_class(training.labels[rows, task]) == 0 for task in range(n_tasks)):
            continue  # a rare task lost its events in this draw
        for measure in (affinity, lambda _, part: label_hamming(part)):
            distance = measure(rows, training.labels[rows])
            for parts in range(2, max_groups + 1):
                with suppress(DataError):  # no so many groups keep to the limits
                    found |= dict.fromkeys(exact_partition(distance, max_groups=parts, limits=limits)[0])
    random = generator(seed, "grouping", "random candidates")
    for _ in range(RANDOM_TRIES * n_candidates):
        if len(found) >= n_candidates:
            break
        drawn = np.asarray(random.random(n_tasks) < random.uniform(0.2, 0.8))
        if drawn.any() and limits.allow(drawn[None])[0]:
            found[tuple(np.flatnonzero(drawn).tolist())] = None
    groups = np.zeros((len(found), n_tasks), dtype=bool)
    for row, members in enumerate(found):
        groups[row, list(members)] = True
    return groups


def _better_half(losses: GroupLosses, max_groups: int, limits: Limits) -> np.ndarray:
    """Rows to train on: singles, largest and smallest groups, and the half whose members gain most on average."""
    gained = np.nanmean(gains(values(losses)[0], losses.groups), axis=1)
    gained[alone(losses.groups)] = np.inf
    gained[losses.groups.sum(axis=1).argmax()] = np.inf
    for group in limits.smallest(losses.groups.shape[1]):
        gained[(losses.groups == np.isin(np.arange(losses.groups.shape[1]), group)).all(axis=1)] = np.inf
    keep = max(len(gained) // 2, int(np.isinf(gained).sum()) + max_groups)
    return np.sort(np.argsort(-gained, kind="stable")[:keep])


def _told(
    names: tuple[str, ...],
    choice: Choice,
    estimating: GroupLosses,
    reliability: Reliability,
    n_trained: int,
    n_seeds: int,
    at_limit: float,
) -> GroupValidation:
    gain = gain_of(estimating, choice.cover.serves)
    return GroupValidation(
        chosen=choice.names(names),
        identifiable=reliability.identifiable,
        verdict=reliability.told(),
        reliability=reliability.correlation,
        reliability_low=reliability.low,
        gain=gain.mean,
        gain_low=gain.low,
        gain_high=gain.high,
        task_gains=gain.per_task,
        share_gaining=tuple(float(share) for share in choice.share_gaining),
        harmed=tuple(names[task] for task in gain.harmed),
        together=tuple(tuple(float(value) for value in row) for row in choice.together),
        n_trained=n_trained,
        n_seeds=n_seeds,
        share_at_limit=at_limit,
    )
