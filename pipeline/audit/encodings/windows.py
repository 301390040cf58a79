"""Series cut into the windows that an encoder maps one by one, and the map of one window seen through `encode`.

Positions and lanes: windows run along the positions, every lane by itself. Axis "time": positions are steps, lanes are
channels; "variables": the other way round; "record": one lane whose positions are all values of a stay, step after
step. Windows are listed stay by stay, lane by lane, slot by slot.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from pipeline.audit.scene import Axis, Encode, EncodingScene

Forward = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(window, input) and the windows' groups (window,) -> (window, output): the encoder on windows."""

CHUNK_VALUES = 1_000_000
PROBES = 4
SAME_MAP_TOLERANCE = 1e-3


@final
@dataclass(frozen=True)
class Layout:
    """How series of `steps` x `channels` are cut: `window` positions, one every `stride`, `width` outputs each."""

    steps: int
    channels: int
    window: int
    stride: int
    axis: Axis = "time"
    width: int = 0

    @property
    def positions(self) -> int:
        """Positions of a lane."""
        return {"time": self.steps, "variables": self.channels, "record": self.steps * self.channels}[self.axis]

    @property
    def lanes(self) -> int:
        """Lanes of a stay."""
        return {"time": self.channels, "variables": self.steps, "record": 1}[self.axis]

    @property
    def slots(self) -> int:
        """Windows of a lane, the last one filled up if need be."""
        return 1 + max(0, -(-(self.positions - self.window) // self.stride))

    @property
    def length(self) -> int:
        """Positions of a lane filled up to whole windows."""
        return (self.slots - 1) * self.stride + self.window

    def cut(self, series: np.ndarray) -> np.ndarray:
        """`(stay, step, channel)` -> `(stay * lane * slot, window)`.

        The last window is filled up with its last value; encoders may fill otherwise, so nothing scores it.
        """
        lined = self._lined(series)
        full = np.pad(lined, ((0, 0), (0, 0), (0, self.length - lined.shape[2])), "edge")
        view = np.lib.stride_tricks.sliding_window_view(full, self.window, axis=2)[:, :, :: self.stride]
        return np.ascontiguousarray(view).reshape(-1, self.window)

    def join(self, windows: np.ndarray) -> np.ndarray:
        """The inverse of `cut`; values that lie in several windows get their mean."""
        cells = windows.reshape(-1, self.lanes, self.slots, self.window)
        sums, counts = np.zeros((*cells.shape[:2], self.length), np.float64), np.zeros(self.length)
        for place in range(self.window):
            where = slice(place, place + (self.slots - 1) * self.stride + 1, self.stride)
            sums[:, :, where] += cells[..., place]
            counts[where] += 1
        means = (sums / np.maximum(counts, 1)).astype(windows.dtype)
        return self._back(means[:, :, : self.positions])

    def cut_encoded(self, encoded: np.ndarray) -> np.ndarray:
        """Encoded series -> `(stay * lane * slot, width)`, in the order of `cut`."""
        lined = {"time": (0, 2, 1), "variables": (0, 1, 2), "record": (0, 1, 2)}[self.axis]
        return np.ascontiguousarray(encoded.transpose(lined)).reshape(-1, self.width)

    def groups(self, stays: int) -> np.ndarray:
        """What the windows are about: their channel, their block of channels, or in a record the channel they start at.

        `(stay * lane * slot,)` int.
        """
        lane, slot = np.divmod(np.arange(self.lanes * self.slots), self.slots)
        one = {"time": lane, "variables": slot, "record": slot * self.stride % max(1, self.channels)}[self.axis]
        return np.tile(one, stays)

    def full(self) -> Layout:
        """The layout of series that are filled up to whole windows."""
        shape = {
            "time": (self.length, self.channels),
            "variables": (self.steps, self.length),
            "record": (1, self.length),
        }[self.axis]
        return dataclasses.replace(self, steps=shape[0], channels=shape[1])

    def apart(self) -> Layout:
        """A layout of the same windows that do not overlap, into which any windows can be packed."""
        if self.stride == self.window:
            return self.full()
        steps = self.window if self.axis == "time" else 1 if self.axis == "record" else self.steps
        channels = self.channels if self.axis == "time" else self.window
        return dataclasses.replace(self, stride=self.window, steps=steps, channels=channels)

    def _lined(self, series: np.ndarray) -> np.ndarray:
        if self.axis == "record":
            return series.reshape(len(series), 1, -1)
        return np.swapaxes(series, 1, 2) if self.axis == "time" else series

    def _back(self, lined: np.ndarray) -> np.ndarray:
        if self.axis == "record":
            return lined.reshape(len(lined), self.steps, self.channels)
        return np.ascontiguousarray(np.swapaxes(lined, 1, 2)) if self.axis == "time" else lined


def layout_of(scene: EncodingScene) -> Layout | None:
    """How the scene's series were cut, or None when the encoded shape is not one window map per slot."""
    _, steps, channels = scene.targets.shape
    if not 1 <= scene.hop <= scene.window_steps:
        return None
    plain = Layout(steps, channels, scene.window_steps, scene.hop, scene.axis)
    rows, columns = scene.encoded_targets.shape[1:]
    along, across = (columns, rows) if scene.axis == "variables" else (rows, columns)
    if scene.axis == "record":
        along, across = rows * columns, 1
    if across != plain.lanes or along % plain.slots or along < plain.slots:
        return None
    return dataclasses.replace(plain, width=along // plain.slots)


def forward_map(encode: Encode, layout: Layout, per_channel: bool = False, exact: bool = False) -> Forward:
    """The map of single windows, by packing windows into series that `encode` accepts.

    Args:
        per_channel: every channel has a map of its own: windows are packed into the channel of their group.
        exact: encode in float64, which shows more than a release's float32.
    """
    packed = layout.apart()

    def forward(windows: np.ndarray, group: np.ndarray) -> np.ndarray:
        size = max(1, CHUNK_VALUES // layout.window)
        parts = [part(windows[i : i + size], group[i : i + size]) for i in range(0, len(windows), size)]
        return np.concatenate(parts) if parts else np.empty((0, layout.width))

    def part(windows: np.ndarray, group: np.ndarray) -> np.ndarray:
        lane, rank = (group, _ranks(group)) if per_channel else np.divmod(np.arange(len(windows)), packed.slots)
        if not per_channel:
            stay, lane, slot = lane // packed.lanes, lane % packed.lanes, rank
        else:
            stay, slot = np.divmod(rank, packed.slots)
        cells = np.zeros(
            (int(stay.max(initial=-1)) + 1, packed.lanes, packed.slots, packed.window),
            np.float64 if exact else np.float32,
        )
        cells[stay, lane, slot] = windows
        encoded = packed.cut_encoded(encode(packed.join(cells)))
        found = encoded.reshape(*cells.shape[:3], packed.width)[stay, lane, slot]
        return np.asarray(found, np.float64)

    return forward


def _ranks(labels: np.ndarray) -> np.ndarray:
    """For each item, how many before it have the same label."""
    order = np.argsort(labels, kind="stable")
    new = np.flatnonzero(np.r_[True, np.diff(labels[order]) != 0]) if len(labels) else np.empty(0, int)
    starts = np.repeat(new, np.diff(np.r_[new, len(labels)]))
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels)) - starts
    return ranks


def is_one_map(scene: EncodingScene, layout: Layout, rng: np.random.Generator) -> bool:
    """Whether every window is encoded by one map, twice the same (per channel if so said): probed with a few windows.

    Series that repeat every `stride` positions have the same window in every slot.
    """
    full = layout.full()
    pattern = rng.uniform(size=(PROBES, 1, layout.stride)).astype(np.float32)
    lined = np.tile(pattern, (1, full.lanes, -(-full.length // layout.stride)))[:, :, : full.length]
    series = np.repeat(full._back(lined), 2, axis=0)
    encoded = scene.encode(series)
    if encoded.size != 2 * PROBES * full.lanes * full.slots * full.width:
        return False
    cells = full.cut_encoded(encoded).reshape(PROBES, 2, full.lanes, full.slots, full.width)
    along = (1, 3) if scene.key_scope == "per_channel" else (1, 2, 3)
    return bool(np.ptp(cells, axis=along).max() <= SAME_MAP_TOLERANCE)


def moving(series: np.ndarray, layout: Layout) -> np.ndarray:
    """Values that lie in a window that is not constant: bool, the shape of `series`."""
    moves = np.ptp(layout.cut(series), axis=1) > 1e-6
    return np.asarray(layout.join(np.repeat(moves[:, None], layout.window, axis=1).astype(np.float32)) > 0)
