"""Series as a table that people reason about: means, extremes, first and last values of a stay, its statics and labels.

What somebody knows of a patient is seldom an hourly series; it is this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from pipeline.audit.scene import CondensedScene
from pipeline.core.seeds import generator

SUMMARIES = ("mean", "min", "max", "first", "last")
REFERENCE_SHARE = 0.3  # of the holdout's subjects: the attacker's population
MIN_SPREAD = 1e-3  # of a column over the population: one that hardly varies tells nothing
STILL = 1e-6  # a channel that never moves more than this within a stay is a static


@final
@dataclass(frozen=True)
class Table:
    """`(record, column)` in units of the population's spread; `channel` `(column,)` says which channel it is about."""

    values: np.ndarray
    labels: np.ndarray  # (record, task); no columns where they are not known
    subjects: np.ndarray

    def take(self, rows: np.ndarray) -> Table:
        """The records at `rows`."""
        return Table(self.values[rows], self.labels[rows], self.subjects[rows])

    def __len__(self) -> int:
        return len(self.values)


@final
@dataclass(frozen=True)
class Columns:
    """Which columns a table has, as far as the population tells."""

    names: tuple[str, ...]
    channel: np.ndarray  # (column,) index of the channel
    source: np.ndarray  # (column,) place among all summaries
    centre: np.ndarray
    spread: np.ndarray
    binary: np.ndarray  # (column,) bool: 0 or 1 for everybody in the population
    tasks: tuple[str, ...]

    def table(self, series: np.ndarray, labels: np.ndarray, subjects: np.ndarray) -> Table:
        """The table of `(record, step, channel)` series."""
        values = (summarised(series)[:, self.source] - self.centre) / self.spread
        return Table(values.astype(np.float32), labels, subjects)


def summarised(series: np.ndarray) -> np.ndarray:
    """`(record, channel * summary)` float32, the summaries of a channel side by side."""
    parts = (series.mean(axis=1), series.min(axis=1), series.max(axis=1), series[:, 0], series[:, -1])
    return np.stack(parts, axis=2).reshape(len(series), -1).astype(np.float32)


def columns_of(population: np.ndarray, channels: tuple[str, ...], tasks: tuple[str, ...]) -> Columns:
    """The columns that vary in the population's series; of a static the mean alone."""
    table = summarised(population)
    static = np.ptp(population, axis=1).max(axis=0) <= STILL
    channel = np.repeat(np.arange(len(channels)), len(SUMMARIES))
    summary = np.tile(np.arange(len(SUMMARIES)), len(channels))
    spread = table.std(axis=0, dtype=np.float64)
    kept = np.flatnonzero((spread > MIN_SPREAD) & ~(static[channel] & (summary > 0)))
    binary = static[channel] & np.isin(np.round(table, 6), (0.0, 1.0)).all(axis=0)
    return Columns(
        names=tuple(channels[channel[i]] + ("" if static[channel[i]] else f":{SUMMARIES[summary[i]]}") for i in kept),
        channel=channel[kept],
        source=kept,
        centre=table.mean(axis=0)[kept],
        spread=spread[kept].astype(np.float32),
        binary=binary[kept],
        tasks=tasks,
    )


@final
@dataclass(frozen=True)
class Tables:
    """A scene as tables: what is shared, the people in it, the control, and the attacker's own population."""

    columns: Columns
    samples: Table
    members: Table
    control: Table
    population: Table


def tables(scene: CondensedScene, seed: int) -> Tables:
    """One stay of every subject, chosen by the seed."""
    rng = generator(seed, "audit", "summary table")
    people = rng.permutation(np.unique(scene.holdout_subjects))
    own = np.isin(scene.holdout_subjects, people[: int(REFERENCE_SHARE * len(people))])
    tasks = tuple(task.name for task in scene.condensed.tasks)
    columns = columns_of(scene.holdout[own], scene.condensed.channels, tasks)
    inside = one_each(scene.member_subjects, rng)
    outside = np.flatnonzero(~own)[one_each(scene.holdout_subjects[~own], rng)]

    def of(series: np.ndarray, labels: np.ndarray | None, subjects: np.ndarray, rows: np.ndarray) -> Table:
        known = np.zeros((len(rows), 0), np.float32) if labels is None else labels[rows]
        return columns.table(series[rows], known, subjects[rows])

    samples = scene.condensed
    labelled = scene.member_labels is not None and scene.holdout_labels is not None
    members = of(scene.members, scene.member_labels if labelled else None, scene.member_subjects, inside)
    others = scene.holdout, scene.holdout_labels if labelled else None, scene.holdout_subjects
    numbers = np.arange(len(samples.features))
    return Tables(
        columns=columns,
        samples=of(samples.features, samples.labels if labelled else None, numbers, numbers),
        members=members,
        control=of(*others, outside),
        population=of(*others, np.flatnonzero(own)),
    )


def one_each(subjects: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A row of every subject, in random order."""
    order = rng.permutation(len(subjects))
    return np.asarray(order[np.sort(np.unique(subjects[order], return_index=True)[1])])
