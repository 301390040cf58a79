"""Ways in which a record can be dressed up and stay that record, each with a distance that does not see the dress.

A view gives distances `(query, member)` between series `(stay, step, channel)`; whoever undid the disguise as well as
can be would find them. What is planted as a control is the same disguise, put on members. Numbers that only tell yes
from no are left out of all views: they agree with half of the people by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from pipeline.audit.sets.distances import Nearest, nearest

HALF: Final = "the half that agrees"
BLOCK: Final = 4_000_000  # numbers held at once
MIN_NUMBERS: Final = 5  # of a record: two are spent on a scale and a shift
MIN_CHANNELS: Final = 4  # of which a half is looked for
MIN_STEPS: Final = 4  # of a series whose shape tells something
MIN_ROWS: Final = 20  # of a set that is fitted column by column
FACTOR: Final = 1.1  # of the planted copies
FLAT: Final = 1e-3  # of a channel's spread: a series that varies less has no shape
FITS: Final = 4
MOST_STRETCHED: Final = 2.0  # of a column, by one fit: a set does not shrink onto one record
RESOLUTION_ROWS: Final = 400

Compare = Callable[[np.ndarray, np.ndarray], np.ndarray]


@final
@dataclass(frozen=True)
class View:
    """`prepare` is done once for all rows, `compare` for a block of them; rows lie on the axis before the last."""

    prepare: Callable[[np.ndarray], np.ndarray]
    compare: Compare


@final
@dataclass(frozen=True, eq=False)
class Space:
    """Where records lie, `(channel,)` each; `zero` is where the source's zero is, `middle` the mean of members."""

    free: np.ndarray  # channels that hold more than yes or no
    zero: np.ndarray
    middle: np.ndarray
    spread: np.ndarray
    resolution: np.ndarray  # how finely values are told apart

    @property
    def agreed(self) -> float:
        """How far apart `_half` says that two records are whose halves are the same."""
        return float(np.sqrt((self.resolution[self.free] ** 2).mean() / 12)) if self.free.size else 0.0


def space_of(members: np.ndarray, holdout: np.ndarray, zero: np.ndarray | None) -> Space:
    """From members and strangers `(stay, step, channel)`; how fine values are is read off both."""
    both = np.concatenate([members[:RESOLUTION_ROWS], holdout[:RESOLUTION_ROWS]]).astype(np.float64)
    columns = both.reshape(-1, both.shape[2])
    values = [np.unique(column) for column in columns.T]
    gaps = [float(np.quantile(np.diff(one), 0.05)) if len(one) > 1 else 1.0 for one in values]
    spread = holdout.std(axis=(0, 1), dtype=np.float64)
    return Space(
        free=np.flatnonzero([len(one) > 2 and wide > 0 for one, wide in zip(values, spread, strict=True)]),
        zero=np.zeros(both.shape[2]) if zero is None else np.asarray(zero, np.float64),
        middle=members.mean(axis=(0, 1), dtype=np.float64),
        spread=np.maximum(spread, 1e-12),
        resolution=np.array(gaps) / np.maximum(spread, 1e-12),
    )


def views(space: Space, steps: int) -> Mapping[str, View]:
    """The views that records of this form allow."""
    channels = len(space.free)
    found: dict[str, View] = {}
    if channels * steps >= MIN_NUMBERS:
        found["one scale"] = View(lambda rows: _unit(_from_zero(rows, space)), _sines)
        found["one scale and shift"] = View(lambda rows: _unit(_centred(rows, space)), _sines)
    if channels >= MIN_CHANNELS:
        found[HALF] = View(lambda rows: _by_channel(rows, space), lambda a, b: _half(a, b, space))
    if channels and steps >= MIN_STEPS:
        found["shape of every channel"] = View(lambda rows: _moves(_by_channel(rows, space)), _shapes)
    return found


