"""The epsilon ledger of a workspace: what all releases about the same people cost together, written before the draw.

workspace/ledger/ledger.jsonl is append-only and hash-chained, readable by its owner alone. A query is reserved, and on
the disk, *before* its noise is drawn: a crash can make the ledger say too much, never too little. The noise is a
function of the query (`pipeline.core.keys.noise`): asked again, it draws what was drawn before and costs nothing.

Epsilons of releases about the same person add up. Who was in which cohort is kept as keyed marks, a set per cohort; a
new query is composed by dp-accounting for each pattern of cohorts that its people were in, and the largest counts. So
neither another task, nor another encoding, nor one patient more or less makes anybody new.

A stream (`pipeline.sharing.policy.streams`) is one query that is answered over many nights: its events count once for
whoever entered it, on whichever nights.

Every head of the ledger is anchored in the audit log: a ledger that is older than the log says was restored from a
backup, and nothing is drawn on it. That both were not begun anew is asked of what lies elsewhere (`policy.opening`).
"""

from __future__ import annotations

import secrets
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from pipeline.core.errors import BudgetError
from pipeline.core.files.chained import BEGINNING, Chain, Writer, read_chain, writing
from pipeline.core.files.seen import Lost
from pipeline.sharing.policy.budget import Budget
from pipeline.sharing.policy.ledger_lines import BEGIN, NIGHT, RESERVE, STREAM, require_known
from pipeline.sharing.policy.ledger_lines import composed_epsilon as composed_epsilon
from pipeline.sharing.policy.marks import keep_marks, marks_of, read_marks
from pipeline.sharing.policy.opening import believed_now, require_grown
from pipeline.sharing.trust.log import append_log, read_log

FOLDER: Final = "ledger"
LEDGER_FILE: Final = "ledger.jsonl"
ANCHOR: Final = "ledger"  # what the log calls the line that names the ledger's head
ATTEMPTS: Final = 3
CODE_DIGITS: Final = 12
MAX_PATTERNS: Final = 32  # beyond it, everybody is taken to have been in every overlapping cohort

Price = Callable[[Sequence[Mapping[str, Any]], float], float]
"""Events and delta -> their epsilon."""


@final
@dataclass(frozen=True, repr=False)
class People:
    """Who is in a cohort: sorted distinct ids; `unit` says what an id stands for. Never leaves the site."""

    ids: tuple[str, ...]
    unit: str  # "subject" or "stay"


@final
@dataclass(frozen=True)
class CohortSpent:
    """A line of the ledger's table: a cohort or a stream, and what the person in it who gave most has given."""

    cohort: str  # digest of its marks; of a stream, its name
    unit: str
    people: int
    queries: int  # about this cohort itself; a stream is one
    last: str  # when the last of them was reserved
    epsilon: float  # of all queries in the period about anybody in it, composed
    left: float  # of the budget; never below 0
    nights: int = 0  # on which people entered a stream; 0 = a cohort


@final
@dataclass(frozen=True)
class Asked:
    """What counts once for everybody who was in any of `cohorts`: the queries about one, or a stream of many."""

    name: str  # the cohort's, or the stream's
    cohorts: tuple[str, ...]
    entries: tuple[Mapping[str, Any], ...]  # lines with events
    last: str
    stream: bool

    @property
    def events(self) -> list[Mapping[str, Any]]:
        """All of them, composed for whoever was asked."""
        return [event for entry in self.entries for event in entry["events"]]


def ledger_path(workspace: Path) -> Path:
    """Where a workspace keeps its ledger."""
    return workspace / FOLDER / LEDGER_FILE


def reserve(
    workspace: Path, query: str, events: Sequence[Mapping[str, Any]], people: People, budget: Budget, policy: str
) -> None:
    """Put `query` on the ledger, or find it there; when this returns, its noise may be drawn.

    Args:
        query: the digest that names the query, its cohort, its key and its noise.
        events: what dp-accounting prices, see `composed_epsilon`.

    Raises:
        BudgetError: the budget does not cover it, an event has no price, or the ledger cannot be trusted.
        EnvironmentProblem: ledger or log is damaged, or cannot be written.
    """
    with writing_ledger(workspace) as ledger:
        if any(entry["what"] == RESERVE and entry["query"] == query for entry in ledger.chain.entries):
            return
        marks = marks_of(ledger.chain, people.ids)
        spent = _most_spent(workspace, ledger.chain, marks, budget, events)
        if spent > budget.epsilon:
            person = "patient" if people.unit == "subject" else "stay"
            raise BudgetError(
                f"nothing was drawn: this query would bring what one {person} has given in the last "
                f"{budget.period_days} days to epsilon {spent:.4g} at delta {budget.delta:g}, above the "
                f"{budget.epsilon:g} that policy {policy} allows; see: decoct ledger"
            )
        cohort = keep_marks(workspace / FOLDER, marks)
        facts = {"query": query, "cohort": cohort, "unit": people.unit, "policy": policy, "budget": asdict(budget)}
        ledger.append(RESERVE, {**facts, "events": [dict(event) for event in events]})
        anchor(workspace, ledger.chain)


