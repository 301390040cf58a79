"""A night on which nothing is to be made, without Prefect: its temporary server takes longer to start than the night.

That server has no page, and no flow run is missed on it. Where Prefect is set to a server, every night is a flow run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flows.nights.night import Night, run_night
from flows.nights.pinned import require_pinned
from flows.nights.status import measured
from flows.run import Stage, Walker, execute, walk
from flows.stopping import at_most
from flows.watch.page import watched
from flows.workspace.job import Job, new_job
from pipeline.core.config import Config
from pipeline.store import Made


def run_unchanged(plan: Config) -> Night | None:
    """The night, if all that it would make is in the store; None = something is to be made, or to be told of a stage.

    Raises:
        ConfigError, EnvironmentProblem: as `flows.nights.night.run_night`.
    """
    require_pinned(plan)  # before any program that the configuration names
    job = replace(new_job(plan, resume=True), looks=True, to_release=True)
    found: dict[str, Made[Any] | None] = {}

    def look(label: str, stage: Stage[..., Any], inputs: tuple[Any, ...]) -> Any:
        with at_most(plan.night.stage_minutes, label):
            found[label] = stage.does(job, *inputs)
        return found[label]

    try:
        walk(plan, Walker(look))
    except Exception:  # `Unmade`, or what the night itself will say
        return None

    def again(job: Job, made: dict[str, Made[Any]]) -> None:
        walk(plan, Walker(lambda label, _, __: execute(job, label, lambda _: found[label], ()), made))

    with watched(plan.workspace), measured(plan):
        return run_night(plan, again)
