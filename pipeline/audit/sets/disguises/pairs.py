"""A few rows of a table in other units, each column by a factor of its own: what two rows have to each other stays.

One row tells nothing, as any row is any record times some factors. But where two rows are two members times the same
factors, the ratios of their values are those of the members, column by column and whatever the signs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np

from pipeline.audit.sets.disguises.views import MIN_STEPS, Space
from pipeline.audit.sets.distances import EXACT, Nearest

PAIRED: Final = "ratios of two rows"
MIN_COLUMNS: Final = 6  # that are never zero: fewer agree by chance in some of a billion pairs of pairs
MOST_MEMBERS: Final = 1200  # whose pairs are kept
MOST_ROWS: Final = 80  # of a set whose pairs are looked for
APART: Final = 0.5  # root mean square log ratio of two rows in its usual size: rows that are alike match all that are
KEY: Final = 0.004  # how far off a pair may be in the finest column to be looked at further
SECOND: Final = 0.04  # and in the next
TINY: Final = 1e-9


@final
@dataclass(frozen=True, eq=False)
class Pairs:
    """Log ratios of pairs of members in their usual size, in order of the finest column, which is the first."""

    columns: np.ndarray  # of the records, the finest first
    size: np.ndarray
    logs: np.ndarray  # `(member, column)`
    one: np.ndarray  # `(pair,)` places of members
    other: np.ndarray
    key: np.ndarray
    second: np.ndarray


def pairs_of(members: np.ndarray, space: Space) -> Pairs | None:
    """Of members `(row, step, channel)`; None where too few columns are no zero, or records are series."""
    if members.shape[1] >= MIN_STEPS:
        return None
    logs = _logs(members[kept(len(members))], space)
    usable = np.flatnonzero(np.isfinite(logs).all(axis=0))
    if len(usable) < MIN_COLUMNS:
        return None
    values = np.array([len(np.unique(column)) for column in logs[:, usable].T])
    columns = usable[np.argsort(-values, kind="stable")]
    logs = logs[:, columns]
    size = np.sqrt(2) * np.maximum(logs.std(axis=0), TINY)
    logs = (logs / size).astype(np.float32)
    one, other = (np.asarray(place, np.int16) for place in np.nonzero(~np.eye(len(logs), dtype=bool)))
    key = logs[one, 0] - logs[other, 0]
    order = np.argsort(key)
    one, other = one[order], other[order]
    return Pairs(columns, size, logs, one, other, key[order], logs[one, 1] - logs[other, 1])


def kept(n_members: int) -> np.ndarray:
    """Places of the members whose pairs are kept."""
    return np.linspace(0, n_members - 1, min(n_members, MOST_MEMBERS)).astype(int)


def paired(queries: np.ndarray, known: Pairs, space: Space) -> Nearest:
    """How far each row, with the one other that suits best, is from some pair of members; in units of one.

    Rows beyond `MOST_ROWS` are not looked at, and none is near where no pair is.
    """
    first, index = np.ones(len(queries)), np.zeros(len(queries), np.intp)
    logs = (_logs(queries[:MOST_ROWS], space)[:, known.columns] / known.size).astype(np.float32)
    left, right = np.triu_indices(len(logs), 1)
    ratios = logs[left] - logs[right]
    told = np.sqrt((ratios**2).mean(axis=1)) >= APART  # false where a value is zero
    left, right, ratios = left[told], right[told], ratios[told]
    begin, end = (np.searchsorted(known.key, ratios[:, 0] + step) for step in (-KEY, KEY))
    for row, other, ratio, at, to in zip(left, right, ratios, begin, end, strict=True):
        near = at + np.flatnonzero(np.abs(known.second[at:to] - ratio[1]) <= SECOND)
        if not near.size:
            continue
        apart = known.logs[known.one[near]] - known.logs[known.other[near]] - ratio
        square = np.einsum("ij,ij->i", apart, apart)
        best = int(square.argmin())
        distance = float(np.sqrt(square[best] / len(ratio)))
        for place, member in ((row, known.one[near[best]]), (other, known.other[near[best]])):
            if distance < first[place]:
                first[place], index[place] = distance, member
    return Nearest(first, np.ones(len(queries)), index)


def _logs(rows: np.ndarray, space: Space) -> np.ndarray:
    """`(row, column)`, of the distance from the source's zero; not finite where it is none."""
    flat = np.abs((rows - space.zero)[..., space.free].reshape(len(rows), -1).astype(np.float64))
    return np.log(np.where(flat > EXACT, flat, np.nan))
