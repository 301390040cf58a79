"""The road by Prefect: every stage is a task run under its own name, and every attack of the audit one of its own.

Prefect sees the path of the run's folder, names and keyed marks; configuration, digests, artefacts and keys stay on the
site's disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final, cast, final

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed, Failed
from prefect.tasks import Task

from flows.environment import no_core_dumps
from flows.progress import pieces_shown_by
from flows.run import Stage, Taking, Walker, execute, on_workers, side_by_side, walk
from flows.workspace.job import Job, marks_of, open_job
from pipeline.core.errors import DecoctError, EnvironmentProblem, Held, TookTooLong
from pipeline.core.redaction import outward
from pipeline.core.types import NotRun
from pipeline.store import Made

Ended = Callable[[str, float], None]
"""Given a stage's label, and the share of it that has ended."""

RETRIES: Final = 2


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


def walk_as_tasks(job: Job, made: dict[str, Made[Any]], *, ended: Ended = lambda _, __: None) -> None:
    """Every stage a Prefect task of the flow that calls this; `made` is filled while they end, `ended` told of each.

    Raises:
        DecoctError: as the stages do. Held: nothing new is to be released.
    """
    no_core_dumps()
    job, mark = replace(job, to_release=True), marks_of(job.config.workspace)

    def take(label: str, stage: Stage[..., Any], inputs: tuple[Any, ...]) -> Any:
        def make() -> Made[Any] | None:
            return execute(job, label, stage.does, inputs)

        def show(what: str, done: int, total: int, piece: Callable[[], Any]) -> Any:
            found = _as_piece(what, piece)
            ended(label, done / total)
            return found

        try:
            with pieces_shown_by(show):
                result = _stage(label, stage, RETRIES)(label, mark, make, inputs)
        except StageStopped as stopped:
            raise stopped.error from None
        if isinstance(result, Held):
            raise result
        ended(label, 1.0)
        return result

    def take_all(takings: Sequence[Taking[Any]]) -> Iterable[Any]:
        if not on_workers(job, takings):
            return (take(one.label, one.stage, one.inputs) for one in takings)
        return _on_workers(job, mark, takings, ended)

    walk(job.config, Walker(take, made, take_all))


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
    error = state.data.error if isinstance(state.data, StageStopped) else None
    return isinstance(error, EnvironmentProblem) and not isinstance(error, TookTooLong)


def _stage(label: str, stage: Stage[..., Any], retries: int) -> Task[Any, Any]:
    """The task of a stage: a kind of its own to Prefect, so that figures and limits (by tag) are a stage's."""
    made = run_stage.with_options(name=label, task_run_name=label, retries=retries, tags=[f"stage:{stage.name}"])
    made.task_key = f"decoct.{stage.name}".replace(" ", "-")
    return made


@task(persist_result=False, cache_policy=NO_CACHE, retry_delay_seconds=5, retry_condition_fn=_disk_or_network)
def run_stage(
    label: str, mark: Callable[[str], str], make: Callable[[], Made[Any] | None], inputs: tuple[Any, ...]
) -> Made[Any] | Held | None:
    """One stage as a Prefect task; that a night is held is what it returns, as nothing has failed.

    Prefect takes from `inputs` which task runs came before; it keeps none of the arguments.
    """
    try:
        made = make()
    except Held as held:
        return held
    except DecoctError as error:
        raise StageStopped(error) from None
    if made is not None:
        get_run_logger().info("%s made %s in %.1f s, reused: %s", label, mark(made.first), made.seconds, made.reused)
    return made


def _on_workers(job: Job, mark: Callable[[str], str], takings: Sequence[Taking[Any]], ended: Ended) -> Iterator[Any]:
    """The stages that workers make at one time are task runs at one time, each of which waits for its own."""
    waited = [Future[Any]() for _ in takings]
    runs = [
        _stage(one.label, one.stage, 0).submit(one.label, mark, future.result, one.inputs)
        for one, future in zip(takings, waited, strict=True)
    ]
    try:
        for one, future, run, made in zip(takings, waited, runs, side_by_side(job, takings), strict=True):
            future.set_result(made)
            ended(one.label, 1.0)
            yield run.result()
    except BaseException as error:
        for future in waited:
            if not future.done():
                future.set_exception(error if isinstance(error, DecoctError) else EnvironmentProblem("interrupted"))
        raise


def _as_piece(what: str, make: Callable[[], Any]) -> Any:
    """What `make` makes, as a task run of its own; Prefect is given neither the result nor an exception."""
    kept: list[Any] = []

    def piece() -> State[None]:
        try:
            kept.append(make())
        except Exception as error:
            kept.append(error)
            return Failed(message=told(error) if isinstance(error, DecoctError) else type(error).__name__)
        if not isinstance(kept[0], NotRun):
            return Completed()
        reason = outward(kept[0].reason)
        return Failed(message=reason) if kept[0].failed else Completed(name="NotRun", message=reason)

    named = task(
        name=what.partition(" on ")[0], task_run_name=what, tags=["attack"], persist_result=False, cache_policy=NO_CACHE
    )
    named(piece)(return_state=True)
    if isinstance(kept[0], Exception):
        raise kept[0]
    return kept[0]
