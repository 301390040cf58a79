"""When the disk will be full and the budget spent, if nights go on as they did in the last `WINDOW` days.

What was free is on the nights' record, so whatever fills the disk counts. The rate is the median of the slopes of all
pairs of nights (Theil and Sen), which one clean-up does not turn. The budget is not extrapolated: it is asked how many
queries more like the newest it covers for that query's people, and how often one was reserved. That earlier queries
leave the budget's period meanwhile is not counted, so the end may come later than is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Final, final

from pipeline.core.files.chained import read_chain
from pipeline.sharing.policy.ledger import asked_at, last_budget, still_covered

WINDOW: Final = timedelta(days=30)
SOON: Final = timedelta(days=14)
FEWEST: Final = 3  # nights, over a day at least, before anything is said of the disk
FREE: Final = "disk_free_bytes"
"""On a night's line of the record."""


@final
@dataclass(frozen=True)
class Forecast:
    """Seconds since 1970, UTC; None = not within sight, or not known. `told`: what is known, in words."""

    disk_full: float | None
    budget_ends: float | None
    told: str

    def soon(self, now: datetime) -> bool:
        """Whether one of both is less than `SOON` away."""
        return any(
            at is not None and at - now.timestamp() < SOON.total_seconds() for at in (self.disk_full, self.budget_ends)
        )


def forecast(workspace: Path, record: Path, wanted: int, now: datetime) -> Forecast:
    """Look ahead; `wanted` bytes free is what counts as full.

    Raises:
        BudgetError, EnvironmentProblem: the ledger or the nights' record cannot be trusted or read.
    """
    full, disk = _disk(record, wanted, now)
    ends, budget = _budget(workspace, now)
    return Forecast(full, ends, f"{disk}; {budget}")


def _disk(record: Path, wanted: int, now: datetime) -> tuple[float | None, str]:
    seen = [
        (datetime.fromisoformat(entry["ended"]).timestamp(), entry[FREE])
        for entry in read_chain(record).entries
        if entry["what"] == "night" and FREE in entry
    ]
    seen = [(at, free) for at, free in seen if 0 <= now.timestamp() - at <= WINDOW.total_seconds()]
    if len(seen) < FEWEST or seen[-1][0] - seen[0][0] < timedelta(days=1).total_seconds():
        return None, "disk: too few nights to say"
    rate = median((free - before) / (at - then) for (then, before), (at, free) in combinations(seen, 2) if at > then)
    if rate >= 0:
        return None, "disk: not filling"
    left = max(seen[-1][1] - wanted, 0) / -rate
    return seen[-1][0] + left, f"disk: full in {_days(seen[-1][0] + left, now)}"


def _budget(workspace: Path, now: datetime) -> tuple[float | None, str]:
    budget = last_budget(workspace)
    asked = [] if budget is None else [at for at in asked_at(workspace) if timedelta() <= now - at <= WINDOW]
    if budget is None or not asked:
        return None, f"budget: nothing asked in {WINDOW.days} days"
    apart = max((now - asked[0]) / len(asked), timedelta(days=1) / len(asked))
    in_period = math.ceil(timedelta(days=budget.period_days) / apart)
    covered = still_covered(workspace, budget, in_period)
    if covered >= in_period:
        return None, "budget: lasts at this rate"
    ends = asked[-1] + apart * (covered + 1)  # the first that is refused
    return ends.timestamp(), f"budget: {covered} such queries more, ends in {_days(ends.timestamp(), now)}"


def _days(at: float, now: datetime) -> str:
    return f"{max((at - now.timestamp()) / 86400, 0):.0f} days"
