"""`decoct ledger`: what each cohort has given, and what is left of the budget."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from flows.cli.common import AsJson, Out, print_json, workspace_of
from pipeline.core.errors import UsageError


def ledger(
    policy: Annotated[
        str | None, typer.Option(help="The policy whose budget counts, by name or file; none = of the last query.")
    ] = None,
    clock_is_right: Annotated[
        bool,
        typer.Option("--clock-is-right", help="After a long pause: put on record that this machine's clock is right."),
    ] = False,
    out: Out = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Show what a number of nights a year would cost, with and without a stream; reads no ledger."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what all private queries about each cohort have cost, and what is left of the policy's budget.

    Example: decoct ledger --out decoct-work
    """
    from pipeline.sharing.policy.ledger import last_budget, spent_by_cohort
    from pipeline.sharing.policy.load import load_policy
    from pipeline.sharing.policy.opening import CLOCK
    from pipeline.sharing.trust.log import append_log

    if plan:
        _print_plan(policy, as_json=as_json)
        return
    workspace = workspace_of(out)
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
    for row in rows:
        if row.nights:
            print(f"{row.cohort[:12]} is a stream: {row.nights} nights so far, one price for all of them")


def _print_plan(policy: str | None, *, as_json: bool) -> None:
    from flows.cli.keep.planned import DELTA, EPSILON, planned
    from pipeline.sharing.policy.load import load_policy, shipped_policies

    rows = planned([load_policy(name) for name in ([policy] if policy else shipped_policies())])
    if as_json:
        print_json({"rows": [dataclasses.asdict(row) for row in rows]})
        return
    print(f"nights a year with the same people, each as accurate as one release of epsilon {EPSILON:g} at {DELTA:g}")
    print("policy          budget  nights   apart  covered  stream  at most   noise")
    for row in rows:
        print(
            f"{row.policy:<15} {row.budget:6.4g} {row.nights:>7} {row.apart:7.2f} {row.admitted:>8} {row.stream:7.2f} "
            f"{row.limit:8.4g} {row.noise:7.2f}"
        )
    print(
        "apart: epsilon for one person if every night is a release of its own; covered: nights that the budget allows"
    )
    print("stream: epsilon if all nights are one stream whose last night is as accurate as such a release")
    print("at most: a stream's epsilon under the policy; noise: of its last night then, beside such a release")
    for name, limit, budget in dict.fromkeys((row.policy, row.limit, row.budget) for row in rows):
        if limit < budget:
            print(f"{name}: every night's set claims the price of all nights, so a stream above {limit:g} is refused")
            print(f"{' ' * len(name)}  before anything is spent, though the budget is {budget:g}")
