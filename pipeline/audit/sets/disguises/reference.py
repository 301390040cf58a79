"""Members in every view that records of their form allow, and what strangers reach there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, final

import numpy as np

from pipeline.audit.multiplicity import p_of_hits
from pipeline.audit.sets.disguises.fitted import aligned, may_align
from pipeline.audit.sets.disguises.pairs import MOST_ROWS, PAIRED, paired, pairs_of
from pipeline.audit.sets.disguises.strangeness import Usual, ratio, usual
from pipeline.audit.sets.disguises.views import (
    ANY_COLUMNS,
    ANY_STEPS,
    HALF,
    HALF_TIME,
    MIN_STEPS,
    MIRRORS,
    ONE_CHANNEL,
    ONE_DIGIT,
    Space,
    View,
    joined,
    looked,
    views,
)
from pipeline.audit.sets.distances import EXACT, Nearest, lag_distances, nearest

NULL_QUERIES: Final = 600  # holdout records that set how close to one record a stranger gets
NULL_IN_DISGUISE: Final = 300  # of them, in each view that undoes a disguise
NULL_OF_TABLES: Final = 2000  # of either, where a record is no series and costs little
FAMILY: Final = 0.02  # false alarms of all views together; half of it is the plain view's
UNDONE: Final = 0.01  # of the second nearest distance: a scale that is undone leaves what rounding leaves
AGREED: Final = 0.05  # likewise: what is left where a half agrees as finely as columns are recorded
TELLS: Final = 0.8  # of halves (or steps, or pairs) that are the same must be flagged, or columns are too coarse
PLAIN: Final = "as it is"
ALIGNED: Final = "every column fitted"
SHARP: Final = {ANY_STEPS, ANY_COLUMNS, MIRRORS, ONE_DIGIT, ONE_CHANNEL, HALF_TIME, PAIRED}
SHARP_SHARE: Final = 0.1
NULL_OF_PAIRS: Final = 2  # sets of strangers


@final
@dataclass(frozen=True, eq=False)
class Reference:
    """Members and strangers, scaled; in each view how to look at a set, and what strangers reach."""

    members: np.ndarray
    holdout: np.ndarray
    looks: dict[str, Callable[[np.ndarray], Nearest]]
    usual: dict[str, Usual]
    agreed: float  # between records whose halves are the same

    def told(self, n: int) -> tuple[str, ...]:
        """Of the views for one disguise alone: those in which of n samples the very disguise would be flagged."""
        return tuple(name for name in self._sought if name not in self.too_coarse(n))

    def too_coarse(self, n: int) -> tuple[str, ...]:
        """Views in which columns are so coarse that of n samples not even the very disguise would be flagged."""
        exact = {HALF: self.agreed}
        return tuple(
            name for name in self._sought if self.usual[name].tells(exact.get(name, 0.0), self.level(name), n) < TELLS
        )

    @property
    def _sought(self) -> tuple[str, ...]:
        return tuple(name for name in (HALF, ANY_STEPS, PAIRED) if name in self.usual)

    @property
    def member_share(self) -> float:
        """Of all records."""
        return len(self.members) / (len(self.members) + len(self.holdout))

    def level(self, view: str) -> float:
        """The plain view's half of the family; of the other, equal parts of a tenth where a disguise leaves nothing."""
        if view == PLAIN:
            return FAMILY / 2
        alike = [name for name in self.usual if name != PLAIN and (name in SHARP) == (view in SHARP)]
        return FAMILY / 2 * (SHARP_SHARE if view in SHARP else 1 - SHARP_SHARE) / len(alike)


