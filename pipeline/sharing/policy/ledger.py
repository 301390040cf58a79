"""The epsilon ledger of a workspace: what all releases about the same people cost together, written before the draw.

workspace/ledger/ledger.jsonl is append-only and hash-chained, readable by its owner alone. A query is reserved, and on
the disk, *before* its noise is drawn: a crash can make the ledger say too much, never too little. The noise is a
function of the query (`pipeline.core.keys.noise`): asked again, it draws what was drawn before and costs nothing.

Epsilons of releases about the same person add up. Who was in which cohort is kept as keyed marks, a set per cohort; a
new query is composed by dp-accounting for each pattern of cohorts that its people were in, and the largest counts. So
neither another task, nor another encoding, nor one patient more or less makes anybody new.

Every head of the ledger is anchored in the audit log: a ledger that is older than the log says was restored from a
backup, and nothing is drawn on it. That both were not begun anew is asked of what lies elsewhere (`policy.opening`).
"""

from __future__ import annotations

import hmac
import math
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from pipeline.core.errors import BudgetError, EnvironmentProblem
from pipeline.core.files.chained import BEGINNING, Chain, read_chain, writing
from pipeline.core.files.owner import read_owner_file, write_owner_file
from pipeline.sharing.policy.budget import Budget
from pipeline.sharing.policy.opening import believed_now, keep_seen, require_grown
from pipeline.sharing.trust.log import append_log, read_log

FOLDER: Final = "ledger"
LEDGER_FILE: Final = "ledger.jsonl"
ANCHOR: Final = "ledger"  # what the log calls the line that names the ledger's head
MARK_BYTES: Final = 8  # two of 100,000 people share a mark with probability 3e-10, and are then counted as one
ATTEMPTS: Final = 3
CODE_DIGITS: Final = 12
MAX_PATTERNS: Final = 32  # beyond it, everybody is taken to have been in every overlapping cohort
INTERVAL: Final = 1e-3  # of the privacy loss grid; dp-accounting rounds upwards


@final
@dataclass(frozen=True, repr=False)
class People:
    """Who is in a cohort: sorted distinct ids; `unit` says what an id stands for. Never leaves the site."""

    ids: tuple[str, ...]
    unit: str  # "subject" or "stay"


@final
@dataclass(frozen=True)
class CohortSpent:
    """A line of the ledger's table: a cohort, and what the person in it who gave most has given."""

    cohort: str  # digest of its marks
    unit: str
    people: int
    queries: int  # about this cohort itself
    last: str  # when the last of them was reserved
    epsilon: float  # of all queries in the period about anybody in it, composed
    left: float  # of the budget; never below 0


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
    with writing(ledger_path(workspace)) as ledger:
        anchored = _require_anchored(workspace, ledger.chain)
        if len(ledger.chain.lines) > anchored:  # a crash came between ledger and log
            _anchor(workspace, ledger.chain)
        if not ledger.chain.lines:
            ledger.append("begin", {"salt": secrets.token_hex(32)})
        if any(entry["what"] == "reserve" and entry["query"] == query for entry in ledger.chain.entries):
            return
        marks = _marks(_salt(ledger.chain), people.ids)
        spent = _most_spent(workspace, ledger.chain, marks, budget, events)
        if spent > budget.epsilon:
            person = "patient" if people.unit == "subject" else "stay"
            raise BudgetError(
                f"nothing was drawn: this query would bring what one {person} has given in the last "
                f"{budget.period_days} days to epsilon {spent:.4g} at delta {budget.delta:g}, above the "
                f"{budget.epsilon:g} that policy {policy} allows; see: decoct ledger"
            )
        cohort = _keep_marks(workspace, marks)
        facts = {"query": query, "cohort": cohort, "unit": people.unit, "policy": policy, "budget": asdict(budget)}
        ledger.append("reserve", {**facts, "events": [dict(event) for event in events]})
        _anchor(workspace, ledger.chain)
        keep_seen(workspace, ledger.chain)


def unrelated(workspace: Path, people: People) -> str:
    """The cohort's code, where not one of `people` is in any cohort on the ledger; "" where one is, or there is none.

    So it is with other people, and just so with the same people under new ids, whose queries nobody would add up.

    Raises:
        EnvironmentProblem: the ledger is damaged.
    """
    ledger = read_chain(ledger_path(workspace))
    known = [_read_marks(workspace, cohort) for cohort in {entry["cohort"] for entry in _reservations(ledger)}]
    if not known:
        return ""
    marks = _marks(_salt(ledger), people.ids)
    strangers = all(others is not None and not np.isin(marks, others).any() for others in known)
    return sha256(marks.astype("<u8").tobytes()).hexdigest()[:CODE_DIGITS] if strangers else ""


