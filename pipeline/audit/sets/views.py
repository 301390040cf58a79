"""Ways to look at a series, so that a leak nobody thought of may show in one of them.

Each view turns series `(stay, step, channel)` into blocks, `(block, stay, number)`: records and samples are near in a
view when they are near in its blocks. One block is the whole series seen some way; several blocks are its parts, of
which only some may have leaked or which may come from different people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

MAX_NUMBERS: Final = 96  # of a block; longer ones are projected at random, which keeps distances (and zeros exactly)
TIME_BLOCKS: Final = 4
MAX_CHANNEL_BLOCKS: Final = 64
ROWS: Final = 256  # of stays at a time: two megabytes of 44 channels by the hour
MIN_SPREAD: Final = 1e-6  # of a number over the people: what all have alike tells nobody from anybody

View = Callable[[np.ndarray], np.ndarray]


def whole(series: np.ndarray) -> np.ndarray:
    """The values as they are."""
    return _one(series)


def changes(series: np.ndarray) -> np.ndarray:
    """Steps from one value to the next: a constant added to a channel does not matter."""
    return _one(np.diff(series, axis=1)) if series.shape[1] > 1 else _one(series)


def shape_only(series: np.ndarray) -> np.ndarray:
    """Every channel of a stay about its own mean in its own spread: neither shift nor scale matter."""
    centred = series - series.mean(axis=1, keepdims=True)
    return _one(centred / (centred.std(axis=1, keepdims=True) + 1e-3))


def summaries(series: np.ndarray) -> np.ndarray:
    """Mean, spread, extremes, first and last of every channel: the order in time does not matter."""
    parts = [
        series.mean(axis=1),
        series.std(axis=1),
        series.min(axis=1),
        series.max(axis=1),
        series[:, 0],
        series[:, -1],
    ]
    return _one(np.concatenate(parts, axis=1))


def spectrum(series: np.ndarray) -> np.ndarray:
    """Magnitudes of every channel's frequencies: shifts in time do not matter, nor does its direction."""
    return _one(np.abs(np.fft.rfft(series, axis=1))[:, 1:] if series.shape[1] > 1 else series)


def ordered(series: np.ndarray) -> np.ndarray:
    """Every channel's values in order of size: the order in time does not matter at all."""
    return _one(np.sort(series, axis=1))


def channels(series: np.ndarray) -> np.ndarray:
    """Every channel by itself: a sample may have each from another person."""
    return np.ascontiguousarray(np.moveaxis(series, 2, 0))


def times(series: np.ndarray) -> np.ndarray:
    """Every quarter of the time by itself: a sample may be spliced."""
    parts = np.array_split(np.arange(series.shape[1]), min(TIME_BLOCKS, series.shape[1]))
    width = min(len(part) for part in parts)
    return np.stack([series[:, part[:width]].reshape(len(series), -1) for part in parts])


VIEWS: Final[Mapping[str, View]] = {
    "whole": whole,
    "changes": changes,
    "shape": shape_only,
    "summaries": summaries,
    "spectrum": spectrum,
    "ordered": ordered,
    "channels": channels,
    "times": times,
}


def seen(
    view: View, people: tuple[np.ndarray, ...], sets: Mapping[str, np.ndarray], rng: np.random.Generator
) -> tuple[tuple[np.ndarray, ...], dict[str, np.ndarray]]:
    """Groups of people and sets in one view, `(block, stay, number)` each, in one scale and one projection.

    Scale, projection and which channels have a block are the people's: what is seen of one set depends on no other.
    A few rows at a time, which stay in the processor's cache.
    """
    kept = _kept(view, people)
    groups = [_by_rows(view, series, kept) for series in people]
    spread = _spread([rows for group in groups for rows in group])
    inverse = np.divide(1, spread, out=np.zeros_like(spread), where=spread > MIN_SPREAD)
    lens: np.ndarray | None = None
    if spread.shape[2] > MAX_NUMBERS:
        map_ = rng.normal(size=(spread.shape[2], MAX_NUMBERS)).astype(np.float32) / np.sqrt(MAX_NUMBERS)
        lens = np.swapaxes(inverse, 1, 2) * map_

    def scaled(group: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([rows * inverse if lens is None else rows @ lens for rows in group], axis=1)

    shown = {name: scaled(_by_rows(view, series, kept)) for name, series in sets.items()}
    return tuple(scaled(group) for group in groups), shown


def _kept(view: View, people: Sequence[np.ndarray]) -> slice | np.ndarray:
    """Channels that are looked at: where each has a block, those in which people differ most."""
    n = people[0].shape[2]
    if view is not channels or n <= MAX_CHANNEL_BLOCKS:
        return slice(None)
    return np.sort(np.argsort(-np.concatenate(people).var(axis=(0, 1)), kind="stable")[:MAX_CHANNEL_BLOCKS])


def _by_rows(view: View, series: np.ndarray, kept: slice | np.ndarray) -> list[np.ndarray]:
    starts = range(0, max(len(series), 1), ROWS)
    return [view(series[at : at + ROWS, :, kept].astype(np.float32)) for at in starts]


def _spread(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Standard deviation over all rows of `(block, row, number)` each: `(block, 1, number)` float32."""
    n = sum(part.shape[1] for part in parts)
    mean = sum(part.sum(axis=1, keepdims=True, dtype=np.float64) for part in parts) / n
    centre = np.asarray(mean, np.float32)
    squares = sum(((part - centre) ** 2).sum(axis=1, keepdims=True) for part in parts)
    return np.asarray(np.sqrt(squares / n), np.float32)


def _one(series: np.ndarray) -> np.ndarray:
    return series.reshape(1, len(series), -1)
