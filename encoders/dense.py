"""Dense data: a vector per stay instead of a series, as [Enc] (Nat Commun 15:1582, 2024) encodes static features.

A vector is one step whose features are channels, so that an encoder with axis "variables" (or "record") cuts windows of
consecutive features. Whoever has vectors already calls `encode_dense`; `summaries` makes them from prepared series.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float

from encoders.windows import Geometry
from pipeline.core.errors import ConfigError, DataError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.protocols import FittedEncoder
from pipeline.core.types import ArrayRecord, Cohort, EncodedCohort, Json, Provenance

SUMMARIES: Final = ("mean", "min", "max", "last", "first", "sd")
"""Over the steps of a stay, in this order for each channel; "sd" is doubled: half is the most that [0, 1] allows."""


def static_channels(cohort: Cohort) -> tuple[str, ...]:
    """The channels of the prepared cohort that hold one value for the whole stay: `name`, or `name:label` of a code."""
    names: list[str] = []
    for static in cohort.static_variables:
        names += [f"{static.name}:{label}" for _, label in static.categories] or [static.name]
    return tuple(names)


def summaries(cohort: EncodedCohort, static: Collection[str] = ()) -> EncodedCohort:
    """Prepared series as one vector per stay: features `(stay, 1, feature)`, values in [0, 1] as before.

    Channels: `heart_rate:mean`, `heart_rate:min`, ... of every series; then those named in `static`, once each and as
    they are (named, not found: what is constant in the data at hand would be computed from patients); then of each mask
    the share of steps with a measurement, `observed:heart_rate:mean`, encoded or released as the mask would have been.

    Raises:
        DataError: no step at all, a static channel that does not exist, or one that changes within a stay.
    """
    steps = cohort.features.shape[1]
    unknown = set(static) - set(cohort.channels)
    if unknown or not steps:
        raise DataError(f"{len(unknown)} static channels are not in the cohort of {steps} steps (at least 1)")
    masks = {name for step in cohort.transforms if step["kind"] == "missingness" for name in step["channels"]}
    held = [name for name in cohort.channels if name in static]
    masked = [name for name in cohort.channels if name in masks and name not in static]
    series = [name for name in cohort.channels if name not in static and name not in masks]
    fixed = _of(cohort, held)
    moving = int(np.any(fixed != fixed[:, :1], axis=(0, 1)).sum())
    if moving:
        raise DataError(f"{moving} of {len(held)} static channels change within a stay")
    shares = _of(cohort, masked).mean(axis=1, dtype=np.float64)
    vectors = np.concatenate([_summarised(_of(cohort, series)), fixed[:, 0], shares], axis=1, dtype=np.float32)
    share_names = [f"{name}:mean" for name in masked]
    names = [f"{name}:{statistic}" for name in series for statistic in SUMMARIES]
    return dataclasses.replace(
        cohort,
        features=vectors[:, None, :],
        channels=(*names, *held, *share_names),
        step_hours=cohort.step_hours * steps,
        transforms=(*cohort.transforms, *_told(cohort, held, share_names)),
    )


def _told(cohort: EncodedCohort, held: list[str], share_names: list[str]) -> list[Json]:
    """The transform, and what becomes of the masks under their new names."""
    steps = cohort.features.shape[1]
    told: Json = {"kind": "summaries", "public": True, "statistics": list(SUMMARIES), "static": held, "n_steps": steps}
    treated = [step for step in cohort.transforms if step["kind"] == "missingness"]
    return [told, *([{**treated[-1], "channels": share_names}] if share_names else [])]


def _of(cohort: EncodedCohort, names: list[str]) -> Float[np.ndarray, "stay step channel"]:
    return cohort.features[:, :, [cohort.channels.index(name) for name in names]]


def _summarised(x: Float[np.ndarray, "stay step channel"]) -> Float[np.ndarray, "stay feature"]:
    """All statistics of a channel side by side."""
    statistics = (
        x.mean(axis=1, dtype=np.float64),
        x.min(axis=1),
        x.max(axis=1),
        x[:, -1],
        x[:, 0],
        2.0 * x.std(axis=1, dtype=np.float64),
    )
    return np.stack(statistics, axis=2).reshape(len(x), x.shape[2] * len(SUMMARIES))


@final
@dataclass(frozen=True, eq=False, repr=False)
class DenseEncoding(ArrayRecord):
    """Encoded vectors, and what is to be told about them."""

    values: Float[np.ndarray, "sample column"]
    columns: tuple[str, ...]
    padded_features: int  # added at the end to fill the last window
    spec: Json


def dense_cohort(features: Float[np.ndarray, "sample feature"]) -> EncodedCohort:
    """Bare vectors as unlabelled stays of one step, in their own precision; what an encoder is fitted to.

    Raises:
        DataError: not a matrix, or not finite.
    """
    if features.ndim != 2:
        raise DataError(f"dense features have two axes (sample, feature), not {features.ndim}")
    return EncodedCohort(
        features=features[:, None, :],
        labels=np.zeros((len(features), 0), np.float32),
        subject_index=np.arange(len(features), dtype=np.int32),
        split=np.zeros(len(features), np.int8),
        channels=tuple(f"feature_{index}" for index in range(features.shape[1])),
        tasks=(),
        step_hours=1.0,
        transforms=(),
        provenance=Provenance(stage="dense"),
    )


def encode_dense(
    features: Float[np.ndarray, "sample feature"], fitted: FittedEncoder, noise: NoiseSource | None = None
) -> DenseEncoding:
    """Encode bare vectors in windows of consecutive features, the last one filled up and told.

    Fit with `encoder.fit(dense_cohort(features), key)`; only the number of features counts.

    Raises:
        ConfigError: the encoder's windows run along time, or it is randomised and `noise` is missing.
        DataError: wrong type, not finite, or another number of features than fitted to.
    """
    spec = fitted.public_spec()
    width = int(spec["window"])
    if spec["axis"] == "time" and width > 1:
        raise ConfigError('dense features have no time: fit an encoder with axis = "variables" or "record"')
    encoded = fitted.encode(dense_cohort(features), noise)
    windows = Geometry(width, int(spec.get("stride") or width), "variables")
    return DenseEncoding(
        values=encoded.features.reshape(len(features), len(encoded.channels)),
        columns=encoded.channels,
        padded_features=windows.padding(features.shape[1]),
        spec=spec,
    )
