"""What a site lets one person give: a policy states it, the ledger keeps to it. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Budget:
    """The most that one person may give in any `period_days`: (epsilon, delta) of all releases composed."""

    epsilon: float
    delta: float
    period_days: int
