"""`decoct run --plan`: can this run end in a release, what would it cost, what would stop it; nothing is drawn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import typer

from flows.cli.common import print_json
from pipeline.core.errors import BudgetError, ReleaseRefused

if TYPE_CHECKING:
    from flows.workspace.job import Job


def plan(job: Job, as_json: bool) -> None:
    """Read the source, look ahead, and say what was seen; exit code 14 or 17 where something would stop the run."""
    from flows.run import walk_until
    from pipeline.core.redaction import scrubbed

    cohort = walk_until(job, "ingest")["ingest"]
    with scrubbed("plan"):
        found = outlook(job, cohort)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found["stops"]:
        raise typer.Exit(ReleaseRefused.exit_code)
    if not all(cost["covered"] for cost in found["costs"]):
        raise typer.Exit(BudgetError.exit_code)


def outlook(job: Job, cohort: Any) -> dict[str, Any]:
    """What is seen of the run from here, as plain data.

    Raises:
        BudgetError: the ledger cannot be trusted.
    """
    from flows.charging.foresee import Known, foreseen_figures, stops
    from flows.charging.ledger import people_of
    from pipeline.core.types import Cohort
    from pipeline.sharing.policy.load import load_policy

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


def _costs(job: Job, people: Any, policy: Any) -> list[dict[str, Any]]:
    """Each private table's, one after the other: a query that was answered before costs less, namely nothing."""
    from flows.charging.foresee import claimed, events_of
    from flows.charging.ledger import require_related
    from pipeline.sharing.policy import ledger

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


def _print(found: dict[str, Any]) -> None:
    budget = found["budget"]
    can = "cannot" if found["stops"] or not all(cost["covered"] for cost in found["costs"]) else "can"
    print(f"plan    this run {can} end in a release under policy {found['policy']}, by all that is known before it")
    for sentence in found["stops"]:
        print(f"stops   {sentence}")
    for cost in found["costs"]:
        told = f"condense.{cost['table']}: epsilon {cost['epsilon']:g}, delta {cost['delta']:g}"
        spent = f"one person has then given at most {cost['spent_after']:.3g} of {budget['epsilon']:g}"
        print(f"costs   {told}; {spent}{'' if cost['covered'] else ': NOT COVERED'}")
    if not found["costs"]:
        print("costs   nothing: no table of this run draws accounted noise")
    for name, n in found["figures"].items():
        print(f"audit   {name} will rest on n = {n}")
    print("open    what the set is worth and what leaks from it: only the run can show that; nothing was drawn")
