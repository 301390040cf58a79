"""Labels that have nothing to do with the stays that they are given to, as of a file that has slipped by a row."""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.core.types import Cohort

_STAYS: Final = 5_000
_BLOCK: Final = 256  # stays at a time, so that they stay in the cache
_FEWEST: Final = 100  # stays of either class
_RELATED: Final = 4.0  # standard errors: of 100 variables one comes so far by chance in 1 of 160 sources


def label_notes(cohort: Cohort) -> tuple[str, ...]:
    """A sentence for each binary task to which nothing is related: no variable's mean or number of steps, no static.

    Related = the rank sum (Mann and Whitney 1947) lies four standard errors from what it is by chance. At most 5,000
    stays are looked at, evenly spaced; and tasks alone of which each class has a hundred.
    """
    rows = np.arange(0, len(cohort.stay_ids), -(-len(cohort.stay_ids) // _STAYS))
    labels = cohort.labels[rows]
    looked = [
        index
        for index, task in enumerate(cohort.tasks)
        if task.kind == "binary" and min((labels[:, index] == 0).sum(), (labels[:, index] == 1).sum()) >= _FEWEST
    ]
    if not looked:
        return ()
    steps, total = np.zeros((2, len(rows), len(cohort.variables)))
    for start in range(0, len(rows), _BLOCK):
        here = rows[start : start + _BLOCK]
        values, there = cohort.values[here], cohort.observed[here]
        steps[start : start + _BLOCK] = there.sum(axis=1)
        total[start : start + _BLOCK] = np.where(there, values, 0).sum(axis=1, dtype=np.float64)
    mean = total / np.where(steps, steps, np.nan)
    columns = [*mean.T, *steps.T, *cohort.static[rows].T]
    unrelated = [index for index in looked if max(_standard_errors(x, labels[:, index]) for x in columns) < _RELATED]
    return tuple(
        f"{cohort.tasks[index].name} is related to no variable and no static of {len(rows)} stays: are its labels of "
        "the right stays?"
        for index in unrelated
    )


def _standard_errors(column: np.ndarray, label: np.ndarray) -> float:
    """How many standard errors the rank sum of the stays with label 1 lies from its mean."""
    known = np.isfinite(column) & np.isfinite(label)
    values, positive = column[known], label[known] == 1
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return 0.0
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]
    ties = float((counts.astype(np.float64) ** 3 - counts).sum()) / ((ones + zeros) * (ones + zeros - 1))
    variance = ones * zeros / 12 * (ones + zeros + 1 - ties)
    if variance <= 0:
        return 0.0
    return float(abs(rank[positive].sum() - ones * (ones + zeros + 1) / 2) / np.sqrt(variance))
