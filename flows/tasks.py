"""The road as a Prefect flow: every stage a task.

Prefect sees the path of the run's folder, names and keyed marks; configuration, digests, artefacts and keys stay on the
site's disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast, final

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed, Failed
from prefect.tasks import Task

from flows.run import Stage, Walker, execute, walk
from flows.workspace.job import Job, marks_of, open_job
from pipeline.core.errors import DecoctError, EnvironmentProblem, Held
from pipeline.core.redaction import outward
from pipeline.store import Made


@flow(name="decoct", persist_result=False, validate_parameters=False)
def road(folder: str, resume: bool = False) -> dict[str, Made[Any]] | State[dict[str, Made[Any]]]:
    """The whole road as Prefect tasks; `folder` holds the run's configuration. Held: completed, without a decision."""
    made: dict[str, Made[Any]] = {}
    try:
        walk_as_tasks(open_job(folder, resume=resume), made)
    except Held as held:
        return Completed(name="Held", message=outward(str(held)), data=made)
    except DecoctError as error:  # Prefect raises it, and keeps the message
        return cast("State[dict[str, Made[Any]]]", Failed(message=told(error), data=error))
    return made


def walk_as_tasks(job: Job, made: dict[str, Made[Any]], *, ended: Callable[[str], None] = lambda _: None) -> None:
    """Every stage a Prefect task of the flow that calls this; `made` is filled while they end, `ended` told of each.

    Raises:
        DecoctError: as the stages do. Held: nothing new is to be released.
    """

    def take(label: str, stage: Stage[..., Any], inputs: tuple[Any, ...]) -> Any:
        as_task = run_stage.with_options(name=label, task_run_name=label)
        try:
            result = as_task(str(job.folder), job.resume, label, stage.does, inputs)
        except StageStopped as stopped:
            raise stopped.error from None
        if isinstance(result, Held):
            raise result
        ended(label)
        return result

    walk(job.config, Walker(take, made))


def told(error: DecoctError) -> str:
    """What Prefect may keep of a failure: its exit code, and its sentence without paths and without any figure."""
    return f"exit code {error.exit_code}: {outward(str(error))}"


@final
class StageStopped(Exception):
    """A stage's failure as Prefect may keep it, as its server may be anybody's; `error` is the failure itself."""

    def __init__(self, error: DecoctError) -> None:
        super().__init__(told(error))
        self.error = error


def _disk_or_network(_: Task[Any, Any], __: TaskRun, state: State) -> bool:
    """A share that was away for a moment is worth another try; a broken record is not."""
    return isinstance(state.data, StageStopped) and isinstance(state.data.error, EnvironmentProblem)


@task(
    persist_result=False,
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=_disk_or_network,
)
def run_stage(
    folder: str, resume: bool, label: str, does: Callable[..., Any], inputs: tuple[Any, ...]
) -> Made[Any] | Held | None:
    """One stage as a Prefect task; that a night is held is what it returns, as nothing has failed."""
    try:
        job = replace(open_job(folder, resume=resume), to_release=True)
        made = execute(job, label, does, inputs)
        mark = None if made is None else marks_of(job.config.workspace)(made.first)
    except Held as held:
        return held
    except DecoctError as error:
        raise StageStopped(error) from None
    if made is not None:
        get_run_logger().info("%s made %s in %.1f s, reused: %s", label, mark, made.seconds, made.reused)
    return made
