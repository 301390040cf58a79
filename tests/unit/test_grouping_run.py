"""The group stage: its record, its notes, its determinism."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.core.errors import DataError
from pipeline.core.types import EncodedCohort, Provenance, Task
from pipeline.grouping.run import FEW, group_tasks


def cohort(labels: np.ndarray, series: np.ndarray | None = None, subjects: np.ndarray | None = None) -> EncodedCohort:
    n_stays, n_tasks = labels.shape
    if series is None:
        series = np.random.default_rng(0).random((n_stays, 6, 4))
    return EncodedCohort(
        features=series.astype(np.float32),
        labels=labels.astype(np.float32),
        subject_index=np.arange(n_stays, dtype=np.int32) if subjects is None else subjects.astype(np.int32),
        split=np.zeros(n_stays, dtype=np.int8),
        channels=tuple(f"c{channel}" for channel in range(series.shape[2])),
        tasks=tuple(Task(f"task{task}") for task in range(n_tasks)),
        step_hours=1.0,
        transforms=(),
        provenance=Provenance("prepare"),
    )


def planted(n_stays: int = 600, seed: int = 0) -> EncodedCohort:
    """Tasks 0, 1, 2 read channel 0 (task 2 with opposite sign), 3, 4, 5 read channel 1; half of label 4 unknown."""
    rng = np.random.default_rng(seed)
    series = rng.random((n_stays, 6, 4))
    one, two = ((series[:, :, c].mean(1) - 0.5) * np.sqrt(6 * 12) for c in (0, 1))
    scores = np.column_stack([one, one - 1, -one, two, two + 1, two])
    labels = (scores + 0.3 * rng.standard_normal(scores.shape) > 0).astype(float)
    labels[rng.random(n_stays) < 0.5, 4] = np.nan
    return cohort(labels, series)


def test_planted_groups_are_found_where_the_control_is_blind() -> None:
    grouping = group_tasks(planted(), affinity="samplewise_multihead", max_groups=2, n_inits=2, seed=0)
    assert set(grouping.groups) == {("task0", "task1", "task2"), ("task3", "task4", "task5")}
    assert set(grouping.control_groups) != set(grouping.groups)  # opposite labels are far apart by Hamming distance
    assert any("Two halves of the stays give the same groups" in note for note in grouping.notes)
    assert not any("No grouping is identifiable" in note for note in grouping.notes)
    assert grouping.n_stays == 600
    assert grouping.control_method == "label_hamming"


def test_record_is_plain_repeatable_and_warns_always() -> None:
    calls: list[tuple[int, int]] = []
    kwargs = {"affinity": "samplewise_multihead", "max_groups": 3, "n_inits": 1, "max_stays": 200}
    one = group_tasks(planted(), **kwargs, seed=4, on_step=lambda step, steps, _: calls.append((step, steps)))  # type: ignore[arg-type]
    assert calls == [(step, 23) for step in range(1, 24)]
    assert one == group_tasks(planted(), **kwargs, seed=4)  # type: ignore[arg-type]
    assert one.affinity != group_tasks(planted(), **kwargs, seed=5).affinity  # type: ignore[arg-type]
    json.dumps([one.affinity, one.control, one.rank_correlation, one.objective], allow_nan=False)
    assert one.n_stays == 200
    assert any("no gain of grouping has been validated" in note for note in one.notes)
    assert any("outside the privacy account" in note for note in one.notes)


def test_labels_without_any_relation_to_the_features_are_not_identifiable() -> None:
    labels = (np.random.default_rng(2).random((400, 6)) < 0.3).astype(float)
    grouping = group_tasks(cohort(labels), affinity="samplewise_multihead", max_groups=3, n_inits=1, seed=0)
    assert any("No grouping is identifiable" in note for note in grouping.notes)


def test_label_control_as_the_affinity_says_so() -> None:
    grouping = group_tasks(planted(), affinity="label_hamming", max_groups=2, n_inits=1, seed=0)
    assert grouping.affinity == grouping.control
    assert grouping.rank_correlation == pytest.approx(1)
    assert any("label control itself" in note for note in grouping.notes)


def test_affinity_that_follows_the_control_says_so() -> None:
    """Features that are the labels themselves, blurred: label distance and gradient distance rank alike."""
    rng = np.random.default_rng(0)
    base = rng.random(800)
    cuts = np.array([0.2, 0.3, 0.5, 0.52])
    labels = (base[:, None] > cuts).astype(float)
    series = np.repeat(base[:, None, None], 3, axis=1)
    grouping = group_tasks(cohort(labels, series), affinity="samplewise_multihead", max_groups=2, n_inits=2, seed=0)
    assert grouping.rank_correlation >= 0.9
    assert any("comparing labels would have been enough" in note for note in grouping.notes)


def test_unusable_and_rare_tasks_are_named_without_counts() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((300, 5)) < 0.4).astype(float)
    labels[:, 1] = 0
    labels[:, 3] = 0
    labels[rng.permutation(300)[: FEW - 3], 3] = 1
    grouping = group_tasks(cohort(labels), affinity="samplewise_multihead", max_groups=2, n_inits=1, seed=0)
    assert grouping.tasks == ("task0", "task2", "task3", "task4")
    assert "Task task1 has a single class among the stays looked at and is left out." in grouping.notes
    assert [note for note in grouping.notes if note.startswith("Task task3 has fewer than 20 stays")]
    assert not any(str(FEW - 3) in note for note in grouping.notes if "task3" in note)


def test_a_task_too_rare_for_two_halves_leaves_the_check_undone() -> None:
    labels = (np.random.default_rng(1).random((100, 3)) < 0.4).astype(float)
    labels[:, 2] = 0
    labels[7, 2] = 1
    grouping = group_tasks(cohort(labels), affinity="samplewise_multihead", max_groups=2, n_inits=1, seed=0)
    assert any("Reproducibility was not checked" in note for note in grouping.notes)


def test_two_tasks_have_no_order_of_pairs() -> None:
    labels = (np.random.default_rng(1).random((200, 2)) < 0.4).astype(float)
    grouping = group_tasks(cohort(labels), affinity="samplewise_multihead", max_groups=2, n_inits=1, seed=0)
    assert grouping.rank_correlation == 0
    assert any("no order of pairs" in note for note in grouping.notes)


def test_one_usable_task_is_refused() -> None:
    labels = np.zeros((50, 3))
    labels[:20, 0] = 1
    with pytest.raises(DataError, match="two tasks with both classes; 1 of 3"):
        group_tasks(cohort(labels), affinity="samplewise_multihead", max_groups=2, n_inits=1, seed=0)
