"""Raw clinical units -> complete series in [0, 1], each transform recorded with its constants.

With public ranges nothing is computed from patients: a value carried forward within its stay, a public constant where
nothing was observed, a public range. Training quantiles look at patients and are marked so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, final

import numpy as np

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.types import Cohort, EncodedCohort, Json, Provenance, Split, StaticVariable
from pipeline.core.types.cohort import refuse_times

OBSERVED_PREFIX: Final = "observed:"
MISSINGNESS: Final = ("drop", "encode", "release")
VALID: Final = "valid"
LENGTHS: Final = ("fill", "mask")
QUANTILES: Final = (0.005, 0.995)


@final
@dataclass(frozen=True)
class _Channel:
    name: str
    unit: str
    low: float
    high: float
    plausible: tuple[float, float] = (0.0, 1.0)


def prepare(
    cohort: Cohort,
    *,
    imputation: Literal["carry_forward"] = "carry_forward",
    scaling: Literal["public_ranges", "train_quantiles"] = "public_ranges",
    observed: Literal["drop", "encode", "release", "append"] = "drop",
    lengths: Literal["fill", "mask"] = "fill",
    ranges: list[tuple[float, float]] | None = None,
) -> EncodedCohort:
    """Impute and scale: channels are the series, then the statics as constant series, then the masks if asked for.

    A static with categories is one-hot, a channel `name:label` each; a mask's channel is `observed:name`. Values beyond
    a range are clipped to [0, 1]. Sizes other than the result's own do not grow with the number of stays, but for the
    quantiles.

    Args:
        observed: what becomes of the pattern of measurements, recorded as the transform `missingness`. "drop": no
            channel tells it (what was carried forward still does, see docs/benchmarks/audit.md). "encode": its masks
            are channels that encoders treat like any other ("append" is the old word). "release": encoders leave its
            masks as they are.
        lengths: what becomes of the steps after a stay's last measurement, which hold what was carried forward. "fill":
            nothing tells them apart. "mask": a last channel `valid` is 1 up to that measurement and 0 after it (in a
            stay without any, throughout), recorded as the transform `lengths`; encoders treat it like any channel.
        ranges: of the series, as the scaling found them in the cohort of which these stays are a block; None = as it
            finds them here.

    Raises:
        ConfigError: an unknown imputation, scaling, treatment of the masks or of lengths, or a time to an event.
    """
    refuse_times(cohort.tasks)
    mode = "encode" if observed == "append" else observed
    known = imputation in IMPUTATIONS and scaling in SCALINGS and mode in MISSINGNESS and lengths in LENGTHS
    if not known:
        raise ConfigError(
            "prepare knows imputation carry_forward, scaling public_ranges and train_quantiles, "
            "observed drop, encode and release, lengths fill and mask"
        )
    stays, steps, n_series = cohort.values.shape
    ranges = SCALINGS[scaling](cohort) if ranges is None else ranges
    series = [
        _Channel(v.name, v.unit, low, high, (v.plausible_low, v.plausible_high))
        for v, (low, high) in zip(cohort.variables, ranges, strict=True)
    ]
    statics = [channel for static in cohort.static_variables for channel in _static_channels(static)]
    masks = [_Channel(OBSERVED_PREFIX + v.name, "0 or 1", 0.0, 1.0) for v in cohort.variables] * (mode != "drop")
    ends = [_Channel(VALID, "0 or 1", 0.0, 1.0)] * (lengths == "mask")
    channels = [*series, *statics, *masks, *ends]
    features = np.empty((stays, steps, len(channels)), dtype=np.float32)
    IMPUTATIONS[imputation](cohort, features[:, :, :n_series])
    _scale(features[:, :, :n_series], series)
    fixed = np.concatenate([np.zeros((stays, 0), np.float32), *_static_columns(cohort)], axis=1)
    features[:, :, n_series : n_series + len(statics)] = fixed[:, None, :]
    if masks:
        features[:, :, n_series + len(statics) :][:, :, : len(masks)] = cohort.observed
    if ends:
        features[:, :, -1] = _valid_steps(cohort)
    return EncodedCohort(
        features=features,
        labels=cohort.labels,
        subject_index=cohort.subject_index,
        split=cohort.split,
        channels=tuple(channel.name for channel in channels),
        tasks=cohort.tasks,
        step_hours=cohort.step_hours,
        transforms=(
            *_transforms(cohort, channels, imputation, scaling),
            _missingness(mode, masks),
            *({"kind": "lengths", "mode": lengths, "public": True, "channels": [end.name]} for end in ends),
        ),
        provenance=Provenance(
            stage="prepare",
            config={"imputation": imputation, "scaling": scaling, "observed": mode, "lengths": lengths},
        ),
    )


def carry_forward(cohort: Cohort, out: np.ndarray) -> None:
    """Fill `out` `(stay, step, variable)`: the last value observed in the stay, before the first one `normal`.

    What adds up (aggregation "sum": a volume) was passed once and is not passed again: a step without a record adds
    nothing, so that the stay's total is what was recorded; a stay without any record has `normal` throughout.
    """
    normal = np.array([variable.normal for variable in cohort.variables], dtype=np.float32)
    out[:, 0] = np.where(cohort.observed[:, 0], cohort.values[:, 0], normal)
    for step in range(1, out.shape[1]):
        out[:, step] = np.where(cohort.observed[:, step], cohort.values[:, step], out[:, step - 1])
    for index in _sums(cohort):
        recorded = cohort.observed[:, :, index]
        nothing = np.where(recorded.any(axis=1), np.float32(0.0), normal[index])[:, None]
        out[:, :, index] = np.where(recorded, cohort.values[:, :, index], nothing)


def _sums(cohort: Cohort) -> list[int]:
    return [index for index, variable in enumerate(cohort.variables) if variable.aggregation == "sum"]


def public_ranges(cohort: Cohort) -> list[tuple[float, float]]:
    """The mapping's clinical ranges."""
    return [(variable.scale_low, variable.scale_high) for variable in cohort.variables]


