"""What Prefect's pages show of a night: its name, tags, how far it is, how it ended and what it is about.

Names, marks, verdicts, levels and our own sentences go there, and what is left of the budget; no figure of a patient's
or of a model's, no path but the configuration's and the report's, no digest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from prefect import runtime
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client

from flows.nights.night import Night, read_record
from flows.progress import say
from flows.run import labels
from flows.stages.decide import shortfall
from flows.watch.releases import epsilon_left
from flows.workspace.job import REPORT_PAGE, Job, marks_of
from pipeline.core.config import Config, load_config
from pipeline.core.errors import DecoctError
from pipeline.core.redaction import outward
from pipeline.core.types import GateDecision, LeakageReport, UtilityReport
from pipeline.core.types.drift import DriftReport
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.policy.rules import attack_verdicts
from pipeline.store import Made

AUDIT_SHARE: Final = 4.0
"""How much longer the audit takes than all other stages together, where no night has shown it yet."""


def run_name() -> str:
    """What a flow run is called before its night has a name: the configuration, and when it was due."""
    due = runtime.flow_run.scheduled_start_time
    try:
        name = load_config(Path(str(runtime.flow_run.parameters["config"]))).name
    except (DecoctError, KeyError):
        name = "night"
    return f"{name} {due:%Y%m%dT%H%M%S}"


def tags_of(config: Config) -> list[str]:
    """Of a deployment and of its nights: whose, of which configuration, under which policy."""
    policy = load_policy(config.release.policy).name
    told = {"site": config.release.site, "configuration": config.name, "policy": policy}
    return [f"{what}:{name}" for what, name in told.items() if name]


def key_of(what: str, config: Config) -> str:
    """An artifact's key: of one configuration alone, in the letters that Prefect allows."""
    name = config.name
    if "_" in name:
        name = f"{name.replace('_', '-')}-{sha256(name.encode()).hexdigest()[:6]}"
    return f"decoct-{what}-{name}"


def show(put: Callable[..., Any], *what: Any, **more: Any) -> Any:
    """What is only shown decides nothing: a server that does not take it leaves the night as it is."""
    try:
        return put(*what, **more)
    except Exception as error:
        say(f"  Prefect did not take what is shown of the night: {type(error).__name__}")
        return None


def begin(config: Config, night: str) -> None:
    """Give the flow run the name that the night has on record, and its tags."""
    _label(name=f"{config.name} {night}", tags={*runtime.flow_run.tags, *tags_of(config)})


def progress(config: Config) -> Callable[[str, float], None]:
    """On the night's page, the share of its work that has ended; a stage counts as the seconds of an earlier night."""
    steps, key = labels(config), key_of("progress", config)
    shown = show(create_progress_artifact, 0.0, key=key, description="Share of the night's work that has ended")
    weights = _weights(config, steps)

    def ended(label: str, share: float) -> None:
        if shown is not None:
            before = sum(weights[step] for step in steps[: steps.index(label)])
            done = (before + share * weights[label]) / sum(weights.values())
            show(update_progress_artifact, shown, round(100 * done, 1))

    return ended


def end(config: Config, night: Night, about: list[str]) -> None:
    """Put the night's end on its page, the report's path if tonight wrote one, and the outcome among its tags."""
    _label(tags={*runtime.flow_run.tags, *tags_of(config), f"outcome:{night.state}"})
    text = as_markdown(night, marks_of(config.workspace), about)
    create_markdown_artifact(text, key=key_of("night", config), description="How the night ended")
    page = config.workspace / "runs" / config.name / REPORT_PAGE
    if page.exists() and page.stat().st_mtime >= datetime.fromisoformat(night.started).timestamp():
        create_link_artifact(page.resolve().as_uri(), link_text="the site's report", key=key_of("report", config))


def as_markdown(night: Night, mark: Callable[[str], str], about: list[str]) -> str:
    """The night for Prefect's page: its end, what it is about, and each stage with its artefact's mark and seconds."""
    head = [
        f"# {night.run}: {night.state}",
        "",
        outward(night.sentence),
        "",
        f"Night {night.night}, exit code {night.exit_code}, {night.wall_seconds:.1f} s, release {night.release or '-'}",
        "",
        *about,
        "| stage | mark | seconds |",
        "| --- | --- | ---: |",
    ]
    rows = [
        f"| {label} | `{mark(digests[0])}` | {night.seconds[label]:.1f} |" for label, digests in night.digests.items()
    ]
    return "\n".join([*head, *rows]) + "\n"


def about(job: Job, made: Mapping[str, Made[Any]]) -> list[str]:
    """Two tables: the gates, as far as the night came, and every attack's verdict. Words only, but for the budget."""
    gates = {"drift": _drift(job, made), "epsilon left": _epsilon_left(job), "utility": _utility(job, made)}
    if "decide" in made:
        decision = job.only(made["decide"], GateDecision)
        gates[f"policy {decision.policy}"] = decision.verdict
    found = ["| what | state |", "| --- | --- |", *(f"| {what} | {state} |" for what, state in gates.items()), ""]
    if "audit" in made:
        reports = [job.store.get(digest, LeakageReport) for digest in made["audit"].digests]
        verdicts = attack_verdicts(load_policy(job.config.release.policy), reports)
        rows = dict.fromkeys(
            f"| {one.result.attack} | {one.result.artefact} | {one.result.statistic} | {one.verdict} |"
            for one in verdicts
        )
        found += ["| attack | on | figure | verdict |", "| --- | --- | --- | --- |", *rows, ""]
    return found


def _drift(job: Job, made: Mapping[str, Made[Any]]) -> str:
    if "drift" not in made:
        return "not known"
    report = job.only(made["drift"], DriftReport)
    return f"{report.level}, against {report.against}" if report.against else "no released cohort to compare with"


def _epsilon_left(job: Job) -> str:
    found = epsilon_left(job.config.workspace)
    if found is None:
        return "nothing has been spent"
    return f"{math.floor(10 * found[0]) / 10:.1f} of {found[1]:g}, for the person who gave most"


def _utility(job: Job, made: Mapping[str, Made[Any]]) -> str:
    if "utility" not in made:
        return "not known"
    if job.config.utility.floor_auroc is None:
        return "measured; no floor is set"
    return "at the floor or above" if shortfall(job, job.only(made["utility"], UtilityReport)) is None else "BELOW"


def _weights(config: Config, steps: tuple[str, ...]) -> dict[str, float]:
    """Of each step, the seconds that the newest night took that made an audit of its own; at least a little."""
    known = next(
        (
            night.seconds
            for night in reversed(read_record(config.workspace))
            if night.run == config.name and night.seconds.get("audit")
        ),
        {"audit": AUDIT_SHARE * len(steps), **{step: 1.0 for step in steps if step != "audit"}},
    )
    return {step: max(known.get(step, 0.0), 0.1) for step in steps}


def _label(**changes: Any) -> None:
    with get_client(sync_client=True) as client:
        client.update_flow_run(runtime.flow_run.id, **changes)
