"""Exact disjoint partition of a few tasks by a dynamic programme over subsets.

Objective: the sum over tasks of the task's mean distance to its group mates (what the group costs each member; the
group score of Fifty et al. 2021, TAG, with a distance in the place of a gain). A group of g tasks costs 2/(g - 1) times
the sum of its pairwise distances; a singleton costs 0. Taking the worst member out of a group never raises this cost,
so with an affinity alone more groups are never worse and `max_groups` groups are what comes back (fewer only where that
ties). How many groups are worth having is a question for validation, not for the affinity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Bool, Float64

from pipeline.core.errors import DataError

MAX_TASKS: Final = 15
_TIE: Final = 1e-12

Groups = tuple[tuple[int, ...], ...]


@final
@dataclass(frozen=True)
class Limits:
    """What a group may be: its size, pairs of tasks that are learned together, and pairs that never are."""

    largest: int | None = None
    must_link: tuple[tuple[int, int], ...] = ()
    cannot_link: tuple[tuple[int, int], ...] = ()

    def allow(self, groups: Bool[np.ndarray, "group task"]) -> Bool[np.ndarray, " group"]:
        """Which groups keep to them."""
        allowed = np.ones(len(groups), dtype=bool) if self.largest is None else groups.sum(axis=1) <= self.largest
        for first, second in self.must_link:
            allowed &= groups[:, first] == groups[:, second]
        for first, second in self.cannot_link:
            allowed &= ~(groups[:, first] & groups[:, second])
        return np.asarray(allowed)

    def smallest(self, n_tasks: int) -> tuple[tuple[int, ...], ...]:
        """The smallest groups there can be: every task with those that it must be with."""
        group = list(range(n_tasks))
        for first, second in self.must_link:
            old, new = group[second], group[first]
            group = [new if one == old else one for one in group]
        return tuple(tuple(t for t in range(n_tasks) if group[t] == one) for one in dict.fromkeys(group))


def subset_costs(distance: Float64[np.ndarray, "task task"]) -> Float64[np.ndarray, " subset"]:
    """Cost of every subset as a group; a subset's index has bit t set where task t is in it."""
    n_tasks = len(distance)
    pair_sum = np.zeros(1 << n_tasks)
    size = np.zeros(1 << n_tasks)
    for task in range(n_tasks):
        to_subset = np.zeros(1 << task)  # summed distance from `task` to every subset of the tasks before it
        for other in range(task):
            to_subset[1 << other : 2 << other] = to_subset[: 1 << other] + distance[task, other]
        lower = slice(0, 1 << task)
        pair_sum[1 << task : 2 << task] = pair_sum[lower] + to_subset
        size[1 << task : 2 << task] = size[lower] + 1
    return np.asarray(np.where(size > 1, 2 * pair_sum / np.maximum(size - 1, 1), 0.0))


def exact_partition(
    distance: Float64[np.ndarray, "task task"], *, max_groups: int, limits: Limits | None = None
) -> tuple[Groups, float]:
    """The disjoint partition into at most `max_groups` groups, within the limits, of least cost, and that cost.

    Raises:
        DataError: no task, more than 15 tasks, a distance that is not finite, not symmetric or negative,
            `max_groups` < 1, or limits that no partition keeps to.
    """
    _check(distance, max_groups)
    cost = subset_costs(distance)
    if limits is not None:
        cost[~limits.allow(subsets(len(distance)))] = np.inf
        cost[0] = 0.0
    return cheapest_partition(cost, max_groups=max_groups)


def subsets(n_tasks: int) -> Bool[np.ndarray, "subset task"]:
    """Every subset of the tasks, in the order of `subset_costs`."""
    return (np.arange(1 << n_tasks)[:, None] >> np.arange(n_tasks) & 1).astype(bool)


def cheapest_partition(cost: Float64[np.ndarray, " subset"], *, max_groups: int) -> tuple[Groups, float]:
    """The same for any cost of a group: `cost[S]` for each subset S of the tasks, infinite = not to be had.

    best[k, S] = min over groups G in S that hold S's lowest task of cost[G] + best[k - 1, S \\ G]: every partition is
    met once, 3^(T-1)/2 pairs (S, G) in all. Ties go to fewer groups.

    Raises:
        DataError: no partition of finite cost, or the costs are not those of all subsets of 1 to 15 tasks.
    """
    n_tasks = len(cost).bit_length() - 1
    if len(cost) != 1 << n_tasks or not 1 <= n_tasks <= MAX_TASKS or max_groups < 1:
        raise DataError(f"a partition takes a cost for each subset of 1 to {MAX_TASKS} tasks and max_groups >= 1")
    max_groups = min(max_groups, n_tasks)
    full = (1 << n_tasks) - 1
    best = np.full((max_groups + 1, full + 1), np.inf)
    choice = np.zeros((max_groups + 1, full + 1), dtype=np.int64)
    best[:, 0] = 0.0
    # After the first group, which holds task 0, only subsets without task 0 remain.
    for subset in [*range(2, full, 2), full] if n_tasks > 1 else [full]:
        groups = _subsets_with_lowest(subset)
        values = cost[groups] + best[:-1, subset ^ groups]
        pick = values.argmin(axis=1)
        best[1:, subset] = values[np.arange(max_groups), pick]
        choice[1:, subset] = groups[pick]
    least = best[:, full].min()
    if not np.isfinite(least):
        raise DataError(f"no {max_groups} of the candidate groups cover all {n_tasks} tasks")
    used = int(np.argmax(best[:, full] <= least + _TIE))
    return _read_back(choice, used, full), float(best[used, full])


def _subsets_with_lowest(subset: int) -> np.ndarray:
    """All subsets of `subset` that hold its lowest bit."""
    lowest = subset & -subset
    found = np.array([lowest], dtype=np.int64)
    rest = subset ^ lowest
    while rest:
        bit = rest & -rest
        found = np.concatenate([found, found | bit])
        rest ^= bit
    return found


def _read_back(choice: np.ndarray, n_groups: int, subset: int) -> Groups:
    groups = []
    for left in range(n_groups, 0, -1):
        if subset == 0:
            break
        group = int(choice[left, subset])
        groups.append(tuple(task for task in range(group.bit_length()) if group >> task & 1))
        subset ^= group
    return tuple(groups)


def _check(distance: np.ndarray, max_groups: int) -> None:
    n_tasks = len(distance)
    if not 1 <= n_tasks <= MAX_TASKS:
        raise DataError(f"the exact partition takes 1 to {MAX_TASKS} tasks, not {n_tasks}")
    if max_groups < 1:
        raise DataError(f"max_groups must be at least 1, not {max_groups}")
    square = distance.shape == (n_tasks, n_tasks)
    if not square or not bool(np.isfinite(distance).all()) or not np.allclose(distance, distance.T):
        raise DataError("the affinity must be a finite, symmetric task by task matrix")
    if float(distance.min()) < 0:
        raise DataError("the affinity is a distance and must not be negative")