@contextmanager
def writing_ledger(workspace: Path) -> Iterator[Writer]:
    """The ledger under its lock, with its first line: the one that was left, and that the log knows.

    Raises:
        BudgetError: it or the log is not. EnvironmentProblem: one is damaged, or the disk refuses.
    """
    with _distrusted(workspace), writing(ledger_path(workspace)) as ledger:
        if len(ledger.chain.lines) > _require_anchored(workspace, ledger.chain):  # a crash came between ledger and log
            anchor(workspace, ledger.chain)
        if not ledger.chain.lines:
            ledger.append(BEGIN, {"salt": secrets.token_hex(32)})
        yield ledger


def read_ledger(workspace: Path) -> Chain:
    """The ledger as who holds no lock reads it: looked at again where somebody reserved between two of its files.

    Raises:
        BudgetError: it is older than the log says, or not as it was left. EnvironmentProblem: it is damaged.
    """
    for left in reversed(range(ATTEMPTS)):
        try:
            with _distrusted(workspace):
                ledger = read_chain(ledger_path(workspace))
                _require_anchored(workspace, ledger)
            break
        except BudgetError:
            if not left:
                raise
            time.sleep(0.1)
    return ledger


@contextmanager
def _distrusted(workspace: Path) -> Iterator[None]:
    """Nothing is drawn on a ledger or a log that was lost."""
    try:
        yield
    except Lost as why:
        path = ledger_path(workspace)
        raise BudgetError(
            f"nothing was drawn: {path} is not the ledger that the audit log last saw, or that log is not whole: {why}"
        ) from None


def unrelated(workspace: Path, people: People) -> str:
    """The cohort's code, where not one of `people` is in any cohort on the ledger; "" where one is, or there is none.

    So it is with other people, and just so with the same people under new ids, whose queries nobody would add up.

    Raises:
        BudgetError, EnvironmentProblem: as `read_ledger`.
    """
    ledger = read_ledger(workspace)
    known = [read_marks(workspace / FOLDER, [cohort]) for asked in _asked(ledger) for cohort in asked.cohorts]
    if not known:
        return ""
    marks = marks_of(ledger, people.ids)
    apart = all(others is not None and not np.isin(marks, others).any() for others in known)
    return sha256(marks.astype("<u8").tobytes()).hexdigest()[:CODE_DIGITS] if apart else ""


def spent_by_cohort(workspace: Path, budget: Budget, price: Price = composed_epsilon) -> tuple[CohortSpent, ...]:
    """What each cohort on the ledger has given in the budget's period; cohorts in the order of their first query.

    `price`: as `composed_epsilon`, for who only looks.

    Raises:
        BudgetError: the ledger is older than the log says. EnvironmentProblem: it is damaged.
    """
    ledger = read_ledger(workspace)
    rows = []
    for asked in _asked(ledger):
        marks = read_marks(workspace / FOLDER, asked.cohorts)
        epsilon = _most_spent(workspace, ledger, marks, budget, (), price)
        count = 0 if marks is None else len(marks)
        left = max(0.0, budget.epsilon - epsilon)
        told = (asked.name, asked.entries[-1]["unit"], count, len(asked.entries), asked.last, epsilon, left)
        rows.append(CohortSpent(*told, nights=len(asked.cohorts) if asked.stream else 0))
    return tuple(rows)


def foreseen(
    workspace: Path, events: Sequence[Mapping[str, Any]], people: People, budget: Budget
) -> tuple[float, float]:
    """What the one of `people` who gave most has given in the period, and will have with `events`; nothing is written.

    Raises:
        BudgetError: the ledger cannot be trusted. EnvironmentProblem: it is damaged.
    """
    ledger = read_ledger(workspace)
    marks = marks_of(ledger, people.ids) if ledger.lines else np.zeros(1, np.uint64)
    before, after = (_most_spent(workspace, ledger, marks, budget, more) for more in ((), events))
    return before, after


def reserved_queries(workspace: Path) -> dict[str, tuple[Mapping[str, Any], ...]]:
    """Query -> its events, of all that was ever reserved, streams among them.

    Raises:
        BudgetError: the ledger is older than the log says. EnvironmentProblem: it is damaged.
    """
    ledger = read_ledger(workspace)
    return {entry["query"]: tuple(entry["events"]) for entry in _reservations(ledger)}


def last_budget(workspace: Path) -> Budget | None:
    """The budget under which the last query was reserved; None = there is none. Raises as `spent_by_cohort`."""
    entries = _reservations(read_ledger(workspace))
    return Budget(**entries[-1]["budget"]) if entries else None


def asked_at(workspace: Path) -> list[datetime]:
    """When each query was reserved that is no stream's, oldest first. Raises as `spent_by_cohort`."""
    return [datetime.fromisoformat(entry["when"]) for entry in _apart(read_ledger(workspace))]


