"""Could the proposed groups be noise? Two necessary checks; passing both shows structure, never a gain in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from scipy.stats import spearmanr

from pipeline.core.seeds import generator
from pipeline.grouping.partition import exact_partition

STABLE: Final = 0.8  # rank correlation between disjoint halves below which the order of pairs is not reproducible
N_SHUFFLES: Final = 19  # the observed objective below all of them: p <= 1/20
NOT_IDENTIFIABLE: Final = "No grouping is identifiable from these stays."

Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(rows of stays, labels of these rows) -> affinity (task, task)."""


def rank_correlation(matrix: np.ndarray, other: np.ndarray) -> float:
    """Spearman over the pairs of tasks; 0 where fewer than three pairs or a constant side leave no order to compare."""
    pairs = np.triu_indices(len(matrix), 1)
    if len(pairs[0]) < 3 or np.ptp(matrix[pairs]) == 0 or np.ptp(other[pairs]) == 0:
        return 0.0
    return float(spearmanr(matrix[pairs], other[pairs]).statistic)


def smaller_class(label: np.ndarray) -> int:
    """Stays in the rarer of the two classes, or on the emptier side of a number's mean; 0 where nothing varies."""
    known = label[np.isfinite(label)].astype(np.float64)
    above = int((known > known.mean() + 1e-9).sum()) if len(known) else 0
    return min(above, len(known) - above)


def note_on_halves(measure: Measure, labels: np.ndarray, subjects: np.ndarray, max_groups: int, seed: int) -> str:
    """Do two halves of the stays, disjoint by subject, order the pairs and group the tasks alike?"""
    people = np.unique(subjects)
    drawn = generator(seed, "grouping", "halves").permutation(people)[: len(people) // 2]
    in_first = np.isin(subjects, drawn)
    halves = [np.flatnonzero(in_first), np.flatnonzero(~in_first)]
    if any(smaller_class(labels[rows, task]) == 0 for rows in halves for task in range(labels.shape[1])):
        return "Reproducibility was not checked: in one half of the stays a task has a single class."
    first, second = (measure(rows, labels[rows]) for rows in halves)
    correlation = rank_correlation(first, second)
    same = set(_groups(first, max_groups)) == set(_groups(second, max_groups))
    verdict = "" if same and correlation >= STABLE else f" {NOT_IDENTIFIABLE}"
    found = "the same groups" if same else "different groups"
    return f"Two halves of the stays give {found} (rank correlation of pairs {correlation:.2f}).{verdict}"


def note_on_shuffles(measure: Measure, labels: np.ndarray, max_groups: int, seed: int) -> str:
    """Is the best partition better than with every task's labels shuffled on their own (prevalences kept)?

    A permutation test of "no task has to do with a feature or another task". It is needed beside the halves: rare tasks
    lie far from all others by their prevalence alone, which reproduces perfectly.
    """
    rows = np.arange(len(labels))
    observed = exact_partition(measure(rows, labels), max_groups=max_groups)[1]
    as_good = 0
    for nth in range(N_SHUFFLES):
        shuffled = _shuffled(labels, generator(seed, "grouping", "shuffle", nth))
        as_good += exact_partition(measure(rows, shuffled), max_groups=max_groups)[1] <= observed
    verdict = "" if as_good == 0 else f" {NOT_IDENTIFIABLE}"
    return f"With shuffled labels the best partition is at least as good in {as_good} of {N_SHUFFLES} draws.{verdict}"


def _shuffled(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every task's known labels permuted among the stays where it is known: missingness stays where it is."""
    shuffled = labels.copy()
    for task in range(labels.shape[1]):
        known = np.flatnonzero(np.isfinite(labels[:, task]))
        shuffled[known, task] = labels[rng.permutation(known), task]
    return shuffled


def _groups(matrix: np.ndarray, max_groups: int) -> tuple[tuple[int, ...], ...]:
    return exact_partition(matrix, max_groups=max_groups)[0]
