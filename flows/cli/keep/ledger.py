"""`decoct ledger`: what each cohort has given, and what is left of the budget."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.common import AsJson, print_json
from pipeline.core.errors import UsageError


def ledger(
    policy: Annotated[
        str | None, typer.Option(help="The policy whose budget counts, by name or file; none = of the last query.")
    ] = None,
    clock_is_right: Annotated[
        bool,
        typer.Option("--clock-is-right", help="After a long pause: put on record that this machine's clock is right."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Workspace folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """What private queries about each cohort have cost together, composed, and what is left of the policy's budget.

    Example: decoct ledger --out decoct-work
    """
    from pipeline.sharing.policy.ledger import last_budget, spent_by_cohort
    from pipeline.sharing.policy.load import load_policy
    from pipeline.sharing.policy.opening import CLOCK
    from pipeline.sharing.trust.log import append_log

    workspace = out or Path("decoct-work")
    if clock_is_right:
        append_log(workspace, CLOCK, {})
    budget = last_budget(workspace) if policy is None else load_policy(policy).budget
    if budget is None:
        raise UsageError(f"nothing has been reserved in {workspace}; to see a policy's budget, name it with --policy")
    rows = spent_by_cohort(workspace, budget)
    if as_json:
        print_json({"budget": dataclasses.asdict(budget), "cohorts": [dataclasses.asdict(row) for row in rows]})
        return
    print(f"budget  epsilon {budget.epsilon:g} at delta {budget.delta:g} for one person in {budget.period_days} days")
    if not rows:
        print("no private query has been reserved in this workspace")
        return
    print("cohort        unit     people  queries  last        spent    left")
    for row in rows:
        print(
            f"{row.cohort[:12]}  {row.unit:<7} {row.people:>7} {row.queries:>8}  {row.last[:10]}  "
            f"{row.epsilon:6.3f}  {row.left:6.3f}"
        )
    print("spent: by the person in the cohort who gave most, over all cohorts with that person in them")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(ledger)