def disguised(
    rows: np.ndarray, strangers: np.ndarray, space: Space, rng: np.random.Generator, halves: bool
) -> dict[str, np.ndarray]:
    """Members as one might hide them: scaled from zero, mirrored, shifted, or (`halves`) half of their columns only."""
    free = space.free
    scaled, mirrored, shifted = rows.copy(), rows.copy(), rows.copy()
    scaled[..., free] = FACTOR * (rows[..., free] - space.zero[free]) + space.zero[free]
    mirrored[..., free] = 2 * space.middle[free] - rows[..., free]
    shifted[..., free] = rows[..., free] + 0.5 * space.spread[free]
    planted = (
        {"scaled": scaled, "mirrored": mirrored, "shifted": shifted} if free.size * rows.shape[1] >= MIN_NUMBERS else {}
    )
    if halves and free.size >= MIN_CHANNELS:
        half = strangers[rng.integers(len(strangers), size=len(rows))].copy()
        kept = rng.permutation(free)[: (len(free) + 1) // 2]
        half[..., kept] = rows[..., kept]
        planted["half of the columns"] = half
    return planted


def looked(view: View, queries: np.ndarray, prepared: np.ndarray) -> Nearest:
    """The two nearest members of each query in a view, in blocks of rows; members as the view prepares them."""
    own = view.prepare(queries)
    rows = max(1, BLOCK // (prepared.shape[-2] * queries.shape[2]))
    blocks = (own[..., at : at + rows, :] for at in range(0, len(queries), rows))
    return joined([nearest(view.compare(block, prepared)) for block in blocks])


def joined(parts: Sequence[Nearest]) -> Nearest:
    """Parts of the queries, as one."""
    together = zip(*((part.first, part.second, part.index) for part in parts), strict=True)
    return Nearest(*(np.concatenate(column) for column in together))


def may_align(space: Space, steps: int, rows: int) -> bool:
    """Whether `aligned` tells anything: enough columns and rows to fit; series have their shapes instead."""
    return steps < MIN_STEPS and len(space.free) >= MIN_CHANNELS and rows >= MIN_ROWS


def aligned(queries: np.ndarray, members: np.ndarray, space: Space) -> Nearest:
    """Each side in its own units, then a scale and a shift of every column fitted to the pairs that match, in turn.

    The whole set shares the fit, upright or upside down: a set that is one table in other units comes to lie on it.
    """
    own, theirs = (_own_units(rows[..., space.free].astype(np.float64)) for rows in (queries, members))
    found = [_fitted(sign * own, theirs) for sign in (1.0, -1.0)]
    return min(found, key=lambda item: float(np.median(item.first)))


def _fitted(own: np.ndarray, theirs: np.ndarray) -> Nearest:
    found = _looked_flat(own, theirs)
    for _ in range(FITS):
        told = np.argsort(found.first / np.maximum(found.second, 1e-12), kind="stable")[
            : max(len(own) // 2, MIN_ROWS // 2)
        ]
        pairs = theirs[found.index[told]]
        here, there = own[told].mean(axis=(0, 1)), pairs.mean(axis=(0, 1))
        apart, wanted = own[told] - here, pairs - there
        wide, sign = (apart**2).sum(axis=(0, 1)), np.sign((apart * wanted).sum(axis=(0, 1)))
        slope = np.sqrt(np.divide((wanted**2).sum(axis=(0, 1)), wide, out=np.ones_like(wide), where=wide > 0))
        slope = np.where(sign < 0, -1, 1) * np.clip(slope, 1 / MOST_STRETCHED, MOST_STRETCHED)
        own = (own - here) * slope + there
        found = _looked_flat(own, theirs)
    return found


def _looked_flat(own: np.ndarray, theirs: np.ndarray) -> Nearest:
    return nearest(_distances(own.reshape(len(own), -1), theirs.reshape(len(theirs), -1)))


def _own_units(rows: np.ndarray) -> np.ndarray:
    wide = rows.std(axis=(0, 1))
    return np.asarray((rows - np.median(rows, axis=(0, 1))) / np.where(wide > 0, wide, 1.0))


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    square = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * (a @ b.T)
    return np.asarray(np.sqrt(np.maximum(square, 0) / a.shape[1]))


def _from_zero(rows: np.ndarray, space: Space) -> np.ndarray:
    free = space.free
    return np.asarray(((rows[..., free] - space.zero[free]) / space.spread[free]).reshape(len(rows), -1))


def _centred(rows: np.ndarray, space: Space) -> np.ndarray:
    free = space.free
    flat = ((rows[..., free] - space.middle[free]) / space.spread[free]).reshape(len(rows), -1)
    return np.asarray(flat - flat.mean(axis=1, keepdims=True))


def _sines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of the angle between lines through the origin, from unit rows: what a scale of either sign leaves."""
    return np.asarray(np.sqrt(np.maximum(1 - (a @ b.T) ** 2, 0)))


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-12))


def _by_channel(rows: np.ndarray, space: Space) -> np.ndarray:
    """`(channel, row, step)`, about the middle in units of the spread."""
    free = space.free
    scaled = (rows[..., free] - space.middle[free]) / space.spread[free]
    return np.ascontiguousarray(np.moveaxis(scaled, 2, 0), dtype=np.float32)


def _half(a: np.ndarray, b: np.ndarray, space: Space) -> np.ndarray:
    """Over the half of the channels that agree best, which is another half for each pair.

    Two values that are alike are as far apart as values can be told apart: coarse columns are no evidence.
    """
    square = np.empty((a.shape[1], b.shape[1], len(a)), np.float32)
    for place, channel in enumerate(space.free):
        one, other = a[place], b[place]
        apart = (one - other.T) ** 2 if one.shape[1] == 1 else _distances(one, other) ** 2
        square[..., place] = apart + space.resolution[channel] ** 2 / 12
    kept = (len(a) + 1) // 2
    square.partition(kept - 1, axis=2)
    return np.asarray(np.sqrt(square[..., :kept].mean(axis=2)))


def _shapes(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Over the channels in which the query moves: what a scale and a shift of each channel leave, of either sign."""
    left = np.zeros((a.shape[1], b.shape[1]), np.float32)
    moving = np.zeros((a.shape[1], 1), np.float32)
    for one, other in zip(a, b, strict=True):
        moves = (one != 0).any(axis=1, keepdims=True)
        left += moves * (1 - np.minimum((one @ other.T) ** 2, 1))
        moving += moves
    return np.asarray(np.sqrt(np.divide(left, moving, out=np.ones_like(left), where=moving > 0)))


def _moves(channels: np.ndarray) -> np.ndarray:
    """Unit series about their own mean; zero where a series hardly moves."""
    centred = channels - channels.mean(axis=2, keepdims=True)
    return _unit(np.where(centred.std(axis=2, keepdims=True) < FLAT, np.float32(0), centred))
