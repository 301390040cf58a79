"""Groups whose choice costs no privacy: written down beforehand, or read from moments that were released already.

From moments: a task's score is the ridge solution from its noisy signed sums, two tasks are as alike as their scores
correlate under the noisy second moments, up to sign. All of it is post-processing of one accounted release.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Float64

from pipeline.core.errors import DataError
from pipeline.core.types import Grouping, Moments
from pipeline.grouping.partition import exact_partition
from pipeline.grouping.run import NamedLimits

RIDGE: Final = 0.2  # of a standardised feature's variance: the noise must not be inverted
FREE: Final = (
    "The groups come from private moments: choosing them told nothing that the moments had not told, and cost nothing."
)
FIXED: Final = "The groups were fixed in the configuration; no stay was looked at for them."


def moments_distance(moments: Moments) -> Float64[np.ndarray, "task task"]:
    """1 - |correlation| of the tasks' private linear scores; between 0 and 1.

    Raises:
        DataError: fewer than two tasks.
    """
    if len(moments.tasks) < 2:
        raise DataError("private moments of one task have no groups")
    count = max(float(moments.gram[0, 0]), 1.0)
    mean = moments.gram[0, 1:] / count
    covariance = moments.gram[1:, 1:] / count - np.outer(mean, mean)
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    covariance = (vectors * np.maximum(values, 0)) @ vectors.T  # noise may have bent it
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    covariance = covariance / np.outer(scale, scale)
    sums = (moments.signed_sums[:, 1:] - moments.signed_sums[:, :1] * mean) / count / scale
    scores = np.linalg.solve(covariance + RIDGE * np.eye(len(scale)), sums.T)
    inner = scores.T @ covariance @ scores
    length = np.sqrt(np.maximum(np.diag(inner), 1e-24))
    distance = 1 - np.abs(inner / np.outer(length, length)).clip(0, 1)
    np.fill_diagonal(distance, 0.0)
    return np.asarray((distance + distance.T) / 2)


def group_by_moments(moments: Moments, *, max_groups: int, limits: NamedLimits | None = None) -> Grouping:
    """The exact partition by `moments_distance`; no control, for nothing else was released.

    Raises:
        DataError: as `moments_distance` and `exact_partition`.
    """
    names = tuple(task.name for task in moments.tasks)
    distance = moments_distance(moments)
    within = (limits or NamedLimits()).of(names)
    groups, objective = exact_partition(distance, max_groups=max_groups, limits=within)
    return Grouping(
        tasks=names,
        method="private_moments",
        affinity=tuple(tuple(float(value) for value in row) for row in distance),
        control_method="",
        control=(),
        rank_correlation=0.0,
        groups=tuple(tuple(names[task] for task in group) for group in groups),
        control_groups=(),
        objective=objective,
        n_stays=round(max(float(moments.gram[0, 0]), 0.0)),
        notes=(FREE, "Whether learning these tasks together helps was not measured."),
        chosen="private_moments",
    )


def fixed_groups(groups: tuple[tuple[str, ...], ...], tasks: tuple[str, ...]) -> Grouping:
    """The configuration's groups; tasks that it does not name stay alone.

    Raises:
        DataError: a group names a task that the cohort does not have.
    """
    named = [task for group in groups for task in group]
    unknown = [task for task in named if task not in tasks]
    if unknown:
        raise DataError(f"group.groups names {unknown[0]}, which is no task of the cohort; it has {', '.join(tasks)}")
    alone = tuple((task,) for task in tasks if task not in named)
    return Grouping(
        tasks=tasks,
        method="fixed",
        affinity=(),
        control_method="",
        control=(),
        rank_correlation=0.0,
        groups=(*groups, *alone),
        control_groups=(),
        objective=0.0,
        n_stays=0,
        notes=(FIXED,),
        chosen="fixed",
    )
