"""What the encoders share: windows cut in bounded memory, and fitted objects that keep their key to themselves.

Whatever the axis, an array is looked at as positions x lanes: windows run along the positions, every lane by itself.
Axis "time": positions are steps, lanes channels. "variables": positions are channels, lanes steps. "record": one lane,
whose positions are all values of a stay, step after step.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from jaxtyping import Float

from encoders.randomise import OutputNoise, randomised
from pipeline.core.errors import ConfigError, DataError
from pipeline.core.files.mapped import folder_of, new_array, row_chunks
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.options.encoders import Axis
from pipeline.core.types import EncodedCohort, Json

Padding = Literal["edge", "constant"]
EncodeBlock = Callable[[np.ndarray, np.ndarray], None]
"""Encodes `(stay, window, width, lane)` into its second argument, `(stay, window, component, lane)`."""


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
        if self.axis == "time":
            return features
        return features.reshape(len(features), features.shape[1] * features.shape[2], 1)

    def encoded_shape(self, shape: tuple[int, int, int], components: int) -> tuple[int, int, int]:
        """The shape encoded: a window's components are steps over time, else channels (a record has one step)."""
        stays, steps, channels = shape
        length = self.count(self.positions(steps, channels)) * components
        return {
            "time": (stays, length, channels),
            "variables": (stays, steps, length),
            "record": (stays, int(length > 0), length),
        }[self.axis]

    def slots(
        self, encoded: Float[np.ndarray, "stay row column"], components: int
    ) -> Float[np.ndarray, "stay window component lane"]:
        """A view of a contiguous encoded array, by window."""
        lanes = self.lanes(encoded)
        stays, length, n_lanes = lanes.shape
        return lanes.reshape(stays, length // components, components, n_lanes)


def encode_windows(
    features: Float[np.ndarray, "stay step channel"],
    geometry: Geometry,
    components: int,
    encode_block: EncodeBlock,
    *,
    block_values: int,
    padding: Padding,
    threads: int = 1,
) -> Float[np.ndarray, "stay row column"]:
    """Encode every window by `encode_block`, in blocks, in the precision of `features`, on `threads` threads.

    Held besides input and output, per thread: what `encode_block` makes of a block, and two blocks' copies where they
    must be filled up. Of features that lie in a file a large encoding lies in one beside it.
    """
    encoded = encoding_of(features, geometry, components)
    slots = geometry.slots(encoded, components)
    blocks = window_blocks(features, geometry, block_values, padding)

    def encode(place: tuple[slice, slice, np.ndarray]) -> None:
        encode_block(place[2], slots[place[:2]])

    if threads == 1 or features.size <= block_values:
        for place in blocks:
            encode(place)
        return encoded
    with ThreadPoolExecutor(threads) as pool:
        while places := list(itertools.islice(blocks, 2 * threads)):
            for _ in pool.map(encode, places):
                pass  # an exception in a thread is raised here
    return encoded


def encoding_of(features: np.ndarray, geometry: Geometry, components: int) -> np.ndarray:
    """The array for the encoding of `features`, to be filled: in memory, or a file as theirs if it is large."""
    return new_array(geometry.encoded_shape(features.shape, components), features.dtype, folder_of(features))


def window_blocks(
    features: Float[np.ndarray, "stay step channel"], geometry: Geometry, block_values: int, padding: Padding
) -> Iterator[tuple[slice, slice, Float[np.ndarray, "stay window width lane"]]]:
    """Blocks of windows, overlapping by width - stride: (stays, windows, values), of about `block_values` values.

    Values are views of `features` but where the last window is filled up, with its last value ("edge") or 0
    ("constant"), and where a record is not contiguous. A block is whole stays, or a piece of one larger stay.
    """
    stays, steps, channels = features.shape
    width, stride = geometry.width, geometry.stride
    n_windows = geometry.count(geometry.positions(steps, channels))
    n_lanes = {"time": channels, "variables": steps, "record": 1}[geometry.axis]
    window_values = max(1, width * n_lanes)
    windows_at_once = min(max(1, block_values // window_values), max(1, n_windows))
    stays_at_once = max(1, block_values // (window_values * max(1, n_windows)))
    for stay in range(0, stays, stays_at_once):
        rows = slice(stay, min(stay + stays_at_once, stays))
        lanes = geometry.lanes(features[rows])
        for window in range(0, n_windows, windows_at_once):
            columns = slice(window, min(window + windows_at_once, n_windows))
            length = (columns.stop - window - 1) * stride + width
            piece = lanes[:, window * stride : window * stride + length]
            missing = length - piece.shape[1]
            if missing:
                piece = np.pad(piece, ((0, 0), (0, missing), (0, 0)), mode=padding)
            yield rows, columns, _cut(piece, columns.stop - window, geometry)


def _cut(piece: np.ndarray, n_windows: int, geometry: Geometry) -> np.ndarray:
    """`(stay, position, lane)` -> `(stay, window, width, lane)`, a view."""
    if geometry.stride == geometry.width:
        return piece.reshape(len(piece), n_windows, geometry.width, piece.shape[2])
    view = np.lib.stride_tricks.sliding_window_view(piece, geometry.width, axis=1)
    return view[:, :: geometry.stride].transpose(0, 1, 3, 2)


class Sealed:
    """Base of the fitted encoders: shows what is public, and neither pickles nor copies the key's parameters."""

    @property
    def stays_apart(self) -> bool:
        """Whether a cohort encoded block by block of stays, each by itself, is bit for bit the cohort encoded whole."""
        return False

    def public_spec(self) -> Json:
        """Everything but the secret."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self.public_spec())})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a fitted encoder holds its key's parameters and cannot be pickled: fit it again from the key")


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


def released_channels(cohort: EncodedCohort) -> tuple[str, ...]:
    """Channels that leave as they are, because the configuration releases them (which values were observed)."""
    named = {
        name
        for step in cohort.transforms
        if step["kind"] == "missingness" and step.get("mode") == "release"
        for name in step["channels"]
    }
    return tuple(name for name in cohort.channels if name in named)


def encoded_names(cohort: EncodedCohort) -> tuple[str, ...]:
    """The channels an encoder has to encode: all but the released ones."""
    released = set(released_channels(cohort))
    return tuple(name for name in cohort.channels if name not in released)


def encoded_cohort(
    cohort: EncodedCohort,
    *,
    spec: Json,
    encode_array: Callable[[np.ndarray], np.ndarray],
    geometry: Geometry,
    components: int,
    fitted_to: tuple[int, int],
    how: OutputNoise,
    noise: NoiseSource | None,
) -> EncodedCohort:
    """The cohort encoded window by window: features, names, hours per step, and `spec` at the end of its transforms.

    `encode_array` gives `geometry.encoded_shape(...)`, a fresh array to which noise is added in place. `fitted_to`:
    (steps, encoded channels). Released channels stay as they are, behind the encoded ones; steps that were only filled
    up count as not observed; to put them there the encoding is held twice for a moment. Over time a step becomes
    `step_hours` * stride / components long and the names stay; over variables and records the channels are
    `mix{window}_{component}`; windows of one value keep their names.

    Raises:
        DataError: the cohort's steps or channels are not those fitted to.
        ConfigError: a randomised encoder without noise source; released channels whose steps would not be kept.
    """
    released, names = released_channels(cohort), encoded_names(cohort)
    steps = cohort.features.shape[1]
    _check_fitted(fitted_to, (steps, len(names)))
    if released and not _keeps_steps(geometry, components):
        raise ConfigError(
            f"channels are released as they are, but this encoder (axis {geometry.axis}, window {geometry.width}, "
            f"stride {geometry.stride}, {components} components) does not keep the steps: encode or drop them"
        )
    encoded = randomised(encode_array(_columns(cohort, names)), how, noise, spec)
    mixed = geometry.axis != "time" and (geometry.axis == "record" or (geometry.width, components) != (1, 1))
    channels = _mix_names(encoded.shape[2], components) if mixed else names
    if released:
        encoded, channels = _with_tail(encoded, cohort, released), (*channels, *released)
    hours = {"time": geometry.stride / components, "variables": 1.0, "record": max(1, steps)}[geometry.axis]
    return encoded_as(cohort, encoded, spec, channels, cohort.step_hours * hours)


def _check_fitted(fitted_to: tuple[int, int], found: tuple[int, int]) -> None:
    if fitted_to != found:
        raise DataError(
            f"the encoder was fitted to {fitted_to[0]} steps x {fitted_to[1]} channels, the cohort has "
            f"{found[0]} x {found[1]}; fit it again with the same key"
        )


def _keeps_steps(geometry: Geometry, components: int) -> bool:
    """Whether row r of the encoding stands for step r: overlapping windows over time leave fewer rows than steps."""
    if geometry.axis == "time":
        return geometry.width == geometry.stride == components
    return geometry.axis == "variables"


def _columns(cohort: EncodedCohort, names: tuple[str, ...]) -> np.ndarray:
    """The named channels, in the cohort's order: a view where they are neighbours."""
    wanted = set(names)
    places = [place for place, name in enumerate(cohort.channels) if name in wanted]
    if not places or places[-1] - places[0] + 1 == len(places):
        first = places[0] if places else 0
        return cohort.features[:, :, first : first + len(places)]
    taken = new_array((*cohort.features.shape[:2], len(places)), cohort.features.dtype, folder_of(cohort.features))
    for part in row_chunks(cohort.features):
        taken[part] = cohort.features[part][:, :, places]
    return taken


def _with_tail(encoded: np.ndarray, cohort: EncodedCohort, released: tuple[str, ...]) -> np.ndarray:
    """The encoding with the released channels behind it, 0 in steps that were only filled up."""
    stays, steps, width = encoded.shape
    whole = new_array((stays, steps, width + len(released)), encoded.dtype, folder_of(cohort.features))
    tail = _columns(cohort, released)
    for part in row_chunks(whole):
        whole[part, :, :width] = encoded[part]
        whole[part, : tail.shape[1], width:] = tail[part]
        whole[part, tail.shape[1] :, width:] = 0
    return whole


def _mix_names(count: int, components: int) -> tuple[str, ...]:
    return tuple(f"mix{place // components:02d}_{place % components}" for place in range(count))


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