def spent_by_cohort(workspace: Path, budget: Budget) -> tuple[CohortSpent, ...]:
    """What each cohort on the ledger has given in the budget's period; cohorts in the order of their first query.

    Raises:
        BudgetError: the ledger is older than the log says. EnvironmentProblem: it is damaged.
    """
    ledger = _trusted(workspace)
    rows = []
    for cohort in dict.fromkeys(entry["cohort"] for entry in _reservations(ledger)):
        own = [entry for entry in _reservations(ledger) if entry["cohort"] == cohort]
        marks = _read_marks(workspace, cohort)
        epsilon = _most_spent(workspace, ledger, marks, budget, ())
        count = 0 if marks is None else len(marks)
        left = max(0.0, budget.epsilon - epsilon)
        rows.append(CohortSpent(cohort, own[-1]["unit"], count, len(own), own[-1]["when"], epsilon, left))
    return tuple(rows)


def foreseen(
    workspace: Path, events: Sequence[Mapping[str, Any]], people: People, budget: Budget
) -> tuple[float, float]:
    """What the one of `people` who gave most has given in the period, and will have with `events`; nothing is written.

    Raises:
        BudgetError: the ledger cannot be trusted. EnvironmentProblem: it is damaged.
    """
    ledger = _trusted(workspace)
    marks = _marks(_salt(ledger), people.ids) if ledger.lines else np.zeros(1, np.uint64)
    before, after = (_most_spent(workspace, ledger, marks, budget, more) for more in ((), events))
    return before, after


def reserved_queries(workspace: Path) -> dict[str, tuple[Mapping[str, Any], ...]]:
    """Query -> its events, of all that was ever reserved.

    Raises:
        BudgetError: the ledger is older than the log says. EnvironmentProblem: it is damaged.
    """
    ledger = _trusted(workspace)
    return {entry["query"]: tuple(entry["events"]) for entry in _reservations(ledger)}


def last_budget(workspace: Path) -> Budget | None:
    """The budget under which the last query was reserved; None = there is none. Raises as `spent_by_cohort`."""
    entries = _reservations(read_chain(ledger_path(workspace)))
    return Budget(**entries[-1]["budget"]) if entries else None


def composed_epsilon(events: Iterable[Mapping[str, Any]], delta: float) -> float:
    """The epsilon of all events together at `delta`, by dp-accounting's privacy loss distributions.

    Raises:
        BudgetError: an event that has no price here.
    """
    counts: dict[tuple[str, float], int] = {}
    for event in events:
        key = _priced(event)
        counts[key] = counts.get(key, 0) + 1
    if not counts:
        return 0.0
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(value_discretization_interval=INTERVAL)
    for (kind, multiplier), count in sorted(counts.items()):
        accountant.compose(getattr(dp_accounting, kind)(multiplier), count)
    return float(accountant.get_epsilon(delta))


def _priced(event: Mapping[str, Any]) -> tuple[str, float]:
    kind, multiplier = event.get("event"), event.get("noise_multiplier")
    if (
        kind not in ("GaussianDpEvent", "LaplaceDpEvent")
        or isinstance(multiplier, bool)
        or not isinstance(multiplier, int | float)
        or not 0 < multiplier < math.inf
    ):
        raise BudgetError("nothing was drawn: the ledger prices Gaussian and Laplace events of a noise multiplier only")
    return str(kind), float(multiplier)


def _reservations(ledger: Chain) -> list[Mapping[str, Any]]:
    return [entry for entry in ledger.entries if entry["what"] == "reserve"]


def _most_spent(
    workspace: Path, ledger: Chain, marks: np.ndarray | None, budget: Budget, more: Sequence[Mapping[str, Any]]
) -> float:
    """The largest epsilon of anybody with one of `marks` over the period's reservations, with `more` events."""
    entries = _in_period(workspace, ledger, budget)
    cohorts = list(dict.fromkeys(entry["cohort"] for entry in entries))
    found = [np.array(pattern) for pattern in _patterns(workspace, cohorts, marks)]
    epsilons = [0.0]
    for pattern in found:
        inside = {cohort for cohort, there in zip(cohorts, pattern, strict=True) if there}
        given = [event for entry in entries if entry["cohort"] in inside for event in entry["events"]]
        epsilons.append(composed_epsilon([*given, *more], budget.delta))
    return max(epsilons)


