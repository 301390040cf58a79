"""Validated groups on planted tasks: who shares a cause is grouped, permuted labels stay alone, estimation is apart."""

import dataclasses

import numpy as np
import pytest

from pipeline.core.errors import DataError
from pipeline.core.types import EncodedCohort, Provenance, Split, Task
from pipeline.grouping.affinity.samplewise import label_hamming
from pipeline.grouping.partition import Limits
from pipeline.grouping.reliability import agreement, pair_reliability
from pipeline.grouping.run import group_tasks, validate_grouping
from pipeline.grouping.validated import Effort, _parts, candidates, validate_groups


def cohort(seed: int, n_stays: int = 900, planted: bool = True) -> EncodedCohort:
    """Six tasks on two hidden causes of 30 channels, or on nothing; hard to learn alone at this size."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n_stays, 1, 30)).astype(np.float32)
    hidden = 3 * np.tanh(features[:, 0] @ rng.normal(size=(30, 2)) * 1.5 / np.sqrt(30))
    chance = 1 / (1 + np.exp(-hidden[:, np.arange(6) % 2])) if planted else np.full((n_stays, 6), 0.4)
    return EncodedCohort(
        features=features,
        labels=(rng.random((n_stays, 6)) < chance).astype(np.float32),
        subject_index=np.arange(n_stays, dtype=np.int32),
        split=(np.arange(n_stays) % 3 == 2).astype(np.int8),
        channels=tuple(f"channel {number}" for number in range(30)),
        tasks=tuple(Task(name) for name in "abcdef"),
        step_hours=1.0,
        transforms=(),
        provenance=Provenance("encode"),
    )


def test_tables_that_agree_are_told_from_unrelated_ones() -> None:
    rng = np.random.default_rng(0)
    structure = np.where(np.eye(8, dtype=bool), np.nan, rng.normal(size=(8, 8)))
    noisy = structure + 0.3 * rng.normal(size=(3, 2, 8, 8))
    assert agreement(noisy, seed=0).identifiable
    unrelated = np.where(np.eye(8, dtype=bool), np.nan, rng.normal(size=(3, 2, 8, 8)))
    assert not agreement(unrelated, seed=0).identifiable


def test_a_task_that_gains_from_everybody_is_no_grouping() -> None:
    rng = np.random.default_rng(1)
    easy = np.arange(8.0) * np.ones((8, 1)) + 0.1 * rng.normal(size=(2, 2, 8, 8))
    assert not agreement(np.where(np.eye(8, dtype=bool), np.nan, easy), seed=0).identifiable


def test_unrelated_tables_are_seldom_called_a_grouping() -> None:
    """400 unrelated pairs of tables at a nominal 2 %: 15 is the 99 % point of a binomial(400, .02)."""
    rng = np.random.default_rng(2)
    tables = np.where(np.eye(6, dtype=bool), np.nan, rng.normal(size=(400, 2, 2, 6, 6)))
    assert sum(agreement(one, seed=number).identifiable for number, one in enumerate(tables)) <= 15


@pytest.mark.slow
def test_groups_that_share_a_cause_are_found_and_worth_something() -> None:
    both = cohort(0, n_stays=1500)
    training, tuning = both.part(Split.TRAIN), both.part(Split.TUNING)
    proposed = group_tasks(training, affinity="label_hamming", max_groups=3, n_inits=1, seed=0)
    found = validate_grouping(proposed, training, tuning, affinity="label_hamming", n_inits=1, max_groups=3, seed=0)
    assert found.validation is not None
    assert found.validation.identifiable
    assert found.validation.gain_low > 0
    assert found.groups == found.validation.chosen
    alike = np.arange(6)[:, None] % 2 == np.arange(6) % 2
    together = np.array(found.validation.together)
    assert together[alike & ~np.eye(6, dtype=bool)].mean() > 1.5 * together[~alike].mean()
    assert any("Validation chooses" in note for note in found.notes)


@pytest.mark.slow
def test_unrelated_tasks_stay_alone() -> None:
    both = cohort(1, n_stays=600, planted=False)
    found = pair_reliability(both.features[:, 0], both.labels, both.subject_index, n_splits=2, n_seeds=1, seed=0)
    assert not found.identifiable
    assert "no grouping is identifiable" in found.told()


def test_estimation_subjects_have_no_say() -> None:
    both = cohort(2)
    tuning = dataclasses.replace(both.part(Split.TUNING), subject_index=np.arange(300, dtype=np.int32) // 3)
    train, select, estimate = _parts(both.part(Split.TRAIN), tuning, seed=0)
    assert len(np.unique(np.concatenate([train, select, estimate]))) == 900
    people = [set(tuning.subject_index[rows - 600].tolist()) for rows in (select, estimate)]
    assert not people[0] & people[1]


def test_candidates_are_different_and_hold_what_must_be_there() -> None:
    training = cohort(3).part(Split.TRAIN)
    groups = candidates(
        training, lambda _, labels: label_hamming(labels), max_groups=3, n_candidates=Effort().n_candidates, seed=0
    )
    assert len(np.unique(groups, axis=0)) == len(groups) == 63  # every group of six tasks
    assert groups.any(axis=1).all()
    assert groups.sum(axis=1).max() == 6


def test_limits_bind_every_choice_but_the_comparisons() -> None:
    both = cohort(0, n_stays=600)
    four = dataclasses.replace(both, labels=both.labels[:, :4], tasks=both.tasks[:4])
    limits = Limits(largest=2, must_link=((0, 2),), cannot_link=((1, 3),))
    found = validate_groups(
        four.part(Split.TRAIN),
        four.part(Split.TUNING),
        lambda _, labels: label_hamming(labels),
        max_groups=3,
        seed=0,
        effort=Effort(n_candidates=10, n_seeds=1, n_splits=1),
        limits=limits,
    )
    assert set(found.chosen) == {("a", "c"), ("b",), ("d",)}  # nothing else keeps to them
    assert found.compared[0].name == "all tasks together"
    assert found.compared[-1].n_groups == 3


def test_three_tasks_are_too_few_to_tell() -> None:
    both = cohort(4)
    with pytest.raises(DataError, match="four tasks"):
        pair_reliability(both.features[:, 0], both.labels[:, :3], both.subject_index, n_splits=1, n_seeds=1, seed=0)
