"""What can be seen of a run once its source is read: what would stop it, what it would cost; nothing is drawn."""

from __future__ import annotations

import math
from typing import Any

from flows.charging.foresee import Known, claimed, events_of, foreseen_figures, stops
from flows.charging.ledger import people_of, require_related
from flows.workspace.job import Job
from pipeline.core.errors import BudgetError, DecoctError, ReleaseRefused
from pipeline.core.types import Cohort
from pipeline.sharing.policy import ledger
from pipeline.sharing.policy.load import Policy, load_policy
from pipeline.store import Made


def outlook(job: Job, cohort: Made[Cohort]) -> dict[str, Any]:
    """What is seen of the run from here, as plain data.

    Raises:
        BudgetError: the ledger cannot be trusted.
    """
    raw = job.only(cohort, Cohort)
    known, people, policy = Known.of(raw), people_of(raw), load_policy(job.config.release.policy)
    figures = {
        f"{attack}:{name}": n
        for attack, table in foreseen_figures(job.config, known).items()
        for name, n in table.items()
    }
    return {
        "policy": policy.name,
        "stops": list(stops(job.config, known)),
        "costs": _costs(job, people, policy),
        "figures": figures,
        "budget": {"epsilon": policy.budget.epsilon, "delta": policy.budget.delta, "days": policy.budget.period_days},
    }


def refusal(found: dict[str, Any]) -> DecoctError | None:
    """What a run with this outlook would end with; None = it can end in a release."""
    if found["stops"]:
        return ReleaseRefused("; ".join(found["stops"]))
    tables = [cost["table"] for cost in found["costs"] if not cost["covered"]]
    return BudgetError(f"the budget does not cover condense.{', condense.'.join(tables)}") if tables else None


def _costs(job: Job, people: ledger.People, policy: Policy) -> list[dict[str, Any]]:
    """Each private table's, one after the other: a query that was answered before costs less, namely nothing."""
    events: list[Any] = []
    found = []
    for name, table in job.config.condense.items():
        asked = claimed(table)
        if asked is None:
            continue
        require_related(job.config, people)
        events += events_of(table)
        before, after = ledger.foreseen(job.config.workspace, events, people, policy.budget)
        left = policy.budget.epsilon - after
        found.append(
            {
                "table": name,
                "epsilon": asked[0],
                "delta": asked[1],
                "spent_before": round(before, 4),
                "spent_after": round(after, 4),
                "left": round(max(0.0, left), 4),
                "covered": math.isfinite(after) and left >= 0,
            }
        )
    return found