def still_covered(workspace: Path, budget: Budget, most: int) -> int:
    """How many queries more like the newest, of its people, the budget covers; counted up to `most`.

    Raises as `spent_by_cohort`.
    """
    ledger = read_ledger(workspace)
    newest = _apart(ledger)[-1]
    marks = read_marks(workspace / FOLDER, (newest["cohort"],))

    def after(more: int) -> float:
        return _most_spent(workspace, ledger, marks, budget, newest["events"] * more)

    return bisect_right(range(1, most + 1), budget.epsilon, key=after)


def _apart(ledger: Chain) -> list[Mapping[str, Any]]:
    return [entry for entry in ledger.entries if entry["what"] == RESERVE]


def _reservations(ledger: Chain) -> list[Mapping[str, Any]]:
    return [entry for entry in ledger.entries if entry["what"] in (RESERVE, STREAM)]


def _asked(ledger: Chain) -> list[Asked]:
    """Cohorts and streams in the order of their first line; a stream goes on until its last night on the ledger."""
    found: dict[str, Asked] = {}
    for entry in ledger.entries:
        if entry["what"] == RESERVE:
            known = found.get(entry["cohort"])
            entries = (*(known.entries if known else ()), entry)
            found[entry["cohort"]] = Asked(entry["cohort"], (entry["cohort"],), entries, entry["when"], False)
        elif entry["what"] == STREAM:
            found[entry["query"]] = Asked(entry["query"], (), (entry,), entry["when"], True)
        elif entry["what"] == NIGHT:
            known = found[entry["stream"]]
            found[known.name] = replace(known, cohorts=(*known.cohorts, entry["cohort"]), last=entry["when"])
    return list(found.values())


def asked_in_period(workspace: Path, ledger: Chain, budget: Budget) -> list[Asked]:
    """What was asked in the period; of a stream, all or nothing: its later nights answer about earlier entries too.

    Raises:
        BudgetError: this machine's clock is not believed.
    """
    today = believed_now(ledger, read_log(workspace), budget.period_days)
    first = today - timedelta(days=budget.period_days)

    def since(when: str) -> bool:
        return datetime.fromisoformat(when) >= first

    recent = []
    for asked in _asked(ledger):
        entries = asked.entries if asked.stream else tuple(entry for entry in asked.entries if since(entry["when"]))
        if entries and since(asked.last):
            recent.append(replace(asked, entries=entries))
    return recent


def _most_spent(
    workspace: Path,
    ledger: Chain,
    marks: np.ndarray | None,
    budget: Budget,
    more: Sequence[Mapping[str, Any]],
    price: Price = composed_epsilon,
) -> float:
    """The largest epsilon of anybody with one of `marks` over the period's reservations, with `more` events."""
    recent = asked_in_period(workspace, ledger, budget)
    epsilons = [0.0]
    for pattern in _patterns(workspace, recent, marks):
        given = [event for asked, there in zip(recent, pattern, strict=True) if there for event in asked.events]
        epsilons.append(price([*given, *more], budget.delta))
    return max(epsilons)


def _patterns(workspace: Path, recent: Sequence[Asked], marks: np.ndarray | None) -> list[tuple[bool, ...]]:
    """Which of `recent` people were asked in together, a tuple per pattern that no other pattern holds."""
    if marks is None:
        return [tuple(True for _ in recent)]
    table = np.unique(asked_of(workspace, recent, marks), axis=0)
    if len(table) > MAX_PATTERNS:
        return [tuple(bool(column.any()) for column in table.T)]
    rows: list[list[bool]] = table.tolist()
    sets = [{place for place, there in enumerate(row) if there} for row in rows]
    return [tuple(row) for row, own in zip(rows, sets, strict=True) if not any(own < other for other in sets)]


def asked_of(workspace: Path, recent: Sequence[Asked], marks: np.ndarray) -> np.ndarray:
    """Who of `marks` was asked in what, `(person, asked)`; where marks are lost, everybody."""
    table = np.ones((len(marks), len(recent)), bool)
    for place, asked in enumerate(recent):
        others = read_marks(workspace / FOLDER, asked.cohorts)
        table[:, place] = True if others is None else np.isin(marks, others)
    return table


def anchor(workspace: Path, ledger: Chain) -> None:
    """Tell the audit log the ledger's head."""
    append_log(workspace, ANCHOR, {"lines": len(ledger.lines), "head": ledger.head})


def _require_anchored(workspace: Path, ledger: Chain) -> int:
    """How many lines the log has seen: all, or all but the one query that a crash kept from it."""
    require_known(ledger, ledger_path(workspace))
    log = read_log(workspace)
    anchors = [entry for entry in log.entries if entry["what"] == ANCHOR]
    lines, head = (anchors[-1]["lines"], anchors[-1]["head"]) if anchors else (0, BEGINNING)
    known = len(ledger.lines) >= lines and ledger.head_at(lines) == head
    if not known or len([entry for entry in ledger.entries[lines:] if entry["what"] != "begin"]) > 1:
        raise BudgetError(
            f"nothing was drawn: {ledger_path(workspace)} is not the ledger that the audit log last saw "
            f"({lines} lines then, {len(ledger.lines)} now); perhaps a backup of one of the two was restored: "
            "bring back the newest copies of both"
        )
    require_grown(workspace, log)
    return int(lines)
