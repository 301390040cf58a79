"""Is there a grouping to be found at all? Gains of pairs, measured twice on disjoint subjects.

The stays are halved by subject; in each half every pair of tasks and every task alone is trained, stopped and scored,
with its own seeds. If who helps whom is a property of the tasks, the two tables of gains agree. Columns are centred
first: that a small task gains from everybody is no grouping. Then the two ways of a pair are one number, as the
question is whether two tasks belong together. The correlation of the two halves' numbers is the reliability; its lower
limit is what it exceeds the correlation by that pairs matched at random reach. There is no rule on the number of stays:
too few show as a low reliability by themselves. Renaming the tasks of one table (Mantel 1967) would be the textbook
test, but where two causes have three tasks each, one renaming in ten leaves the truth as it is, and nothing could ever
be found; of the orders of 15 pairs one in 5,005 does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, final

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pipeline.core.errors import DataError
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import child_seed, generator
from pipeline.grouping.batched_trainer import Trained, log_losses
from pipeline.grouping.gains import GroupLosses, gains, null_log_losses, values
from pipeline.grouping.trainings import Trainer, Training, train_here

N_DRAWS: Final = 999
LEVEL: Final = 0.02  # nominal; pairs that share a task are not independent, so 5 % would be 5 % on paper only
FOLDS: Final = 2  # of a half's subjects; each trains once, and the rest, halved again, stops and scores in turns


@final
@dataclass(frozen=True)
class Reliability:
    """Mean correlation of the two halves' pair gains over the splits, and by how much it is above chance."""

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
        limit = f"{self.low:+.2f} beyond chance, {self.n_splits} splits, {self.n_pairs} pairs of tasks"
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
    device: str = "cpu",
    trainer: Trainer = train_here,
    on_step: OnStep = ignore_step,
) -> Reliability:
    """Train pairs and singles in both halves of `n_splits` random halvings: `(stay, feature)`, `(stay, task)`.

    Raises:
        DataError: fewer than four tasks, or a task with one class in some part.
    """
    n_tasks = labels.shape[1]
    if n_tasks < 4:
        raise DataError("a grouping needs at least four tasks, or it cannot be distinguished from chance")
    groups, asked = pairs_and_singles(n_tasks), list[Training]()
    for split in range(n_splits):
        order = generator(seed, "grouping", "halves", split).permutation(np.unique(subjects))
        for half, people in enumerate(np.array_split(order, 2)):
            seeds = tuple(child_seed(seed, "grouping", "reliability", split, half, one) for one in range(n_seeds))
            asked += [Training(*rows, groups, seeds, swap=True) for rows in rotations(subjects, people)]
    found = trainer(inputs, labels, asked, device=device)
    tables = np.zeros((2 * n_splits, n_tasks, n_tasks))
    for number in range(len(tables)):
        parts = [(one, next(found)) for one in asked[FOLDS * number : FOLDS * (number + 1)]]
        tables[number] = pair_gains(labels, subjects, parts)
        on_step(number + 1, len(tables), float(np.nanmean(tables[number])))
    return agreement(tables.reshape(n_splits, 2, n_tasks, n_tasks), seed)


def pair_gains(
    labels: np.ndarray, subjects: np.ndarray, parts: Sequence[tuple[Training, Trained]]
) -> Float64[np.ndarray, "task task"]:
    """Row s, column t: what t gains by s, on all stays that some part scored; NaN on the diagonal."""
    loss, null, scored = [], [], []
    for asked, trained in parts:
        rows = np.concatenate([asked.scored, asked.stopping])
        loss.append(log_losses(trained.logits, labels[rows]).astype(np.float32))
        null.append(null_log_losses(labels[rows], np.nanmean(labels[asked.train].astype(np.float64), axis=0)))
        scored.append(subjects[rows])
    groups = parts[0][0].groups
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
    """Mean correlation over splits of the two halves' tables, less what pairs in a random order reach."""
    centred = tables - np.nanmean(tables, axis=2, keepdims=True)
    first, second = np.triu_indices(tables.shape[-1], 1)
    pairs = (centred[..., first, second] + centred[..., second, first]) / 2  # (split, half, pair)
    n_pairs = len(first)
    random = generator(seed, "grouping", "pairs")
    orders = random.permuted(np.tile(np.arange(n_pairs), (N_DRAWS, 1)), axis=1)
    observed = float(_correlation(pairs, np.arange(n_pairs)[None])[0])
    by_chance = float(np.quantile(_correlation(pairs, orders), 1 - LEVEL))
    return Reliability(observed, observed - by_chance, len(tables), n_pairs)


def _correlation(
    pairs: Float64[np.ndarray, "split half pair"], orders: Int64[np.ndarray, "draw pair"]
) -> Float64[np.ndarray, " draw"]:
    """Correlation of the first half's pairs with the second's in each order, mean over splits; 0 where one is constant.

    Every split is put in the same order: what splits share, they share in a draw, too.
    """
    deviation = pairs - pairs.mean(axis=2, keepdims=True)
    size = np.linalg.norm(deviation, axis=2, keepdims=True)
    unit = np.divide(deviation, size, out=np.zeros_like(deviation), where=size > 0)
    return np.asarray(np.einsum("sp,sdp->d", unit[:, 0], unit[:, 1][:, orders]) / len(pairs))
