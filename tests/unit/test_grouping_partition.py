"""The subset dynamic programme against every partition written out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.core.errors import DataError
from pipeline.grouping.partition import exact_partition, subset_costs


def distances(n_tasks: int, seed: int) -> np.ndarray:
    upper = np.triu(np.random.default_rng(seed).random((n_tasks, n_tasks)), 1)
    return upper + upper.T


def every_partition(tasks: list[int]) -> Iterator[list[list[int]]]:
    if not tasks:
        yield []
        return
    for rest in every_partition(tasks[1:]):
        yield [[tasks[0]], *rest]
        for place in range(len(rest)):
            yield [*rest[:place], [tasks[0], *rest[place]], *rest[place + 1 :]]


def cost_by_hand(distance: np.ndarray, group: list[int]) -> float:
    """Sum over members of the mean distance to the others."""
    if len(group) == 1:
        return 0.0
    return float(sum(np.mean([distance[t, u] for u in group if u != t]) for t in group))


@pytest.mark.parametrize("n_tasks", [1, 2, 3, 5, 7])
def test_partition_is_the_best_of_all(n_tasks: int) -> None:
    distance = distances(n_tasks, seed=n_tasks)
    partitions = list(every_partition(list(range(n_tasks))))
    assert len(partitions) == {1: 1, 2: 2, 3: 5, 5: 52, 7: 877}[n_tasks]  # Bell numbers
    for max_groups in range(1, n_tasks + 2):
        groups, objective = exact_partition(distance, max_groups=max_groups)
        allowed = [p for p in partitions if len(p) <= max_groups]
        best = min(sum(cost_by_hand(distance, group) for group in p) for p in allowed)
        assert objective == pytest.approx(best, abs=1e-12)
        assert objective == pytest.approx(sum(cost_by_hand(distance, list(group)) for group in groups), abs=1e-12)
        assert sorted(task for group in groups for task in group) == list(range(n_tasks))
        assert len(groups) == min(max_groups, n_tasks)  # no ties here: one more group always pays


def test_subset_costs_by_hand() -> None:
    distance = distances(4, seed=0)
    cost = subset_costs(distance)
    for subset in range(1, 16):
        members = [task for task in range(4) if subset >> task & 1]
        assert cost[subset] == pytest.approx(cost_by_hand(distance, members), abs=1e-12)


def test_ties_go_to_fewer_groups_and_outliers_stay_alone() -> None:
    distance = np.zeros((5, 5))
    distance[4, :4] = distance[:4, 4] = 1.0
    groups, objective = exact_partition(distance, max_groups=4)
    assert groups == ((0, 1, 2, 3), (4,))
    assert objective == 0


def test_fifteen_tasks_with_planted_groups() -> None:
    home = np.arange(15) % 4
    distance = np.where(home[:, None] == home[None, :], 0.2, 1.0) + 0.05 * distances(15, seed=3)
    np.fill_diagonal(distance, 0.0)
    groups, _ = exact_partition(distance, max_groups=4)
    assert {frozenset(group) for group in groups} == {frozenset(np.flatnonzero(home == h).tolist()) for h in range(4)}


def test_malformed_affinities_are_refused() -> None:
    good = distances(3, seed=0)
    with pytest.raises(DataError, match="1 to 15 tasks"):
        exact_partition(distances(16, seed=0), max_groups=2)
    with pytest.raises(DataError, match="max_groups"):
        exact_partition(good, max_groups=0)
    for bad in (np.triu(good), np.full((3, 3), np.nan), good[:2]):
        with pytest.raises(DataError, match="symmetric"):
            exact_partition(bad, max_groups=2)
    with pytest.raises(DataError, match="negative"):
        exact_partition(-good, max_groups=2)
