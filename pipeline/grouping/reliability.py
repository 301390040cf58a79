"""Is there a grouping to be found at all? Gains of pairs, measured twice on disjoint subjects.

The stays are halved by subject; in each half every pair of tasks and every task alone is trained, stopped and scored,
with its own seeds. If who helps whom is a property of the tasks, the two tables of gains agree. Their correlation is
the reliability; its lower limit comes from drawing the pairs again (bootstrap). Columns are centred first: that a small
task gains from everybody is no grouping. There is no rule on the number of stays: too few show as a low reliability by
themselves. Renaming the tasks of one table (Mantel 1967) would be the textbook test, but where two causes have three
tasks each, one renaming in ten leaves the truth as it is, and nothing could ever be found.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Final, final

import numpy as np
from jaxtyping import Bool, Float64

from pipeline.core.errors import DataError
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import child_seed, generator
from pipeline.grouping.batched_trainer import TrainerSettings, log_losses, train_groups
from pipeline.grouping.gains import GroupLosses, gains, null_log_losses, values

N_DRAWS: Final = 999
LEVEL: Final = 0.01  # nominal; pairs that share a task are not independent, so 5 % would be 5 % on paper only
FOLDS: Final = 2  # of a half's subjects; each trains once, and the rest, halved again, stops and scores in turns


@final
@dataclass(frozen=True)
class Reliability:
    """Mean correlation of the two halves' pair gains over the splits, and its lower limit."""

    correlation: float
    low: float
    n_splits: int
    n_pairs: int

    @property
    def identifiable(self) -> bool:
        """Whether who helps whom is told apart from chance."""
        return self.low > 0

    def told(self) -> str:
        """One sentence for the report."""
        figures = f"who helps whom agrees between disjoint halves of the stays with correlation {self.correlation:.2f}"
        limit = f"lower limit {self.low:.2f}, {self.n_splits} splits, {self.n_pairs} ordered pairs"
        verdict = "a grouping is identifiable" if self.identifiable else "no grouping is identifiable at this size"
        return f"{figures} ({limit}): {verdict}."


def pairs_and_singles(n_tasks: int) -> Bool[np.ndarray, "group task"]:
    """Every task alone, then every pair."""
    groups = np.zeros((n_tasks + n_tasks * (n_tasks - 1) // 2, n_tasks), dtype=bool)
    groups[np.arange(n_tasks), np.arange(n_tasks)] = True
    for row, (first, second) in enumerate(combinations(range(n_tasks), 2), start=n_tasks):
        groups[row, [first, second]] = True
    return groups


def pair_reliability(
    inputs: np.ndarray,
    labels: np.ndarray,
    subjects: np.ndarray,
    *,
    n_splits: int,
    n_seeds: int,
    seed: int,
    settings: TrainerSettings | None = None,
    device: str = "cpu",
    on_step: OnStep = ignore_step,
) -> Reliability:
    """Train pairs and singles in both halves of `n_splits` random halvings: `(stay, feature)`, `(stay, task)`.

    Raises:
        DataError: fewer than four tasks, or a task with one class in some part.
    """
    n_tasks = labels.shape[1]
    if n_tasks < 4:
        raise DataError("four tasks at least are needed to tell a grouping from chance")
    tables = np.zeros((n_splits, 2, n_tasks, n_tasks))
    for split in range(n_splits):
        order = generator(seed, "grouping", "halves", split).permutation(np.unique(subjects))
        for half, people in enumerate(np.array_split(order, 2)):
            seeds = [child_seed(seed, "grouping", "reliability", split, half, number) for number in range(n_seeds)]
            tables[split, half] = pair_gains(inputs, labels, subjects, people, seeds, settings, device)
            on_step(2 * split + half + 1, 2 * n_splits, float(np.nanmean(tables[split, half])))
    return agreement(tables, seed)


def pair_gains(
    inputs: np.ndarray,
    labels: np.ndarray,
    subjects: np.ndarray,
    people: np.ndarray,
    seeds: list[int],
    settings: TrainerSettings | None,
    device: str,
) -> Float64[np.ndarray, "task task"]:
    """Row s, column t: what t gains by s, among the stays of `people`; NaN on the diagonal."""
    groups = pairs_and_singles(labels.shape[1])
    loss, null, scored = [], [], []
    for train, first, second in rotations(subjects, people):
        trained = train_groups(
            inputs,
            labels,
            train=train,
            stopping=first,
            scored=second,
            groups=groups,
            seeds=seeds,
            settings=settings,
            device=device,
            swap=True,
        )
        rows = np.concatenate([second, first])
        loss.append(log_losses(trained.logits, labels[rows]).astype(np.float32))
        null.append(null_log_losses(labels[rows], np.nanmean(labels[train].astype(np.float64), axis=0)))
        scored.append(subjects[rows])
    whole = GroupLosses(groups, np.concatenate(loss, axis=2), np.concatenate(null), np.concatenate(scored))
    return table_of_pairs(gains(values(whole)[0], groups), groups)


def rotations(subjects: np.ndarray, people: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows that train, and two parts of the others: every stay of `people` is outside the training in all but one."""
    folds = np.array_split(people, FOLDS)
    found = []
    for fold in range(FOLDS):
        others = np.concatenate([one for number, one in enumerate(folds) if number != fold])
        parts = (folds[fold], *np.array_split(others, 2))
        train, first, second = (np.flatnonzero(np.isin(subjects, part)) for part in parts)
        found.append((train, first, second))
    return found


def table_of_pairs(gained: np.ndarray, groups: np.ndarray) -> Float64[np.ndarray, "task task"]:
    """Gains of the pairs `(group, task)` as a table: row s, column t is what t gains by s."""
    n_tasks = groups.shape[1]
    table = np.full((n_tasks, n_tasks), np.nan)
    for row in np.flatnonzero(groups.sum(axis=1) == 2):
        first, second = np.flatnonzero(groups[row])
        table[second, first], table[first, second] = gained[row, first], gained[row, second]
    return table


def agreement(tables: Float64[np.ndarray, "split half task task"], seed: int) -> Reliability:
    """Mean correlation over splits of the two halves' tables, and its limit when the pairs of tasks are drawn again."""
    centred = tables - np.nanmean(tables, axis=2, keepdims=True)
    first, second = np.triu_indices(tables.shape[-1], 1)
    pairs = np.stack([centred[:, :, first, second], centred[:, :, second, first]], axis=-1)  # (split, half, pair, way)
    n_pairs = len(first)
    drawn = generator(seed, "grouping", "pairs").multinomial(n_pairs, np.full(n_pairs, 1 / n_pairs), size=N_DRAWS)
    observed = float(_correlation(pairs, np.ones((1, n_pairs)))[0])
    low = float(np.quantile(_correlation(pairs, drawn.astype(np.float64)), LEVEL))
    return Reliability(observed, low, len(tables), 2 * n_pairs)


def _correlation(pairs: np.ndarray, weights: Float64[np.ndarray, "draw pair"]) -> Float64[np.ndarray, " draw"]:
    """Weighted correlation of the two halves over pairs and ways, mean over splits; 0 where a side is constant."""
    total = 2 * weights.sum(axis=1)[:, None]
    a, b = pairs[:, 0], pairs[:, 1]

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(weights @ values.sum(axis=-1).T / total)

    covariance = mean(a * b) - mean(a) * mean(b)
    spread = (mean(a * a) - mean(a) ** 2) * (mean(b * b) - mean(b) ** 2)
    safe = np.where(spread > 0, spread, 1.0)
    return np.asarray(np.where(spread > 0, covariance / np.sqrt(safe), 0.0).mean(axis=1))
