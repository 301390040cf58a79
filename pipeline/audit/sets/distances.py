"""Distances between series that forgive a shift in time, and the scale in which they are taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_LAG = 2  # steps: a copy shifted by a grid step or two is a copy
CHUNK = 512
EXACT = 1e-6  # scaled distances below this are float32 noise


@dataclass(frozen=True)
class Nearest:
    """Each query's nearest and second nearest reference (distances per value) and which the nearest is."""

    first: np.ndarray
    second: np.ndarray
    index: np.ndarray


def channel_scale(reference: np.ndarray) -> np.ndarray:
    """Standard deviation of each channel over stays and steps; channels that hardly vary get a floor: `(channel,)`."""
    spread = reference.std(axis=(0, 1), dtype=np.float64)
    floor = 0.05 * float(spread.max()) if spread.max() > 0 else 1.0
    scale: np.ndarray = np.maximum(spread, floor).astype(np.float32)
    return scale


def lag_distances(queries: np.ndarray, references: np.ndarray, max_lag: int = MAX_LAG) -> np.ndarray:
    """Root mean square difference, least over shifts of up to `max_lag` steps: `(query, reference)`.

    Args:
        queries, references: `(stay, step, channel)`, scaled.
    """
    steps = queries.shape[1]
    best = np.full((len(queries), len(references)), np.inf, np.float32)
    for lag in range(-min(max_lag, steps - 1), min(max_lag, steps - 1) + 1):
        late, early = max(lag, 0), max(-lag, 0)
        a = queries[:, late : steps - early].reshape(len(queries), -1)
        for start in range(0, len(references), CHUNK):
            part = references[start : start + CHUNK, early : steps - late]
            b = part.reshape(len(part), -1)
            square = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * (a @ b.T)
            distance = np.sqrt(np.maximum(square, 0) / a.shape[1])
            best[:, start : start + len(b)] = np.minimum(best[:, start : start + len(b)], distance)
    return best


def nearest(distances: np.ndarray) -> Nearest:
    """The two nearest references of each query, from `(query, reference)` distances."""
    index = distances.argmin(axis=1)
    two = np.partition(distances, 1, axis=1)[:, :2]
    return Nearest(two[:, 0], two[:, 1], index)


def k_nearest(distance: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest of each row in order, and their places, the first ones of equals: `(row, k)` each.

    The k-th of some of a row is no smaller than the row's, so what is up to it holds the k smallest: little to sort.
    """
    some = distance[:, :: 4 if distance.shape[1] >= 8 * k else 1]
    last = np.partition(some, k - 1, axis=1)[:, k - 1 : k]
    rows, places = np.nonzero(distance <= last)
    values = distance[rows, places]
    order = np.lexsort((places, values, rows))
    first = np.searchsorted(rows, np.arange(len(distance)))  # rows are in order, and stay so
    kept = order[first[:, None] + np.arange(k)]
    return values[kept], places[kept]
