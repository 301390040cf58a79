"""Ways to look at a series, so that a leak nobody thought of may show in one of them.

Each view turns series `(stay, step, channel)` into blocks, `(block, stay, number)`: records and samples are near in a
view when they are near in its blocks. One block is the whole series seen some way; several blocks are its parts, of
which only some may have leaked or which may come from different people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

MAX_NUMBERS: Final = 96  # of a block; longer ones are projected at random, which keeps distances (and zeros exactly)
TIME_BLOCKS: Final = 4
MAX_CHANNEL_BLOCKS: Final = 64
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
    """
    whole_ = np.concatenate(people).astype(np.float32)
    kept = np.arange(whole_.shape[2])
    if view is channels:
        kept = np.sort(np.argsort(-whole_.var(axis=(0, 1)), kind="stable")[:MAX_CHANNEL_BLOCKS])
    together = view(whole_[:, :, kept])
    spread = together.std(axis=1, keepdims=True)
    map_ = None
    if together.shape[2] > MAX_NUMBERS:
        map_ = rng.normal(size=(together.shape[2], MAX_NUMBERS)).astype(np.float32) / np.sqrt(MAX_NUMBERS)

    def scaled(blocks: np.ndarray) -> np.ndarray:
        blocks = np.divide(blocks, spread, out=np.zeros_like(blocks), where=spread > MIN_SPREAD)
        return blocks if map_ is None else blocks @ map_

    edges = np.cumsum([len(series) for series in people])[:-1]
    shown = {name: scaled(view(series.astype(np.float32)[:, :, kept])) for name, series in sets.items()}
    return tuple(np.split(scaled(together), edges, axis=1)), shown


def _one(series: np.ndarray) -> np.ndarray:
    return series.reshape(1, len(series), -1)
