"""What the encoders share: windows cut in bounded memory, and fitted objects that keep their key to themselves.

Whatever the axis, an array is looked at as positions x lanes: windows run along the positions, every lane by itself.
Axis "time": positions are steps, lanes channels. "variables": positions are channels, lanes steps. "record": one lane,
whose positions are all values of a stay, step after step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from jaxtyping import Float

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.types import EncodedCohort, Json

Axis = Literal["time", "variables", "record"]


@final
@dataclass(frozen=True)
class Geometry:
    """Windows of `width` positions, one every `stride` positions, the last one filled up if need be."""

    width: int
    stride: int
    axis: Axis = "time"

    def __post_init__(self) -> None:
        if self.width < 1 or not 1 <= self.stride <= self.width:
            raise ConfigError("windows are at least 1 wide, and their stride is 1 to the width: nothing is skipped")
        if self.axis not in ("time", "variables", "record"):
            raise ConfigError("windows run along the axis time, variables or record")

    def positions(self, steps: int, channels: int) -> int:
        """How many positions a lane has."""
        return {"time": steps, "variables": channels, "record": steps * channels}[self.axis]

    def count(self, positions: int) -> int:
        """Windows of a lane; 0 for no positions."""
        if positions == 0:
            return 0
        return 1 + max(0, -(-(positions - self.width) // self.stride))

    def padding(self, positions: int) -> int:
        """How many positions are added so that the last window is full."""
        windows = self.count(positions)
        return max(0, (windows - 1) * self.stride + self.width - positions) if windows else 0

    def lanes(self, features: Float[np.ndarray, "stay step channel"]) -> Float[np.ndarray, "stay position lane"]:
        """A view with the positions in the middle."""
        if self.axis == "variables":
            return features.transpose(0, 2, 1)
        return features if self.axis == "time" else features.reshape(len(features), -1, 1)


class Sealed:
    """Base of the fitted encoders: shows what is public, and neither pickles nor copies the key's parameters."""

    def public_spec(self) -> Json:
        """Everything but the secret."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self.public_spec())})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a fitted encoder holds its key's parameters and cannot be pickled: fit it again from the key")


def missing_to_full(length: int, width: int) -> int:
    """How many positions must be added to `length` for a whole number of windows."""
    return -length % width


def check_features(features: np.ndarray) -> None:
    """Features are float32 or float64, `(stay, step, channel)`.

    Raises:
        DataError: they are not.
    """
    if features.ndim != 3 or features.dtype not in (np.float32, np.float64):
        raise DataError(
            f"an encoder takes float32 or float64 features (stay, step, channel), "
            f"not {features.dtype} with {features.ndim} axes"
        )


def check_layout(cohort: EncodedCohort, n_steps: int, n_channels: int) -> None:
    """The cohort has the steps and channels that the encoder was fitted to, so that `public_spec` is true of it.

    Raises:
        DataError: it has not.
    """
    steps, channels = cohort.features.shape[1:]
    if (steps, channels) != (n_steps, n_channels):
        raise DataError(
            f"the encoder was fitted to {n_steps} steps x {n_channels} channels, the cohort has "
            f"{steps} x {channels}; fit it again with the same key"
        )


def time_blocks(
    features: Float[np.ndarray, "stay step channel"],
    width: int,
    block_values: int,
    padding: Literal["edge", "constant"],
) -> Iterator[tuple[slice, slice, Float[np.ndarray, "stay window width channel"]]]:
    """Blocks of windows along time: (stays, windows, values), about `block_values` values per position in the window.

    Values are views of `features` but where the last window is filled up: with its last step ("edge") or 0
    ("constant"). A block is whole stays, or a piece of one stay when that is larger.
    """
    stays, steps, channels = features.shape
    n_windows = (steps + missing_to_full(steps, width)) // width
    windows_at_once = min(max(1, block_values // max(1, channels)), max(1, n_windows))
    stays_at_once = max(1, block_values // max(1, channels * n_windows))
    for stay in range(0, stays, stays_at_once):
        for window in range(0, n_windows, windows_at_once):
            rows = slice(stay, min(stay + stays_at_once, stays))
            columns = slice(window, min(window + windows_at_once, n_windows))
            block = features[rows, columns.start * width : columns.stop * width]
            missing = (columns.stop - columns.start) * width - block.shape[1]
            if missing:
                block = np.pad(block, ((0, 0), (0, missing), (0, 0)), mode=padding)
            yield rows, columns, block.reshape(block.shape[0], columns.stop - columns.start, width, channels)


def encoded_as(
    cohort: EncodedCohort,
    features: np.ndarray,
    spec: Json,
    channels: tuple[str, ...] | None = None,
    step_hours: float | None = None,
) -> EncodedCohort:
    """The cohort with encoded features and `spec` appended to its transforms; provenance is the storing stage's job."""
    return dataclasses.replace(
        cohort,
        features=features,
        channels=cohort.channels if channels is None else channels,
        step_hours=cohort.step_hours if step_hours is None else step_hours,
        transforms=(*cohort.transforms, spec),
    )
