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
from scipy import stats

from pipeline.audit.sets.distances import Nearest, nearest

HALF: Final = "the half that agrees"
ANY_STEPS: Final = "order of steps forgotten"
ANY_COLUMNS: Final = "order of columns forgotten"
MIRRORS: Final = "mirrors forgotten"
ONE_DIGIT: Final = "one digit"
ONE_CHANNEL: Final = "shape of one channel"
HALF_TIME: Final = "half of the time"
BLOCK: Final = 4_000_000  # numbers held at once
MIN_NUMBERS: Final = 5  # of a record: two are spent on a scale and a shift
MIN_CHANNELS: Final = 4  # of which a half is looked for
MIN_STEPS: Final = 4  # of a series whose shape tells something
MIN_RANKED: Final = 12  # of one whose ranks alone do: four steps have 24 orders, and many records share one
FLAT: Final = 1e-3  # of a channel's spread: a series that varies less has no shape
TURNS: Final = 6  # values in time of a channel whose shape by itself tells one person from another
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
    unit: np.ndarray  # of the source, in one of the records'
    middle: np.ndarray
    curve: np.ndarray  # `(step, channel)`, the same at each step
    spread: np.ndarray
    resolution: np.ndarray  # how finely values are told apart

    @property
    def agreed(self) -> float:
        """How far apart `_half` says that two records are whose halves are the same."""
        return float(np.sqrt((self.resolution[self.free] ** 2).mean() / 12)) if self.free.size else 0.0


def space_of(members: np.ndarray, holdout: np.ndarray, zero: np.ndarray | None, unit: np.ndarray) -> Space:
    """From members and strangers `(stay, step, channel)`; how fine values are is read off both."""
    both = np.concatenate([members[:RESOLUTION_ROWS], holdout[:RESOLUTION_ROWS]]).astype(np.float64)
    columns = both.reshape(-1, both.shape[2])
    values = [np.unique(column) for column in columns.T]
    gaps = [float(np.quantile(np.diff(one), 0.05)) if len(one) > 1 else 1.0 for one in values]
    spread = holdout.std(axis=(0, 1), dtype=np.float64)
    return Space(
        free=np.flatnonzero([len(one) > 2 and wide > 0 for one, wide in zip(values, spread, strict=True)]),
        zero=np.zeros(both.shape[2]) if zero is None else np.asarray(zero, np.float64),
        unit=np.asarray(unit, np.float64),
        middle=members.mean(axis=(0, 1), dtype=np.float64),
        curve=members.mean(axis=0, dtype=np.float64),
        spread=np.maximum(spread, 1e-12),
        resolution=np.array(gaps) / np.maximum(spread, 1e-12),
    )


def views(space: Space, steps: int) -> Mapping[str, View]:
    """The views that records of this form allow."""
    channels = len(space.free)
    found: dict[str, View] = {}
    if channels * steps >= MIN_NUMBERS:
        found["one scale"] = View(lambda rows: _unit(np.abs(_from_zero(rows, space))), _sines)
        found["one scale and shift"] = View(lambda rows: _unit(_centred(rows, space)), _sines)
        if steps < MIN_STEPS:
            found[ONE_DIGIT] = View(lambda rows: _one_digit(rows, space), distances)
            found[MIRRORS] = View(lambda rows: _unit(np.abs(_about_middle(rows, space))), _sines)
        found[ANY_COLUMNS] = View(lambda rows: _in_order(rows, space), distances)
    if channels >= MIN_CHANNELS:
        found[HALF] = View(lambda rows: _by_channel(rows, space), lambda a, b: _half(a, b, space))
    if channels and steps >= MIN_STEPS:
        found[ANY_STEPS] = View(lambda rows: _unit(_sorted_steps(rows, space)), _sines)
        found[ONE_CHANNEL] = View(lambda rows: _turning(_by_channel(rows, space)), _one_shape)
        if steps >= MIN_RANKED:
            found["ranks in every channel"] = View(lambda rows: _moves(_ranks(_by_channel(rows, space))), _shapes)
        else:
            found["shape of every channel"] = View(lambda rows: _moves(_by_channel(rows, space)), _shapes)
        found[HALF_TIME] = View(lambda rows: _half_times(rows, space), _one_half)
    return found


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


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    square = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * (a @ b.T)
    return np.asarray(np.sqrt(np.maximum(square, 0) / a.shape[1]))


def _from_zero(rows: np.ndarray, space: Space) -> np.ndarray:
    free = space.free
    return np.asarray(((rows[..., free] - space.zero[free]) / space.spread[free]).reshape(len(rows), -1))


def _about_middle(rows: np.ndarray, space: Space) -> np.ndarray:
    free = space.free
    return np.asarray(((rows[..., free] - space.curve[:, free]) / space.spread[free]).reshape(len(rows), -1))


def _centred(rows: np.ndarray, space: Space) -> np.ndarray:
    flat = _about_middle(rows, space)
    return np.asarray(flat - flat.mean(axis=1, keepdims=True))


def _in_order(rows: np.ndarray, space: Space) -> np.ndarray:
    """What a step holds, by size in the source's units, of which the logarithm makes small and large ones count."""
    return np.asarray(np.sort(np.arcsinh((rows - space.zero) * space.unit)).reshape(len(rows), -1))


def _one_digit(rows: np.ndarray, space: Space) -> np.ndarray:
    """In the source's units to one digit: what a rounded set and the records it was rounded from have in common."""
    free = space.free
    raw = ((rows - space.zero) * space.unit)[..., free]
    digit = 10 ** np.floor(np.log10(np.maximum(np.abs(raw), 1e-9)))
    return np.asarray((np.round(raw / digit) * digit / (space.unit * space.spread)[free]).reshape(len(rows), -1))


def _sorted_steps(rows: np.ndarray, space: Space) -> np.ndarray:
    return _from_zero(np.sort(rows, axis=1), space)


def _half_times(rows: np.ndarray, space: Space) -> np.ndarray:
    """`(half, row, number)`."""
    parts = np.array_split(rows[:, : rows.shape[1] // 2 * 2], 2, axis=1)
    return np.stack([_from_zero(part, space) for part in parts]).astype(np.float32)


def _one_half(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.minimum(*(distances(one, other) for one, other in zip(a, b, strict=True))))


def _ranks(channels: np.ndarray) -> np.ndarray:
    """Of the values of each series among themselves: what a monotone function of a channel leaves."""
    return np.asarray(stats.rankdata(channels, axis=2) / channels.shape[2], np.float32)


def _turning(channels: np.ndarray) -> np.ndarray:
    """As `_moves`, of series that hold enough values; zero of others, as anybody may be alike in these."""
    values = (np.diff(np.sort(channels, axis=2), axis=2) > FLAT).sum(axis=2, keepdims=True) + 1
    return _moves(np.where(values < TURNS, np.float32(0), channels))


def _one_shape(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """In the channel that agrees best, another one for each pair."""
    most = np.zeros((a.shape[1], b.shape[1]), np.float32)
    for one, other in zip(a, b, strict=True):
        np.maximum(most, np.abs(one @ other.T), out=most)
    return np.asarray(np.sqrt(np.maximum(1 - np.minimum(most, 1) ** 2, 0)))


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
        apart = (one - other.T) ** 2 if one.shape[1] == 1 else distances(one, other) ** 2
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
