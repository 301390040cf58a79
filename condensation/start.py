"""Where samples start from, and how a finished set is put together: the same for every optimising method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from condensation.class_gaussian import FEW_STAYS, SMALLEST_CLASS, class_gaussians
from condensation.coresets import class_centroids
from condensation.loop import LoopSettings, Loss, class_rows, optimise_samples
from condensation.roles import with_roles
from condensation.standard import Standard
from pipeline.core.digest import digest_array
from pipeline.core.options.base import check_n_per_class
from pipeline.core.options.condensers import Start
from pipeline.core.protocols import OnStep
from pipeline.core.seeds import generator
from pipeline.core.types import CondensedSet, EncodedCohort, Json, Provenance
from pipeline.probes.precision import arithmetic


def rows_for_start(encoded: EncodedCohort, kind: Start, n_per_class: int, method: str) -> list[np.ndarray]:
    """The class rows, checked for what the start needs.

    Raises:
        ConfigError: n_per_class below 1. DataError: a class has no stay, or fewer than the start needs.
    """
    check_n_per_class(n_per_class)
    at_least = {"noise": 1, "gaussian": SMALLEST_CLASS}.get(kind, n_per_class)
    return class_rows(encoded, at_least, f"{method.replace('_', ' ')} from {kind}")


def initial_samples(
    encoded: EncodedCohort, rows: Sequence[np.ndarray], kind: Start, n_per_class: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features `(class * sample, step, channel)` and labels `(class * sample, task)` to start from.

    N(0, 1) noise, random real stays, or k-means centroids or Gaussian draws per class. Task 0 is the class; the other
    tasks keep what the start knows of them: a stay's label, a cluster's mean label, a draw, nothing (NaN) from noise.
    """
    if kind == "noise":
        shape = (len(rows) * n_per_class, *encoded.features.shape[1:])
        features = generator(seed, "condense", "initial").normal(size=shape).astype(np.float32)
        labels = np.full((len(features), len(encoded.tasks)), np.nan, dtype=np.float32)
        sides = (0.0, 1.0) if encoded.tasks[0].kind == "binary" else (0.25, 0.75)  # the middle of each half of a range
        labels[:, 0] = np.repeat(sides, n_per_class)
        return features, labels
    if kind == "gaussian":
        return class_gaussians(encoded, rows, n_per_class, seed)
    if kind == "centroids":
        return class_centroids(encoded, rows, n_per_class, seed)
    draws = generator(seed, "condense", "initial")
    chosen = np.concatenate([draws.choice(part, n_per_class, replace=False) for part in rows])
    return encoded.features[chosen], encoded.labels[chosen]


def made_of_records(kind: Start, rows: Sequence[np.ndarray]) -> bool:
    """Whether samples start as real stays or averages of few; noise is neither, nor a sum over `FEW_STAYS` and more."""
    return kind in ("real", "centroids") or (kind == "gaussian" and min(map(len, rows)) < FEW_STAYS)


def condensed_set(
    encoded: EncodedCohort,
    features: np.ndarray,
    labels: np.ndarray,
    method: str,
    *,
    starts_from_records: bool,
    config: Json,
    seed: int,
) -> CondensedSet:
    """The set with the cohort's columns and no guarantee: none of these methods has one."""
    return CondensedSet(
        features=features.astype(np.float32, copy=False),
        labels=labels.astype(np.float32, copy=False),
        channels=encoded.channels,
        tasks=encoded.tasks,
        step_hours=encoded.step_hours,
        transforms=encoded.transforms,
        method=method,
        starts_from_records=starts_from_records,
        guarantee=None,
        provenance=Provenance("condense", config=config, seed=seed),
    )


@arithmetic("float32")
def condense_with(
    encoded: EncodedCohort,
    make_loss: Callable[[Sequence[np.ndarray]], Loss],
    *,
    method: str,
    start: Start,
    settings: LoopSettings,
    config: Json,
    n_per_class: int,
    seed: int,
    device: str,
    on_step: OnStep,
    standard: Standard | None = None,
) -> CondensedSet:
    """The road of every method whose labels stay as the start set them: rows, start, loss, loop, set.

    Args:
        make_loss: class rows -> the method's loss; called once.
        standard: what samples start and step in, noise of one standard deviation and the learning rate alike; None =
            the cohort's units. Samples, start, limits and loss are in the cohort's units either way.

    Raises:
        ConfigError: n_per_class below 1. DataError: a class has no stay, or fewer than the start needs.
    """
    settings = with_roles(settings, encoded)
    rows = rows_for_start(encoded, start, n_per_class, method)
    features, labels = initial_samples(encoded, rows, start, n_per_class, seed)
    if standard is not None:
        settings = dataclasses.replace(settings, units=tuple(standard.sd.tolist()))
        features = standard.series(features) if start == "noise" else features
    if settings.bounds is not None:
        features = features.clip(*settings.bounds)
    config = {**config, "n_per_class": n_per_class}
    features, labels = optimise_samples(
        (features, labels),
        make_loss(rows),
        settings,
        context=run_context(method, config, seed, encoded, settings),
        device=device,
        on_step=on_step,
    )
    started = made_of_records(start, rows)
    return condensed_set(encoded, features, labels, method, starts_from_records=started, config=config, seed=seed)


def run_context(method: str, config: Json, seed: int, encoded: EncodedCohort, settings: LoopSettings) -> object:
    """What names a run for its checkpoint; the cohort's digests are taken only where there is one."""
    data = [digest_array(encoded.features), digest_array(encoded.labels)] if settings.checkpoint else []
    return [method, dict(config), seed, data]
