"""Scores by which records may be told to be in a set, calibrated on people who are in nothing.

Nearest sample against nearest records of the population; a kernel density ratio of set to population in the
population's principal components. What depends on the population and on the records alone is computed once for all
sets that they are asked about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from scipy.special import logsumexp

REFERENCE_SHARE: Final = 0.3  # of the holdout's subjects: the attacker's population
COMPONENTS: Final = 32
BLOCK_NUMBERS: Final = 1 << 17  # a megabyte of distances: larger ones are fetched from and given back to the system


def flattened(series: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """`(stay, step * channel)` in the channels' scale, float32."""
    scaled: np.ndarray = (series / scale).reshape(len(series), -1).astype(np.float32)
    return scaled


def squares(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Squared distances `(query, reference)`, never negative, as fine as the arrays are."""
    square = queries @ (-2 * references.T)
    square += (queries**2).sum(axis=1)[:, None]
    square += (references**2).sum(axis=1)
    return np.asarray(np.maximum(square, 0, out=square))


def squared_distances(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """The same as float64."""
    return squares(queries, references).astype(np.float64)


@final
@dataclass(frozen=True, eq=False)
class Population:
    """Flattened records of people who are in nothing, and what of the scores depends on them alone."""

    records: np.ndarray
    centre: np.ndarray
    axes: np.ndarray
    low: np.ndarray
    bandwidth: float

    def asked(self, records: np.ndarray) -> Asked:
        """Flattened records that any number of sets will be asked about."""
        low = (records - self.centre) @ self.axes.T
        usual = reduced(records, self.records, _nearest_others)
        density = reduced(low, self.low, self.density)
        return Asked(self, records, low, np.log(usual + 1e-9), density - np.log(len(self.records)))

    def density(self, square: np.ndarray) -> np.ndarray:
        """Log of the sum over columns of a kernel of squared distances, `(query, reference)` -> `(query,)`."""
        return np.asarray(logsumexp(square / (-2 * self.bandwidth), axis=1))


@final
@dataclass(frozen=True, eq=False)
class Asked:
    """Records, and how near the population comes to each, `(record,)`: in the log of a distance, and as a density."""

    population: Population
    records: np.ndarray
    low: np.ndarray
    usual: np.ndarray
    density: np.ndarray


def population_of(records: np.ndarray) -> Population:
    """The principal components of flattened records, and the bandwidth in them."""
    centre = records.mean(axis=0)
    n_components = min(COMPONENTS, len(records) - 1, records.shape[1])
    axes = np.linalg.svd(records - centre, full_matrices=False)[2][:n_components]
    low = (records - centre) @ axes.T
    between = squared_distances(low, low)
    bandwidth = float(np.median(between[between > 0])) / max(n_components, 1) if (between > 0).any() else 1.0
    return Population(records, centre, axes, low, bandwidth)


def scores(samples: np.ndarray, asked: Asked) -> dict[str, np.ndarray]:
    """The attacks' scores of records, from a set's flattened samples and the population: `(record,)` each."""
    known = asked.population
    near = reduced(asked.records, samples, lambda square: square.min(axis=1))
    low = (samples - known.centre) @ known.axes.T
    density = reduced(asked.low, low, known.density) - np.log(len(samples))
    return {
        "nearest sample": -np.sqrt(near),
        "calibrated nearest": asked.usual - np.log(near + 1e-9),
        "density ratio": density - asked.density,
    }


def reduced(queries: np.ndarray, references: np.ndarray, how: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`how` makes a number a query of their squared distances: block by block, each as large as a cache: `(query,)`."""
    rows = max(1, BLOCK_NUMBERS // max(1, len(references)))
    parts = [how(squared_distances(queries[k : k + rows], references)) for k in range(0, len(queries), rows)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _nearest_others(square: np.ndarray) -> np.ndarray:
    """Mean squared distance to the three nearest population records."""
    k = min(3, square.shape[1])
    mean: np.ndarray = np.partition(square, k - 1, axis=1)[:, :k].mean(axis=1)
    return mean


def by_subject(values: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """The largest score of each subject's stays: `(subject,)`."""
    _, index = np.unique(subjects, return_inverse=True)
    best = np.full(index.max() + 1, -np.inf)
    np.maximum.at(best, index, values)
    return best
