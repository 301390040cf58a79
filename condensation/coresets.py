"""Baselines made of records or of averages of few records: never private, always to be shown beside a method."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float32, Float64
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from condensation.loop import class_rows
from pipeline.core.errors import DataError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.options.base import Options, check_n_per_class
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import child_seed, generator
from pipeline.core.threads import single_threaded
from pipeline.core.types import CondensedSet, EncodedCohort, Provenance

CENTROIDS: Final = "centroids"
RANDOM_REAL: Final = "random_real"
HERDING: Final = "herding"
KMEANS_ITERATIONS: Final = 100
CHUNK_STAYS: Final = 4096  # read at a time in a pass over all
LARGEST_CLASS: Final = 16_384
"""Stays of a class that k-means and herding hold at once; a public size. Of a larger class k-means clusters a random
sample of so many, then passes once over all to average each cluster; herding chooses among so many, evenly spaced."""


@final
@dataclass(frozen=True, kw_only=True)
class Centroids(Options):
    """k-means centroids per class of task 0; a cluster of one stay is that stay."""

    def condense(
        self,
        encoded: EncodedCohort,
        *,
        n_per_class: int,
        seed: int,
        noise: NoiseSource,
        device: str = "cpu",
        on_step: OnStep = ignore_step,
    ) -> CondensedSet:
        """`n_per_class` centroids of each class; labels are the clusters' mean labels, so soft but for task 0.

        Raises:
            ConfigError: n_per_class below 1. DataError: a class has fewer stays than clusters.
        """
        check_n_per_class(n_per_class)
        rows = class_rows(encoded, n_per_class, "k-means")
        features, labels = class_centroids(encoded, rows, n_per_class, seed)
        on_step(1, 1, float("nan"))
        return _from_records(encoded, features, labels, CENTROIDS, n_per_class, seed)


@final
@dataclass(frozen=True, kw_only=True)
class RandomReal(Options):
    """Random real stays, `n_per_class` of each class: a leak by construction, for comparison only."""

    def condense(
        self,
        encoded: EncodedCohort,
        *,
        n_per_class: int,
        seed: int,
        noise: NoiseSource,
        device: str = "cpu",
        on_step: OnStep = ignore_step,
    ) -> CondensedSet:
        """Stays without replacement, with their labels of every task.

        Raises:
            ConfigError: n_per_class below 1. DataError: a class has fewer stays than asked for.
        """
        check_n_per_class(n_per_class)
        rows = class_rows(encoded, n_per_class, "a draw without replacement")
        draws = generator(seed, RANDOM_REAL)
        chosen = np.concatenate([draws.choice(part, n_per_class, replace=False) for part in rows])
        on_step(1, 1, float("nan"))
        return _from_records(encoded, encoded.features[chosen], encoded.labels[chosen], RANDOM_REAL, n_per_class, seed)


@final
@dataclass(frozen=True, kw_only=True)
class Herding(Options):
    """Real stays whose running mean stays nearest to their class's mean (Welling, ICML 2009); a leak like any record.

    Greedy, without replacement, on the flattened series: no seed, so every call gives the same set.
    """

    @single_threaded
    def condense(
        self,
        encoded: EncodedCohort,
        *,
        n_per_class: int,
        seed: int,
        noise: NoiseSource,
        device: str = "cpu",
        on_step: OnStep = ignore_step,
    ) -> CondensedSet:
        """`n_per_class` stays of each class in the order of choice, with their labels of every task.

        Raises:
            ConfigError: n_per_class below 1. DataError: a class has fewer stays than asked for.
        """
        check_n_per_class(n_per_class)
        rows = class_rows(encoded, n_per_class, "herding")
        chosen = np.concatenate([_herded_of(encoded, part, n_per_class) for part in rows])
        on_step(1, 1, float("nan"))
        return _from_records(encoded, encoded.features[chosen], encoded.labels[chosen], HERDING, n_per_class, seed)


def _herded_of(encoded: EncodedCohort, part: np.ndarray, n: int) -> np.ndarray:
    """Row numbers of the herded among the stays `part`, their mean taken over all of it."""
    if len(part) <= LARGEST_CLASS:
        return np.asarray(part[herded(encoded.features[part], n)])
    spaced = part[np.linspace(0, len(part) - 1, LARGEST_CLASS).astype(np.int64)]
    total = sum(flat(encoded, rows).sum(axis=0, dtype=np.float64) for rows in in_chunks(part))
    return np.asarray(spaced[herded(encoded.features[spaced], n, total / len(part))])


def herded(
    features: Float32[np.ndarray, "stay step channel"], n: int, target: Float64[np.ndarray, " value"] | None = None
) -> np.ndarray:
    """Positions of `n` distinct stays, each the one that brings the mean of those chosen nearest to `target`.

    `target` is flat; None = the mean of `features`.
    """
    x = features.reshape(len(features), -1)
    target = x.mean(axis=0, dtype=np.float64) if target is None else target
    squares = np.einsum("ij,ij->i", x, x, dtype=np.float64)
    chosen: list[int] = []
    total = np.zeros_like(target)
    free = np.ones(len(x), dtype=bool)
    for k in range(1, n + 1):
        # || (total + x) / k - target ||^2 less what is the same for every x, times k^2
        distance = squares + 2 * (x @ (total - k * target).astype(np.float32))
        best = int(np.argmin(np.where(free, distance, np.inf)))
        chosen.append(best)
        free[best] = False
        total += x[best]
    return np.array(chosen)


@single_threaded
def class_centroids(
    encoded: EncodedCohort, rows: Sequence[np.ndarray], n_clusters: int, seed: int
) -> tuple[Float32[np.ndarray, "sample step channel"], Float32[np.ndarray, "sample task"]]:
    """k-means of the flattened series of each class (Lloyd, one k-means++ start): centroids and mean known labels.

    A class of more than `LARGEST_CLASS` stays is clustered by a sample of so many, and its clusters average all.

    Raises:
        DataError: a class has fewer distinct series than clusters.
    """
    centres, labels = [], []
    for label, part in enumerate(rows):
        seen = part
        if len(part) > LARGEST_CLASS:
            draws = generator(seed, CENTROIDS, "stays", label)
            seen = np.sort(draws.choice(part, LARGEST_CLASS, replace=False))
        state = child_seed(seed, CENTROIDS, label) % 2**32
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                model = KMeans(n_clusters, n_init=1, max_iter=KMEANS_ITERATIONS, random_state=state)
                model.fit(flat(encoded, seen))
            except ConvergenceWarning:
                raise DataError(f"class {label} has fewer than {n_clusters} distinct training series") from None
        centre, member = model.cluster_centers_, model.labels_
        if len(seen) < len(part):
            centre, member = _means_of_all(encoded, part, centre)
        centres.append(centre.reshape(n_clusters, *encoded.features.shape[1:]))
        labels.append(_mean_labels(encoded.labels[part], member, n_clusters))
    return np.concatenate(centres).astype(np.float32), np.concatenate(labels).astype(np.float32)


def _means_of_all(encoded: EncodedCohort, part: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One pass of Lloyd over the stays `part`: the mean of those nearest to each centre, and each one's cluster."""
    sums, counts = np.zeros(centres.shape), np.zeros(len(centres))
    members = []
    for rows in in_chunks(part):
        x = flat(encoded, rows)
        nearest = np.argmin((centres**2).sum(axis=1) - 2 * (x @ centres.T), axis=1)
        sums += np.equal.outer(np.arange(len(centres)), nearest).astype(np.float32) @ x
        counts += np.bincount(nearest, minlength=len(centres))
        members.append(nearest)
    means = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
    return means, np.concatenate(members)


