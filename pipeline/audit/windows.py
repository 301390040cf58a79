"""Series cut into the windows that an encoder maps one by one, and the map of one window seen through `encode`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from pipeline.audit.scene import Encode, EncodingScene

Axis = Literal["time", "variables"]
Forward = Callable[[np.ndarray], np.ndarray]
"""(window, input) -> (window, output): the encoder on windows."""

CHUNK_WINDOWS = 200_000
PROBES = 4
SAME_MAP_TOLERANCE = 1e-3


def cut(series: np.ndarray, window: int, axis: Axis) -> np.ndarray:
    """`(stay, step, channel)` -> `(stay * slot, window)`, windows along `axis`, neighbours kept together."""
    lined = np.swapaxes(series, 1, 2) if axis == "time" else series
    return np.ascontiguousarray(lined).reshape(-1, window)


def join(windows: np.ndarray, shape: tuple[int, int, int], axis: Axis) -> np.ndarray:
    """The inverse of `cut`: back to `shape` = (stay, step, channel)."""
    stays, steps, channels = shape
    if axis == "time":
        return np.swapaxes(windows.reshape(stays, channels, steps), 1, 2)
    return windows.reshape(stays, steps, channels)


def by_group(windows: np.ndarray, shape: tuple[int, int, int], width: int, axis: Axis) -> np.ndarray:
    """Windows of a `(stay, step, channel)` array by what they are about: `(group, window, width)`.

    A group is a channel (axis "time") or a block of neighbouring channels (axis "variables").
    """
    stays, steps, channels = shape
    if axis == "time":
        return np.moveaxis(windows.reshape(stays, channels, -1, width), 1, 0).reshape(channels, -1, width)
    return np.moveaxis(windows.reshape(stays, steps, -1, width), 2, 0).reshape(channels // width, -1, width)


def from_groups(grouped: np.ndarray, shape: tuple[int, int, int], axis: Axis) -> np.ndarray:
    """The inverse of `by_group` after `cut`: series of `shape` again."""
    groups, _, width = grouped.shape
    stays, steps, channels = shape
    if axis == "time":
        windows = np.moveaxis(grouped.reshape(groups, stays, steps // width, width), 0, 1)
    else:
        windows = np.moveaxis(grouped.reshape(groups, stays, steps, width), 0, 2)
    return join(windows.reshape(-1, width), (stays, steps, channels), axis)


def padded_shape(scene: EncodingScene) -> tuple[int, int]:
    """(step, channel) of the series filled up to whole windows, as encoders do."""
    _, steps, channels = scene.targets.shape
    window = scene.window_steps
    if scene.axis == "time":
        return steps + -steps % window, channels
    return steps, channels + -channels % window


def padded(series: np.ndarray, window: int, axis: Axis) -> np.ndarray:
    """Series filled up to whole windows with their last value; encoders may fill otherwise, so nothing scores it."""
    missing = -series.shape[1 if axis == "time" else 2] % window
    if missing == 0:
        return series
    return np.pad(series, ((0, 0), (0, missing), (0, 0)) if axis == "time" else ((0, 0), (0, 0), (0, missing)), "edge")


def output_width(scene: EncodingScene) -> int | None:
    """Outputs per window, or None when the encoded shape is not one window map per slot."""
    steps, channels = padded_shape(scene)
    _, out_steps, out_channels = scene.encoded_targets.shape
    along, across = (steps, channels) if scene.axis == "time" else (channels, steps)
    out_along, out_across = (out_steps, out_channels) if scene.axis == "time" else (out_channels, out_steps)
    slots = along // scene.window_steps
    return out_along // slots if across == out_across and out_along % slots == 0 and out_along >= slots else None


def forward_map(scene: EncodingScene, width: int) -> Forward:
    """The map of a single window, by packing windows into series that `encode` accepts."""
    return _packed(scene.encode, padded_shape(scene), scene.window_steps, width, scene.axis)


def _packed(encode: Encode, shape: tuple[int, int], window: int, width: int, axis: Axis) -> Forward:
    steps, channels = shape
    slots = steps * channels // window

    def forward(windows: np.ndarray) -> np.ndarray:
        parts = [part(windows[i : i + CHUNK_WINDOWS]) for i in range(0, len(windows), CHUNK_WINDOWS)]
        return np.concatenate(parts) if parts else np.empty((0, width))

    def part(windows: np.ndarray) -> np.ndarray:
        stays = -(-len(windows) // slots)
        padded = np.zeros((stays * slots, window), np.float32)
        padded[: len(windows)] = windows
        encoded = encode(join(padded, (stays, steps, channels), axis))
        return cut(encoded, width, axis)[: len(windows)].astype(np.float64)

    return forward


def is_one_map(scene: EncodingScene, width: int, rng: np.random.Generator) -> bool:
    """Whether every slot and channel is encoded by the same map, twice the same: probed with a few windows."""
    steps, channels = padded_shape(scene)
    slots = steps * channels // scene.window_steps
    probes = rng.uniform(size=(PROBES, 1, scene.window_steps))
    series = join(np.repeat(probes, slots, axis=1), (PROBES, steps, channels), scene.axis).astype(np.float32)
    encoded = cut(scene.encode(series), width, scene.axis).reshape(PROBES, slots, width)
    return bool(np.ptp(encoded, axis=1).max() <= SAME_MAP_TOLERANCE)


def moving(series: np.ndarray, window: int, axis: Axis) -> np.ndarray:
    """Values that lie in a window that is not constant: bool, the shape of `series`."""
    _, steps, channels = series.shape
    full = padded(series, window, axis)
    windows = cut(full, window, axis)
    moves = np.ptp(windows, axis=1) > 1e-6
    return join(np.repeat(moves[:, None], window, axis=1), _three(full.shape), axis)[:, :steps, :channels]


def grouped(series: np.ndarray, width: int, axis: Axis) -> np.ndarray:
    """Series of whole windows, `cut` and ordered `by_group`: `(group, window, width)`."""
    return by_group(cut(series, width, axis), _three(series.shape), width, axis)


def _three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    stays, steps, channels = shape
    return stays, steps, channels