def train_quantiles(cohort: Cohort) -> list[tuple[float, float]]:
    """The 0.5 % and 99.5 % quantiles of what was observed in training stays; the public range where that is a point."""
    train = cohort.split == Split.TRAIN
    ranges = []
    for index, public in enumerate(public_ranges(cohort)):
        seen = cohort.values[train, :, index][cohort.observed[train, :, index]]
        low, high = np.quantile(seen, QUANTILES).tolist() if seen.size else (0.0, 0.0)
        ranges.append((low, high) if low < high else public)
    return ranges


IMPUTATIONS: Final[Mapping[str, Callable[[Cohort, np.ndarray], None]]] = {"carry_forward": carry_forward}
SCALINGS: Final[Mapping[str, Callable[[Cohort], list[tuple[float, float]]]]] = {
    "public_ranges": public_ranges,
    "train_quantiles": train_quantiles,
}


def to_clinical_units(features: np.ndarray, channels: tuple[str, ...], transforms: tuple[Json, ...]) -> np.ndarray:
    """Scaled features `(..., channel)` back in the units of `transforms`; what was clipped stays at its limit.

    Raises:
        DataError: no scaling is recorded, or it does not know a channel (an encoding's channels have no unit).
    """
    scaling = next((step for step in transforms if step["kind"] == "scaling"), None)
    if scaling is None:
        raise DataError("the transforms record no scaling, so there are no clinical units to go back to")
    place = {name: index for index, name in enumerate(scaling["channels"])}
    unknown = [name for name in channels if name not in place]
    if unknown:
        raise DataError(f"the recorded scaling does not know {len(unknown)} of {len(channels)} channels")
    rows = [place[name] for name in channels]
    low = np.asarray(scaling["low"], dtype=np.float64)[rows]
    high = np.asarray(scaling["high"], dtype=np.float64)[rows]
    clinical: np.ndarray = (low + features * (high - low)).astype(np.float32)
    return clinical


def _scale(values: np.ndarray, channels: list[_Channel]) -> None:
    low = np.array([channel.low for channel in channels], dtype=np.float32)
    high = np.array([channel.high for channel in channels], dtype=np.float32)
    values -= low
    values /= high - low
    np.clip(values, 0.0, 1.0, out=values)


def _static_channels(static: StaticVariable) -> list[_Channel]:
    if static.categories:
        return [_Channel(f"{static.name}:{label}", "0 or 1", 0.0, 1.0) for _, label in static.categories]
    plausible = (static.plausible_low, static.plausible_high)
    return [_Channel(static.name, static.unit, static.scale_low, static.scale_high, plausible)]


def _static_columns(cohort: Cohort) -> list[np.ndarray]:
    columns = []
    for index, static in enumerate(cohort.static_variables):
        column = cohort.static[:, index]
        column = np.where(np.isfinite(column), column, np.float32(static.normal))
        if static.categories:
            codes = np.array([code for code, _ in static.categories], dtype=np.float32)
            columns.append((column[:, None] == codes).astype(np.float32))
        else:
            scaled = column[:, None].astype(np.float32)
            _scale(scaled, _static_channels(static))
            columns.append(scaled)
    return columns


def _transforms(cohort: Cohort, channels: list[_Channel], imputation: str, scaling: str) -> tuple[Json, ...]:
    constants = {variable.name: float(variable.normal) for variable in cohort.variables}
    constants |= {static.name: float(static.normal) for static in cohort.static_variables}
    impute: dict[str, Any] = {"kind": "imputation", "method": imputation, "public": True, "never_observed": constants}
    sums = [cohort.variables[index].name for index in _sums(cohort)]
    if sums:
        impute["not_carried"] = sums
    scale: dict[str, Any] = {
        "kind": "scaling",
        "method": scaling,
        "public": scaling == "public_ranges",
        "channels": [channel.name for channel in channels],
        "low": [float(channel.low) for channel in channels],
        "high": [float(channel.high) for channel in channels],
        "units": [channel.unit for channel in channels],
        "plausible_low": [float(channel.plausible[0]) for channel in channels],
        "plausible_high": [float(channel.plausible[1]) for channel in channels],
        "static": [channel.name for static in cohort.static_variables for channel in _static_channels(static)],
    }
    return impute, scale


def _valid_steps(cohort: Cohort) -> np.ndarray:
    """Whether a step lies at or before the stay's last measurement of anything: `(stay, step)`."""
    measured = np.asarray(cohort.observed.any(axis=2))
    from_the_end = np.asarray(np.logical_or.accumulate(measured[:, ::-1], axis=1))
    return from_the_end[:, ::-1]


def _missingness(mode: str, masks: list[_Channel]) -> Json:
    """What becomes of the masks, for encoders, the audit and the card; the channels are empty when they are dropped."""
    return {"kind": "missingness", "mode": mode, "public": True, "channels": [channel.name for channel in masks]}