def _mean_labels(labels: np.ndarray, member: np.ndarray, n_clusters: int) -> np.ndarray:
    """Mean of the known labels of each cluster's stays, NaN where none is known: `(cluster, task)`."""
    columns = []
    for column in labels.T:
        known = np.isfinite(column)
        counts = np.bincount(member[known], minlength=n_clusters)
        sums = np.bincount(member[known], weights=column[known], minlength=n_clusters)
        columns.append(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))
    return np.stack(columns, axis=1)


def flat(encoded: EncodedCohort, rows: np.ndarray) -> np.ndarray:
    """The series of some stays, `(stay, step * channel)`."""
    return np.asarray(encoded.features[rows].reshape(len(rows), -1))


def in_chunks(part: np.ndarray) -> Iterator[np.ndarray]:
    """Row numbers, or what else there is of each stay, `CHUNK_STAYS` at a time."""
    return (part[start : start + CHUNK_STAYS] for start in range(0, len(part), CHUNK_STAYS))


def _from_records(
    encoded: EncodedCohort, features: np.ndarray, labels: np.ndarray, method: str, n_per_class: int, seed: int
) -> CondensedSet:
    return CondensedSet(
        features=features,
        labels=labels,
        channels=encoded.channels,
        tasks=encoded.tasks,
        step_hours=encoded.step_hours,
        transforms=encoded.transforms,
        method=method,
        starts_from_records=True,
        guarantee=None,
        provenance=Provenance(
            "condense", config={"n_per_class": n_per_class, "largest_class": LARGEST_CLASS}, seed=seed
        ),
    )
