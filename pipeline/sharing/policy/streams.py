"""A stream on the ledger: one reservation for all its nights, and who entered on which night.

The line `stream` holds the terms and the events, priced once; a line `night` holds who entered and the digest of what
they added. What was added is frozen in a file before the line, and the line is on the disk before the night's noise is
drawn: a killed night, an old night asked again and a record corrected later all meet the same numbers and the same
noise. People enter by their own history alone, so leaving somebody out tells nothing of anybody else.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from pipeline.core.errors import BudgetError, EnvironmentProblem
from pipeline.core.files.chained import Chain
from pipeline.core.files.owner import read_owner_file, write_owner_file
from pipeline.sharing.policy.budget import Budget
from pipeline.sharing.policy.ledger import (
    FOLDER,
    anchor,
    asked_in_period,
    asked_of,
    read_ledger,
    writing_ledger,
)
from pipeline.sharing.policy.ledger_lines import NIGHT, STREAM, composed_epsilon
from pipeline.sharing.policy.marks import keep_marks, mark_of, read_marks

WHAT: Final = "what people added on a night of a stream"


@final
@dataclass(frozen=True)
class StreamTerms:
    """What the ledger keeps people to; the factor and the clip are in the stream's name."""

    horizon: int  # nights
    entries: int  # of a person, at most
    separation: int  # nights from one entry of a person to the next, at least
    unit: str  # "subject" or "stay"


@final
@dataclass(frozen=True, repr=False)
class Entered:
    """A night on the ledger. Ids never leave the site; the counts are the site's own."""

    night: int
    people: int
    again: bool  # it was there already: nobody entered, and nothing was made anew
    beyond_cap: int  # left out for good
    too_soon: int  # left out tonight
    over_budget: int  # left out while their other releases count


@final
@dataclass(frozen=True, repr=False)
class Frozen:
    """What was added on a night, `(entry,)`, and the digest of all nights up to it: what its noise is named by."""

    night: int
    increment: np.ndarray
    digest: str


Increment = Callable[[Mapping[str, int]], np.ndarray]
"""Whom the night takes in, id -> which of their stays, counted from 0 -> what they add, `(entry,)` float64."""


def reserve_stream(
    workspace: Path, stream: str, events: Sequence[Mapping[str, Any]], terms: StreamTerms, budget: Budget, policy: str
) -> None:
    """Put a stream on the ledger, or find it there; other terms are another stream, under another name.

    Raises:
        BudgetError: the budget does not cover the stream for anybody, or the name is known with other terms.
        EnvironmentProblem: ledger or log is damaged, or cannot be written.
    """
    with writing_ledger(workspace) as ledger:
        known = _line(ledger.chain, stream)
        told = {**asdict(terms), "events": [dict(event) for event in events]}
        if known is not None:
            if any(known[name] != value for name, value in told.items()):
                raise BudgetError("nothing was drawn: the ledger holds a stream of this name on other terms")
            return
        spent = composed_epsilon(events, budget.delta)
        if spent > budget.epsilon:
            raise BudgetError(
                f"nothing was drawn: all nights of this stream come to epsilon {spent:.4g} at delta {budget.delta:g} "
                f"for one {_person(terms.unit)}, above the {budget.epsilon:g} that policy {policy} allows"
            )
        ledger.append(STREAM, {**told, "query": stream, "policy": policy, "budget": asdict(budget)})
        anchor(workspace, ledger.chain)


def enter(
    workspace: Path, stream: str, night: int, waiting: Mapping[str, int], budget: Budget, increment: Increment
) -> Entered:
    """Let people in whose records are complete, and freeze what they add; when this returns, noise may be drawn.

    Args:
        waiting: id -> how many stays are complete, those of earlier nights among them.

    Raises:
        BudgetError: no such stream, a night outside its horizon, or one that later nights have overtaken.
        EnvironmentProblem: ledger or log is damaged, or cannot be written.
    """
    with writing_ledger(workspace) as ledger:
        terms, nights = _terms(ledger.chain, stream), _nights(ledger.chain, stream)
        if not 1 <= night <= terms.horizon:
            raise BudgetError(
                f"nothing was drawn: night {night} lies outside the stream, which has {terms.horizon} nights; "
                "another stream is another reservation"
            )
        if night in nights:
            marks = read_marks(workspace / FOLDER, [nights[night]["cohort"]])
            return Entered(night, 0 if marks is None else len(marks), True, 0, 0, 0)
        if nights and night < max(nights):
            raise BudgetError(
                f"nothing was drawn: night {night} was not asked in its time, and night {max(nights)} has been "
                "answered: no stay can enter a past night"
            )
        admitted, left_out = _admitted(workspace, ledger.chain, stream, night, waiting, budget)
        added = np.ascontiguousarray(increment(admitted), np.float64)
        cohort = keep_marks(workspace / FOLDER, _marks(ledger.chain, admitted))
        facts = {"stream": stream, "night": night, "cohort": cohort, "added": _freeze(workspace, added)}
        ledger.append(NIGHT, facts)
        anchor(workspace, ledger.chain)
        return Entered(night, len(admitted), False, **left_out)


