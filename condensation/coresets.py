"""Baselines made of records or of averages of few records: never private, always to be shown beside a method."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Final, final

import numpy as np
from jaxtyping import Float32
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from condensation.loop import check_n_per_class, class_rows
from pipeline.core.errors import DataError
from pipeline.core.noise import NoiseSource
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import child_seed, generator
from pipeline.core.threads import single_threaded
from pipeline.core.types import CondensedSet, EncodedCohort, Provenance

CENTROIDS: Final = "centroids"
RANDOM_REAL: Final = "random_real"
HERDING: Final = "herding"
KMEANS_ITERATIONS: Final = 100


@final
class Centroids:
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
class RandomReal:
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
class Herding:
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
        chosen = np.concatenate([part[herded(encoded.features[part], n_per_class)] for part in rows])
        on_step(1, 1, float("nan"))
        return _from_records(encoded, encoded.features[chosen], encoded.labels[chosen], HERDING, n_per_class, seed)


def herded(features: Float32[np.ndarray, "stay step channel"], n: int) -> np.ndarray:
    """Positions of `n` distinct stays, each the one that brings the mean of those chosen nearest to the mean of all."""
    x = features.reshape(len(features), -1)
    target = x.mean(axis=0, dtype=np.float64)
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

    Raises:
        DataError: a class has fewer distinct series than clusters.
    """
    centres, labels = [], []
    for label, part in enumerate(rows):
        flat = encoded.features[part].reshape(len(part), -1)
        state = child_seed(seed, CENTROIDS, label) % 2**32
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                model = KMeans(n_clusters, n_init=1, max_iter=KMEANS_ITERATIONS, random_state=state).fit(flat)
            except ConvergenceWarning:
                raise DataError(f"class {label} has fewer than {n_clusters} distinct training series") from None
        centres.append(model.cluster_centers_.reshape(n_clusters, *encoded.features.shape[1:]))
        known = np.isfinite(encoded.labels[part])
        member = np.equal.outer(np.arange(n_clusters), model.labels_).astype(np.float64)
        sums, counts = member @ np.where(known, encoded.labels[part], 0), member @ known
        labels.append(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))
    return np.concatenate(centres).astype(np.float32), np.concatenate(labels).astype(np.float32)


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
        provenance=Provenance("condense", config={"n_per_class": n_per_class}, seed=seed),
    )