def _patterns(workspace: Path, cohorts: Sequence[str], marks: np.ndarray | None) -> list[tuple[bool, ...]]:
    """Which of `cohorts` people were in together, a tuple per pattern that no other pattern holds."""
    everywhere = tuple(True for _ in cohorts)
    if marks is None:
        return [everywhere]
    columns = []
    for cohort in cohorts:
        others = _read_marks(workspace, cohort)
        columns.append(np.ones(len(marks), bool) if others is None else np.isin(marks, others))
    table = np.unique(np.stack(columns, axis=1), axis=0) if columns else np.zeros((1, 0), bool)
    if len(table) > MAX_PATTERNS:
        return [tuple(bool(column.any()) for column in table.T)]
    rows: list[list[bool]] = table.tolist()
    sets = [{place for place, there in enumerate(row) if there} for row in rows]
    return [tuple(row) for row, own in zip(rows, sets, strict=True) if not any(own < other for other in sets)]


def _in_period(workspace: Path, ledger: Chain, budget: Budget) -> list[Mapping[str, Any]]:
    begin = believed_now(ledger, read_log(workspace), budget.period_days) - timedelta(days=budget.period_days)
    return [entry for entry in _reservations(ledger) if datetime.fromisoformat(entry["when"]) >= begin]


def _marks(salt: bytes, ids: Iterable[str]) -> np.ndarray:
    """Sorted uint64 marks of people: HMAC-SHA256 under the ledger's salt, cut to 8 bytes."""
    marks = [int.from_bytes(hmac.digest(salt, name.encode(), "sha256")[:MARK_BYTES], "little") for name in ids]
    return np.unique(np.array(marks, np.uint64))


def _salt(ledger: Chain) -> bytes:
    return bytes.fromhex(ledger.entries[0]["salt"])


def _keep_marks(workspace: Path, marks: np.ndarray) -> str:
    """Write the marks under their digest, unless they are there; returns the digest, which names the cohort."""
    data = marks.astype("<u8").tobytes()
    name = sha256(data).hexdigest()
    if not _marks_path(workspace, name).exists():
        try:
            write_owner_file(_marks_path(workspace, name), data, "the ledger's list of marks")
        except EnvironmentProblem:
            if not _marks_path(workspace, name).exists():
                raise
    return name


def _read_marks(workspace: Path, cohort: str) -> np.ndarray | None:
    """The marks of a cohort; None where they are gone or damaged: it then counts as overlapping with everybody."""
    try:
        data = read_owner_file(_marks_path(workspace, cohort), "the ledger's list of marks")
    except EnvironmentProblem:
        return None
    return np.frombuffer(data, "<u8") if sha256(data).hexdigest() == cohort else None


def _marks_path(workspace: Path, cohort: str) -> Path:
    return workspace / FOLDER / "people" / f"{cohort}.marks"


def _trusted(workspace: Path) -> Chain:
    """The ledger as who holds no lock reads it: looked at again where somebody reserved between two of its files."""
    for left in reversed(range(ATTEMPTS)):
        ledger = read_chain(ledger_path(workspace))
        try:
            _require_anchored(workspace, ledger)
            break
        except BudgetError:
            if not left:
                raise
            time.sleep(0.1)
    return ledger


def _anchor(workspace: Path, ledger: Chain) -> None:
    append_log(workspace, ANCHOR, {"lines": len(ledger.lines), "head": ledger.head})


def _require_anchored(workspace: Path, ledger: Chain) -> int:
    """How many lines the log has seen: all, or all but the one query that a crash kept from it."""
    log = read_log(workspace)
    anchors = [entry for entry in log.entries if entry["what"] == ANCHOR]
    lines, head = (anchors[-1]["lines"], anchors[-1]["head"]) if anchors else (0, BEGINNING)
    known = len(ledger.lines) >= lines and ledger.head_at(lines) == head
    if not known or len([entry for entry in ledger.entries[lines:] if entry["what"] == "reserve"]) > 1:
        raise BudgetError(
            f"nothing was drawn: {ledger_path(workspace)} is not the ledger that the audit log last saw "
            f"({lines} lines then, {len(ledger.lines)} now); perhaps a backup of one of the two was restored: "
            "bring back the newest copies of both"
        )
    require_grown(workspace, ledger, log)
    return int(lines)