def frozen_nights(workspace: Path, stream: str, night: int) -> tuple[Frozen, ...]:
    """What was added on each night on the ledger up to `night`, in order; a night that is missing added nothing.

    Raises:
        BudgetError: what was added on one is lost or was changed, or as `read_ledger`. EnvironmentProblem: likewise.
    """
    found, digest = [], sha256(stream.encode())
    for number, line in sorted(_nights(read_ledger(workspace), stream).items()):
        if number > night:
            break
        digest.update(f"{number} {line['added']}".encode())
        found.append(Frozen(number, _added(workspace, number, line["added"]), digest.hexdigest()))
    return tuple(found)


def _admitted(
    workspace: Path, ledger: Chain, stream: str, night: int, waiting: Mapping[str, int], budget: Budget
) -> tuple[dict[str, int], dict[str, int]]:
    """Who enters, with which of their stays, and how many do not, by reason."""
    terms, line = _terms(ledger, stream), _line(ledger, stream)
    assert line is not None
    names = sorted(waiting)
    marks = np.array([mark_of(ledger, name) for name in names], np.uint64)
    entered, last = _history(workspace, ledger, stream, marks)
    more = np.array([waiting[name] for name in names], int) > entered
    capped = more & (entered >= terms.entries)
    soon = more & ~capped & (entered > 0) & (night - last < terms.separation)
    free = more & ~capped & ~soon
    _, first, same = np.unique(marks, return_index=True, return_inverse=True)
    free &= first[same] == np.arange(len(names))  # two ids of one mark are one person, and enter once
    covered = _covered(workspace, ledger, stream, marks, budget, line["events"])
    taken = {names[place]: int(entered[place]) for place in np.flatnonzero(free & covered)}
    counts = {"beyond_cap": capped, "too_soon": soon, "over_budget": free & ~covered}
    return taken, {reason: int(which.sum()) for reason, which in counts.items()}


def _history(workspace: Path, ledger: Chain, stream: str, marks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often each of `marks` has entered, and on which night last; where marks are lost, everybody did."""
    known, numbers, lost = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], [0]
    for number, line in _nights(ledger, stream).items():
        there = read_marks(workspace / FOLDER, [line["cohort"]])
        if there is None:
            lost.append(number)
            continue
        known.append(there)
        numbers.append(np.full(len(there), number))
    marked, on = np.concatenate(known), np.concatenate(numbers)
    order = np.lexsort((on, marked))
    first, beyond = (np.searchsorted(marked[order], marks, side) for side in ("left", "right"))
    last = np.append(on[order], 0)[np.where(beyond > first, beyond - 1, -1)]
    return beyond - first + len(lost) - 1, np.maximum(last, max(lost))


def _covered(
    workspace: Path,
    ledger: Chain,
    stream: str,
    marks: np.ndarray,
    budget: Budget,
    events: Sequence[Mapping[str, Any]],
) -> np.ndarray:
    """Whose other queries of the period leave room for the stream, `(person,)`."""
    others = [asked for asked in asked_in_period(workspace, ledger, budget) if asked.name != stream]
    table = asked_of(workspace, others, marks)
    patterns, which = np.unique(table, axis=0, return_inverse=True)
    fits = [
        composed_epsilon(
            [*events, *(event for asked, there in zip(others, row, strict=True) if there for event in asked.events)],
            budget.delta,
        )
        <= budget.epsilon
        for row in patterns
    ]
    return np.array(fits, bool)[which.reshape(-1)]


def _marks(ledger: Chain, names: Mapping[str, int]) -> np.ndarray:
    return np.unique(np.array([mark_of(ledger, name) for name in names], np.uint64))


def _line(ledger: Chain, stream: str) -> Mapping[str, Any] | None:
    return next((line for line in ledger.entries if line["what"] == STREAM and line["query"] == stream), None)


def _terms(ledger: Chain, stream: str) -> StreamTerms:
    line = _line(ledger, stream)
    if line is None:
        raise BudgetError("nothing was drawn: nobody reserved this stream")
    return StreamTerms(**{name: line[name] for name in StreamTerms.__annotations__})


def _nights(ledger: Chain, stream: str) -> dict[int, Mapping[str, Any]]:
    return {line["night"]: line for line in ledger.entries if line["what"] == NIGHT and line["stream"] == stream}


def _freeze(workspace: Path, added: np.ndarray) -> str:
    """Write what was added under its digest, for the owner alone; returns the digest."""
    stream = io.BytesIO()
    np.save(stream, added, allow_pickle=False)
    data = stream.getvalue()
    name = sha256(data).hexdigest()
    if not _added_path(workspace, name).exists():
        write_owner_file(_added_path(workspace, name), data, WHAT)
    return name


def _added(workspace: Path, night: int, name: str) -> np.ndarray:
    try:
        data = read_owner_file(_added_path(workspace, name), WHAT)
    except EnvironmentProblem:
        data = b""
    if sha256(data).hexdigest() != name:
        raise BudgetError(
            f"nothing was drawn: what people added on night {night} is lost or was changed; bring back "
            f"{workspace / FOLDER} as it was, or begin another stream"
        )
    return np.asarray(np.load(io.BytesIO(data), allow_pickle=False), np.float64)


def _added_path(workspace: Path, name: str) -> Path:
    return workspace / FOLDER / "nights" / f"{name}.npy"


def _person(unit: str) -> str:
    return "patient" if unit == "subject" else "stay"
