"""`decoct run --plan`: can this run end in a release, what would it cost, what would stop it; nothing is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from flows.cli.common import print_json

if TYPE_CHECKING:
    from flows.workspace.job import Job


def plan(job: Job, as_json: bool) -> None:
    """Read the source, look ahead, and say what was seen; exit code 14 or 17 where something would stop the run."""
    from flows.charging.outlook import outlook, refusal
    from flows.run import walk_until
    from pipeline.core.redaction import scrubbed

    cohort = walk_until(job, "ingest")["ingest"]
    with scrubbed("plan"):
        found = outlook(job, cohort)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if (why := refusal(found)) is not None:
        raise typer.Exit(why.exit_code)


def _print(found: dict[str, Any]) -> None:
    from flows.charging.outlook import refusal

    budget = found["budget"]
    can = "can" if refusal(found) is None else "cannot"
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