@final
@dataclass(frozen=True, eq=False)
class Found:
    """Of each view: which samples stand closer to one member than strangers do, and their ratios, `(sample,)`."""

    flagged: dict[str, np.ndarray]
    ratios: dict[str, np.ndarray]
    nearest_members: int  # distinct members that are the nearest record of a sample
    nearest_records: int  # distinct records that are
    n: int
    alone: np.ndarray  # `(sample,)`: its nearest member has no twin
    to_member: np.ndarray
    to_holdout: np.ndarray

    @property
    def copied(self) -> np.ndarray:
        """`(sample,)`: in any view."""
        return np.asarray(np.any(list(self.flagged.values()), axis=0))

    @property
    def copies(self) -> int:
        """How many."""
        return int(self.copied.sum())

    @property
    def share(self) -> float:
        """Of those that can tell anything: a copy of one of twins identifies nobody."""
        return float(self.copied[self.alone].mean()) if self.alone.any() else 0.0

    def strangers(self, reference: Reference) -> tuple[int, int]:
        """Strangers that come as near as a sample that was flagged does, in a view in which one was; of how many."""
        told = {name: reference.usual[name].ratios for name, rows in self.flagged.items() if rows.any()}
        n = min((len(null) for null in told.values()), default=len(reference.usual[PLAIN].ratios))
        near = np.zeros(n, bool)
        for name, null in told.items():
            near |= null[:n] <= self.ratios[name][self.flagged[name]].max()
        return int(near.sum()), n

    def p_value(self, reference: Reference) -> float:
        """Samples flagged against strangers as near (Fisher's exact test); a verbatim copy is no chance.

        Where no stranger is a single near copy is weak evidence, however strange it looks: p is the share of samples
        among all that were looked at.
        """
        if not self.copies:
            return 1.0
        if bool((self.flagged[PLAIN] & (self.to_member < EXACT) & (self.to_holdout >= EXACT)).any()):
            return 0.0
        return p_of_hits(self.copies, self.n, *self.strangers(reference))


def reference(members: np.ndarray, strangers: np.ndarray, space: Space, n: int) -> Reference:
    """For sets of n samples; members and strangers in the channels' scale."""
    looks: dict[str, Callable[[np.ndarray], Nearest]] = {PLAIN: partial(_plain, members)}
    looks |= {
        name: partial(_seen, view, view.prepare(members)) for name, view in views(space, members.shape[1]).items()
    }
    enough = NULL_OF_TABLES if members.shape[1] < MIN_STEPS else 0
    some, more = strangers[: max(NULL_IN_DISGUISE, enough)], strangers[: max(NULL_QUERIES, enough)]
    null = {name: look(more if name == PLAIN else some) for name, look in looks.items()}
    if may_align(space, members.shape[1], min(n, len(some))):
        looks[ALIGNED] = partial(aligned, members=members, space=space)
        some = some[:NULL_IN_DISGUISE]
        parts = np.array_split(some, max(1, len(some) // n))  # sets of as many rows, for each is fitted by itself
        null[ALIGNED] = joined([aligned(part, members, space) for part in parts])
    together = pairs_of(members, space)
    if together is not None and len(some) >= MOST_ROWS:
        looks[PAIRED] = partial(paired, known=together, space=space)
        parts = [some[at : at + MOST_ROWS] for at in range(0, len(some) - MOST_ROWS + 1, MOST_ROWS)][:NULL_OF_PAIRS]
        null[PAIRED] = joined([paired(part, together, space) for part in parts])
    most = {name: {PLAIN: 1.0, HALF: AGREED}.get(name, UNDONE) for name in null}
    judged = {name: usual(item, name not in (ALIGNED, PAIRED), most[name]) for name, item in null.items()}
    return Reference(members, strangers, looks, judged, space.agreed)


def found_among(samples: np.ndarray, known: Reference, n: int) -> Found:
    """How near samples come; each is judged as one of n."""
    near = _looked(samples, known)
    to_others = lag_distances(samples, known.holdout)
    to_holdout = to_others.min(axis=1)
    inside = near[PLAIN].first < to_holdout
    members = len(np.unique(near[PLAIN].index[inside]))
    return Found(
        flagged=_flagged(near, known, n),
        ratios={name: ratio(item) for name, item in near.items()},
        nearest_members=members,
        nearest_records=members + len(np.unique(to_others.argmin(axis=1)[~inside])),
        n=len(samples),
        alone=near[PLAIN].second >= EXACT,
        to_member=near[PLAIN].first,
        to_holdout=to_holdout,
    )


def share_found(samples: np.ndarray, known: Reference, n: int) -> float:
    """Of samples that are flagged in any view, each as one of n."""
    return float(np.any(list(_flagged(_looked(samples, known), known, n).values()), axis=0).mean())


def _looked(samples: np.ndarray, known: Reference) -> dict[str, Nearest]:
    return {name: look(samples) for name, look in known.looks.items()}


def _flagged(near: dict[str, Nearest], known: Reference, n: int) -> dict[str, np.ndarray]:
    return {name: known.usual[name].flagged(item, known.level(name), n) for name, item in near.items()}


def _plain(members: np.ndarray, rows: np.ndarray) -> Nearest:
    return nearest(lag_distances(rows, members))


def _seen(view: View, prepared: np.ndarray, rows: np.ndarray) -> Nearest:
    return looked(view, rows, prepared)
