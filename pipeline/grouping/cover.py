"""Which trained groups to serve: the best cover of all tasks by at most `max_groups` of them, exactly.

Every task is served by the one opened group in which it scored best: a p-median problem, as in Standley et al. (2020)
and Fifty et al. (2021). Who is served by one group is a set of tasks, so a cover is a partition of the tasks into sets,
each worth what its best group gives it, and the programme over subsets of `pipeline.grouping.partition` finds the best.
Groups may overlap; for disjoint groups see there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float64

from pipeline.core.errors import DataError
from pipeline.grouping.partition import cheapest_partition


@final
@dataclass(frozen=True)
class Cover:
    """Opened groups (rows of the candidates), who serves each task, and what that is worth."""

    opened: tuple[int, ...]
    serves: tuple[int, ...]  # per task, the opened group that serves it
    objective: float  # sum of the tasks' values


def best_cover(values: Float64[np.ndarray, "group task"], *, max_groups: int) -> Cover:
    """The cover of largest summed value, of at most 15 tasks.

    Args:
        values: how well each task does in each candidate group; NaN = the task is not in the group.

    Raises:
        DataError: no cover by `max_groups` candidates exists, `max_groups` < 1, or more than 15 tasks.
    """
    n_tasks = values.shape[1]
    if max_groups < 1 or not bool(np.isfinite(values).any(axis=0).all()):
        raise DataError("a cover needs max_groups >= 1 and, for each task, a candidate group that holds it")
    worth, server = np.full(1 << n_tasks, -np.inf), np.zeros(1 << n_tasks, dtype=np.int64)
    for row, own in enumerate(np.where(np.isfinite(values), values, -np.inf)):
        served = np.zeros(1)
        for value in own:
            served = np.concatenate([served, served + value])
        server[served > worth] = row
        worth = np.maximum(worth, served)
    parts, cost = cheapest_partition(-worth, max_groups=max_groups)
    by_task = {task: int(server[sum(1 << one for one in part)]) for part in parts for task in part}
    serves = tuple(by_task[task] for task in range(n_tasks))
    return Cover(tuple(sorted(set(serves))), serves, -cost)
