"""How much a group helps its tasks: shares of explained log-loss, gains over learning alone, and their intervals.

A task's value in a group is 1 - log-loss / log-loss of its null model, so that rare and common tasks weigh alike and 0
means "learned nothing". Its gain is that value less its value when learned alone. Log-losses come per stay, so that a
resampling of subjects is one product: `weights` counts how often each stay was drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32
from scipy.stats import norm

from pipeline.core.errors import DataError
from pipeline.core.seeds import generator
from pipeline.grouping.batched_trainer import entropies


@final
@dataclass(frozen=True, eq=False, repr=False)
class GroupLosses:
    """Log-losses of trained groups on some stays; NaN where a task is not in a group or a stay has no label."""

    groups: Bool[np.ndarray, "group task"]
    loss: Float32[np.ndarray, "group seed stay task"]
    null: Float64[np.ndarray, "stay task"]  # log-loss of always predicting the training stays' mean label
    subjects: Int32[np.ndarray, " stay"]

    def __post_init__(self) -> None:
        n_groups, n_tasks = self.groups.shape
        if self.loss.shape[0] != n_groups or self.loss.shape[2:] != (len(self.subjects), n_tasks):
            raise DataError("losses must be (group, seed, stay, task)")
        if self.null.shape != (len(self.subjects), n_tasks):
            raise DataError("null losses must be (stay, task)")

    def take(self, stays: np.ndarray, seeds: np.ndarray | None = None) -> GroupLosses:
        """The losses on some stays, of some seeds."""
        loss = self.loss if seeds is None else self.loss[:, seeds]
        return GroupLosses(self.groups, loss[:, :, stays], self.null[stays], self.subjects[stays])


def null_log_losses(
    labels: Float32[np.ndarray, "stay task"], mean: Float64[np.ndarray, " task"]
) -> Float64[np.ndarray, "stay task"]:
    """Log-loss of predicting `mean` for every stay; NaN without a label."""
    bounded = np.asarray(mean, dtype=np.float64).clip(1e-6, 1 - 1e-6)
    return np.asarray(-(labels * np.log(bounded) + (1 - labels) * np.log(1 - bounded)) - entropies(labels))


def values(
    losses: GroupLosses, weights: Float64[np.ndarray, "draw stay"] | None = None
) -> Float64[np.ndarray, "draw group task"]:
    """Share of the null model's log-loss that is explained, mean over seeds; NaN for tasks outside a group."""
    n_stays = len(losses.subjects)
    draws = np.ones((1, n_stays)) if weights is None else weights
    known = np.isfinite(losses.null)
    per_stay = np.where(known[None], losses.loss.mean(axis=1, dtype=np.float64), 0.0)
    null = draws @ np.where(known, losses.null, 0.0)
    total = np.einsum("ds,gst->dgt", draws, np.where(losses.groups[:, None, :], per_stay, 0.0), optimize=True)
    if not bool((null > 0).all()):
        raise DataError("a task has no known label among the stays that are to score it")
    return np.asarray(np.where(losses.groups, 1 - total / null[:, None, :], np.nan))


def gains(of: Float64[np.ndarray, "... group task"], groups: Bool[np.ndarray, "group task"]) -> np.ndarray:
    """Values less those of the same tasks alone: `(..., group, task)`.

    Raises:
        DataError: a task was not trained alone.
    """
    return np.asarray(of - of[..., alone(groups), np.arange(groups.shape[1])][..., None, :])


def alone(groups: Bool[np.ndarray, "group task"]) -> np.ndarray:
    """For each task, the row of the group that holds it alone."""
    single = groups & (groups.sum(axis=1) == 1)[:, None]
    if not bool(single.any(axis=0).all()):
        raise DataError("each task must have been trained alone, too")
    return np.asarray(single.argmax(axis=0))


def subject_weights(subjects: Int32[np.ndarray, " stay"], n_draws: int, seed: int) -> Float64[np.ndarray, "draw stay"]:
    """Bootstrap by subject: how often each stay is in each draw."""
    people, index = np.unique(subjects, return_inverse=True)
    rng = generator(seed, "grouping", "bootstrap")
    counts = rng.multinomial(len(people), np.full(len(people), 1 / len(people)), size=n_draws)
    return np.asarray(counts[:, index], dtype=np.float64)


@final
@dataclass(frozen=True)
class Gain:
    """Mean gain over tasks of a choice of groups over learning every task alone."""

    mean: float
    low: float
    high: float
    per_task: tuple[float, ...]
    harmed: tuple[int, ...]  # tasks whose gain is below 0 beyond chance (Bonferroni over the tasks, 5 %)


def gain_of(losses: GroupLosses, serves: tuple[int, ...], *, coverage: float = 0.8) -> Gain:
    """Gain of serving task t by group `serves[t]`, on stays that had no say in the choice.

    Interval: normal. Its variance is that of subjects' contributions to the ratio of sums (delta method) plus what
    seeds differ by beyond the stays' own noise.
    """
    tasks = np.arange(len(serves))
    single = alone(losses.groups)
    known = np.isfinite(losses.null)
    null = np.where(known, losses.null, 0.0)
    share = null / null.sum(axis=0)
    apart = losses.loss[single, :, :, tasks].astype(np.float64) - losses.loss[list(serves), :, :, tasks]
    difference = np.where(known.T[:, None, :], apart, 0.0) / null.sum(axis=0)[:, None, None]  # (task, seed, stay)
    per_task = difference.sum(axis=2).mean(axis=1)
    people, index = np.unique(losses.subjects, return_inverse=True)
    contributions = np.zeros((len(tasks), len(people)))
    for task in tasks:
        residual = difference[task].mean(axis=0) - per_task[task] * share[:, task]
        contributions[task] = np.bincount(index, residual, minlength=len(people))
    error = np.sqrt((contributions**2).sum(axis=1) + np.array([_between_seeds(one) for one in difference]))
    error_mean = float(np.sqrt((contributions.mean(axis=0) ** 2).sum() + _between_seeds(difference.mean(axis=0))))
    width = float(norm.ppf(0.5 + coverage / 2)) * error_mean
    limit = float(norm.ppf(1 - 0.05 / len(tasks)))
    harmed = tuple(int(t) for t in tasks if serves[t] != single[t] and per_task[t] + limit * error[t] < 0)
    mean = float(per_task.mean())
    return Gain(mean, mean - width, mean + width, tuple(per_task.tolist()), harmed)


def _between_seeds(difference: Float64[np.ndarray, "seed stay"]) -> float:
    """Variance of the mean over seeds that comes from the seeds alone; one seed cannot tell."""
    n_seeds, n_stays = difference.shape
    if n_seeds < 2:
        return 0.0
    totals = difference.sum(axis=1)
    noise = difference - difference.mean(axis=0)
    noise = noise - noise.mean(axis=1, keepdims=True)
    within = float((noise**2).sum()) / (n_seeds - 1) * n_stays / max(n_stays - 1, 1)
    return float(max(0.0, totals.var(ddof=1) - within) / n_seeds)
