"""A night as a Prefect flow, and its schedule: served from here, or deployed to a server's work pool by prefect.yaml.

Prefect is given the path of the configuration file, and gets names, keyed marks, seconds and our own sentences back; a
worker needs the same path to exist where it runs. A held night is Completed under that name, a refused one Failed.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import prefect
from prefect import flow, runtime
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, State
from prefect.client.schemas.schedules import CronSchedule
from prefect.schedules import Cron
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from flows.environment import TELEMETRY_OFF, quiet
from flows.nights.clock import checked_schedule, stay
from flows.nights.night import GOOD, Night, run_night
from flows.nights.server import temporary_server_apart
from flows.nights.status import measured
from flows.progress import say
from flows.run import labels
from flows.stopping import GRACE_SECONDS, leave_to_others
from flows.tasks import told, walk_as_tasks
from flows.watch.page import watched
from flows.workspace.job import REPORT_PAGE, Job, marks_of
from flows.workspace.logs import labelled
from pipeline.core.config import load_config
from pipeline.core.errors import DecoctError, EnvironmentProblem, UsageError
from pipeline.core.redaction import outward, scrubbed
from pipeline.store import Made

ENTRYPOINT: Final = "flows.nights.scheduled.night_flow"
_ended: dict[str, Night | DecoctError] = {}  # of this process, by flow run, for `night_through_prefect`


@flow(name="decoct-night", persist_result=False, validate_parameters=False)
def night_flow(config: str) -> State[None]:
    """One unattended night of the configuration in the file `config`; fails with the gate's exit code and sentence."""
    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # a worker's log is read by people
    run = str(runtime.flow_run.id)
    try:
        with scrubbed("the night"):
            plan = load_config(Path(config))
            quiet(plan.workspace)
            with watched(plan.workspace), measured(plan), labelled(flow_run=run):
                night = run_night(plan, walk_with_progress)
    except DecoctError as error:  # it could not begin, so it has no record, and nobody but Prefect tells
        _ended[run] = error
        return Failed(message=told(error))
    _ended[run] = night
    _show(_put_end, plan.workspace, night)
    page = plan.workspace / "runs" / plan.name / REPORT_PAGE
    if page.exists() and page.stat().st_mtime >= datetime.fromisoformat(night.started).timestamp():
        _show(create_link_artifact, page.resolve().as_uri(), link_text="the site's report", key="decoct-report")
    name, sentence = night.state.capitalize(), outward(night.sentence)
    if night.state in GOOD:
        return Completed(name=name, message=sentence)
    return Failed(name=name, message=f"exit code {night.exit_code}: {sentence}")


def _put_end(workspace: Path, night: Night) -> None:
    text = as_markdown(night, marks_of(workspace))
    create_markdown_artifact(text, key="decoct-night", description="How the night ended")


def walk_with_progress(job: Job, made: dict[str, Made[Any]]) -> None:
    """The road as tasks of the night, with the share of its stages that have ended on the night's page."""
    steps = labels(job.config)
    shown = _show(create_progress_artifact, 0.0, key="decoct-progress", description="Stages of the night that ended")

    def ended(label: str) -> None:
        if shown is not None:
            _show(update_progress_artifact, shown, round(100 * (steps.index(label) + 1) / len(steps), 1))

    walk_as_tasks(job, made, ended=ended)


def _show(put: Callable[..., Any], *what: Any, **more: Any) -> Any:
    """What is only shown decides nothing: a server that does not take it leaves the night as it is."""
    try:
        return put(*what, **more)
    except Exception as error:
        say(f"  Prefect did not take what is shown of the night: {type(error).__name__}")
        return None


def night_through_prefect(config: Path) -> Night:
    """One night as a flow run, with whatever server Prefect is set to, or a temporary one.

    Raises:
        DecoctError: it could not begin: the configuration, the lock, the record.
    """
    temporary_server_apart()
    state = night_flow(str(config.resolve()), return_state=True)
    night = _ended.pop(str(state.state_details.flow_run_id), None)
    if isinstance(night, DecoctError):
        raise night
    if night is None:
        state.result()  # raises what kept it from beginning
        raise EnvironmentProblem("Prefect did not run the night, and does not say why")
    return night


def as_markdown(night: Night, mark: Callable[[str], str]) -> str:
    """The night for Prefect's page: its end, and each stage with its artefact's mark and seconds."""
    head = [
        f"# {night.run}: {night.state}",
        "",
        outward(night.sentence),
        "",
        f"Night {night.night}, exit code {night.exit_code}, {night.wall_seconds:.1f} s, release {night.release or '-'}",
        "",
        "| stage | mark | seconds |",
        "| --- | --- | ---: |",
    ]
    rows = [
        f"| {label} | `{mark(digests[0])}` | {night.seconds[label]:.1f} |" for label, digests in night.digests.items()
    ]
    return "\n".join([*head, *rows]) + "\n"


def serve(config: Path, cron: str, timezone: str) -> None:
    """Stay and start a night whenever the schedule says, one at a time, until stopped.

    A Prefect server plans the nights where one is set. The temporary one that Prefect starts without runs no scheduler,
    so this process then looks at the clock itself (`stay`), and each night is a process of its own.

    Raises:
        UsageError: as `checked_schedule`. ConfigError: the configuration is broken. EnvironmentProblem: as `stay`.
    """
    plan = load_config(config)
    _checked(cron, timezone)
    if not PREFECT_API_URL.value():
        night = [sys.executable, "-m", "flows.cli", "night", str(config.resolve())]
        stay(plan, cron, timezone, lambda: _one_night(night))
    leave_to_others()  # Prefect ends its nights and pauses the deployment
    night_flow.serve(
        name=plan.name,
        schedule=Cron(cron, timezone=timezone),
        parameters={"config": str(config.resolve())},
        limit=1,
        global_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        print_starting_message=False,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


def _one_night(command: list[str]) -> None:
    """A night in a process and a session of its own; it is told that this one is stopped, and waited for."""
    with subprocess.Popen(command, start_new_session=True) as night:
        try:
            night.wait()
        except BaseException:
            night.terminate()
            with suppress(subprocess.TimeoutExpired):
                night.wait(GRACE_SECONDS)
            raise


def deployment(config: Path, cron: str, timezone: str, work_pool: str) -> str:
    """The text of a prefect.yaml that deploys the night to a work pool: `prefect deploy --all`.

    Raises:
        UsageError: as `checked_schedule`. ConfigError: the configuration is broken.
    """
    _checked(cron, timezone)
    plan = load_config(config)
    text = (files("flows.templates") / "prefect.yaml").read_text(encoding="utf-8")
    told = {
        "PREFECT_VERSION": prefect.__version__,
        "NAME": plan.name,  # so that configurations that share a server do not replace each other
        "ENTRYPOINT": ENTRYPOINT,
        "CONFIG": str(config.resolve()),
        "CRON": cron,
        "TIMEZONE": timezone,
        "WORK_POOL": work_pool,
        "ENVIRONMENT": dict(TELEMETRY_OFF),
    }
    for name, value in told.items():
        text = text.replace(f"<{name}>", json.dumps(value))  # JSON is YAML, whatever is in a path
    return text


def _checked(cron: str, timezone: str) -> None:
    """Pass a schedule that a server of Prefect's reads, too: it knows less than cronsim about last weekdays."""
    checked_schedule(cron, timezone)
    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValidationError:
        raise UsageError(f"{cron!r} is no cron expression that Prefect reads") from None
