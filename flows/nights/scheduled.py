"""A night as a Prefect flow, and its schedule: served from here, or deployed to a server's work pool by prefect.yaml.

Prefect is given the path of the configuration file, and gets names, keyed marks, seconds and our own sentences back; a
worker needs the same path to exist where it runs. A held night is Completed under that name, a refused one Failed.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import prefect
from prefect import flow, runtime
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, State
from prefect.client.schemas.schedules import CronSchedule
from prefect.context import FlowRunContext
from prefect.deployments import run_deployment
from prefect.schedules import Cron
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed
from prefect.types.entrypoint import EntrypointType
from pydantic import ValidationError

from flows.charging.outlook import outlook, refusal
from flows.environment import TELEMETRY_OFF, code_version, quiet
from flows.nights import blocks, shown
from flows.nights.clock import LATE, LOOK_SECONDS, checked_schedule, stay
from flows.nights.night import GOOD, Night, begun_since, run_night, under_way
from flows.nights.records import Records
from flows.nights.server import temporary_server_apart
from flows.nights.status import measured
from flows.run import walk_until
from flows.stopping import GRACE_SECONDS, leave_to_others
from flows.tasks import told, walk_as_tasks
from flows.watch.page import watched
from flows.workspace.job import Job, new_job
from flows.workspace.locks import workspace_lock
from flows.workspace.logs import labelled
from pipeline.core.config import Config, load_config
from pipeline.core.errors import DecoctError, EnvironmentProblem, UsageError
from pipeline.core.redaction import outward, scrubbed
from pipeline.store import Made

ENTRYPOINT: Final = "flows.nights.scheduled.night_flow"
_ended: dict[str, Night | DecoctError] = {}  # of this process, by flow run, for `night_through_prefect`


@flow(name="decoct-night", flow_run_name=shown.run_name, persist_result=False)
def night_flow(config: str, min_new_subjects: int | None = None, look_only: bool = False) -> State[None]:
    """One unattended night; fails with the gate's exit code and sentence.

    Args:
        config: The path of the configuration, where the worker runs.
        min_new_subjects: Instead of the configuration's night.min_new_subjects, for this night alone.
        look_only: Read the source, say whether a release is possible and covered, and make nothing.
    """
    logging.getLogger("great_expectations").setLevel(logging.WARNING)  # a worker's log is read by people
    run, about = str(runtime.flow_run.id), list[str]()
    try:
        with scrubbed("the night"):
            plan = _plan(Path(config), min_new_subjects)
            quiet(plan.workspace)
            if (late := _too_late(plan)) is not None:
                return Completed(name="Skipped", message=late)
            if look_only:
                return _looked(plan)
            blocks.notices()
            with watched(plan.workspace), measured(plan), labelled(flow_run=run):
                night = run_night(plan, lambda job, made: _walk(job, made, about))
    except DecoctError as error:  # it could not begin, so it has no record, and nobody but Prefect tells
        _ended[run] = error
        return Failed(message=told(error))
    _ended[run] = night
    shown.show(shown.end, plan, night, about)
    name, sentence = night.state.capitalize(), outward(night.sentence)
    if night.state in GOOD:
        return Completed(name=name, message=sentence)
    return Failed(name=name, message=f"exit code {night.exit_code}: {sentence}")


def _plan(config: Path, min_new_subjects: int | None) -> Config:
    plan = load_config(config)
    if min_new_subjects is None:
        return plan
    changed = {**plan.night.model_dump(), "min_new_subjects": min_new_subjects}
    return plan.model_copy(update={"night": type(plan.night).model_validate(changed)})


def _too_late(plan: Config) -> str | None:
    """Why a night that the server planned is left out: what it was due for is past, or has been done by another."""
    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    if run is None or not run.auto_scheduled or run.expected_start_time is None:
        return None
    if datetime.now(tz=UTC) - run.expected_start_time <= LATE:
        return None
    if plan.night.catch_up == "skip":
        return "it was overdue, as no worker was there or another night ran: left out, as night.catch_up says"
    return "another night began since it was due" if begun_since(plan, run.expected_start_time) else None


def _looked(plan: Config) -> State[None]:
    """What can be known of a night before it: `decoct run --plan` as the end of a flow run."""
    with workspace_lock(plan.workspace, "decoct night", shared=True):
        job = new_job(plan, resume=True)
        why = refusal(outlook(job, walk_until(job, "ingest")["ingest"]))
    if why is not None:
        return Failed(name="Refused", message=told(why))
    return Completed(name="Possible", message="by all that is known before it, this night can end in a release")


def _walk(job: Job, made: dict[str, Made[Any]], about: list[str]) -> None:
    """The road as tasks of the night, whose page shows how far it is; `about` is filled, however it ends."""
    night = under_way(job.config)
    if night is not None:
        shown.show(shown.begin, job.config, night.night)
    ended = shown.show(shown.progress, job.config) or (lambda _, __: None)
    try:
        walk_as_tasks(job, made, ended=ended)
    finally:
        about += shown.show(shown.about, job, made) or []


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
    if plan.night.records_minutes:
        threading.Thread(target=_on_records, args=(plan,), name="records", daemon=True).start()
    leave_to_others()  # Prefect ends its nights and pauses the deployment
    night_flow.serve(
        name=plan.name,
        schedule=Cron(cron, timezone=timezone),
        parameters={"config": str(config.resolve())},
        limit=1,
        global_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE),
        version=code_version(),
        tags=shown.tags_of(plan),
        print_starting_message=False,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )


def _on_records(plan: Config) -> None:
    """Ask the server for a night of this process's deployment whenever records came."""
    records = Records(plan, lambda: datetime.now(tz=UTC))
    while True:
        if records.came():
            records.begun()
            shown.show(run_deployment, f"{night_flow.name}/{plan.name}", timeout=0, as_subflow=False)
        time.sleep(LOOK_SECONDS)


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
        "VERSION": code_version(),
        "TAGS": shown.tags_of(plan),
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
