"""Choosing among trained groups by validation: affinities propose, these numbers decide.

A task is credited with what a group does for it only where the bootstrap says that the group helps it; else it is worth
no more there than alone. What is chosen on some stays looks better on them than it is (the winner's curse), so the gain
to be told comes from stays that had no say (`pipeline.grouping.gains.gain_of`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float64

from pipeline.grouping.cover import Cover, best_cover
from pipeline.grouping.gains import GroupLosses, alone, gains, subject_weights, values
from pipeline.grouping.partition import Limits

CONVINCED: Final = 0.8  # share of bootstrap draws in which a task gains, from which it may join
N_DRAWS: Final = 200
N_REPLICATES: Final = 40  # covers solved again for the stability map
_NO_BETTER: Final = 1e-6


@final
@dataclass(frozen=True, eq=False)
class Choice:
    """The chosen cover and how sure of it the selection stays are."""

    cover: Cover
    share_gaining: Float64[np.ndarray, " task"]  # of bootstrap draws in which the task gains by its group; 1 if alone
    together: Float64[np.ndarray, "task task"]  # share of replicates in which two tasks are served by one group

    def names(self, tasks: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        """The tasks that each opened group serves."""
        return tuple(
            tuple(tasks[task] for task, by in enumerate(self.cover.serves) if by == opened)
            for opened in self.cover.opened
        )


def choose(
    losses: GroupLosses,
    *,
    max_groups: int,
    seed: int,
    limits: Limits | None = None,
    n_replicates: int = N_REPLICATES,
) -> Choice:
    """The best cover by at most `max_groups` of the trained groups, on the selection stays `losses`.

    Raises:
        DataError: a task was not trained alone, or no cover exists within the limits.
    """
    observed = values(losses)[0]
    weights = subject_weights(losses.subjects, N_DRAWS, seed)
    draws = values(losses, weights)
    share = np.nanmean(gains(draws, losses.groups) > 0, axis=0)
    single = alone(losses.groups)
    barred = np.zeros(len(losses.groups), dtype=bool) if limits is None else ~limits.allow(losses.groups)

    def cover_of(worth: np.ndarray) -> Cover:
        shown = np.where(barred[:, None], np.nan, credited(worth, share, single))
        return best_cover(shown, max_groups=max_groups)

    share[single, np.arange(len(single))] = 1.0
    cover = cover_of(observed)
    together = np.zeros((len(single),) * 2)
    for draw in draws[:n_replicates]:
        serves = np.array(cover_of(draw).serves)
        together += (serves[:, None] == serves[None]) / n_replicates
    served = share[list(cover.serves), np.arange(len(single))]
    return Choice(cover, np.asarray(served), together)


def credited(observed: np.ndarray, share: np.ndarray, single: np.ndarray) -> np.ndarray:
    """Values `(group, task)`, cut to just below the task's value alone where a gain is not convincing."""
    own = observed[single, np.arange(len(single))]
    return np.where(share >= CONVINCED, observed, np.minimum(observed, own - _NO_BETTER))
