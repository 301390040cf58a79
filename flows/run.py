"""The road, on one page: `walk` says what feeds what; `road` walks it as a Prefect flow, `walk_until` in this process.

Prefect sees the path of the run's folder, names and keyed marks; configuration, digests, artefacts and keys stay on the
site's disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar, cast, final

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed, Failed
from prefect.tasks import Task

from flows.progress import say
from flows.stages import (
    audit,
    candidate,
    condense,
    decide,
    drift,
    encode,
    group,
    ingest,
    prepare,
    release,
    report,
    utility,
    validate,
)
from flows.workspace.job import Job, marks_of, open_job
from flows.workspace.locks import shares_workspace
from flows.workspace.logs import logged
from pipeline.core.config import Config
from pipeline.core.errors import DecoctError, EnvironmentProblem, Held
from pipeline.core.redaction import outward, scrubbed
from pipeline.core.types import CondensedSet, EncodedCohort
from pipeline.store import Made

P = ParamSpec("P")
R = TypeVar("R")


@final
@dataclass(frozen=True)
class Stage(Generic[P, R]):
    """A row of the table below: its name, the verb whose own work it is, and what does it.

    A gate stands between the stages of a whole run: what it found before is taken from the store, whatever is redone.
    """

    name: str
    verb: str
    does: Callable[Concatenate[Job, P], R]
    gate: bool = False

    def label(self, inputs: tuple[Any, ...]) -> str:
        """What one taking of it is called: with the name of the table that it is about, if that comes first."""
        return f"{self.name} {inputs[0]}" if inputs and isinstance(inputs[0], str) else self.name


VERBS: Final = ("ingest", "encode", "group", "condense", "validate", "audit", "release")
"""In the order of the road: a verb's stages are fed by its own and earlier ones'."""

INGEST: Final = Stage("ingest", "ingest", ingest.ingest)
VALIDATE_COHORT: Final = Stage("validate", "ingest", validate.validate)
DRIFT: Final = Stage("drift", "release", drift.drift, gate=True)
ENOUGH_NEW: Final = Stage("enough new", "release", drift.enough_new, gate=True)
PREPARE: Final = Stage("prepare", "encode", prepare.prepare)
ENCODE: Final = Stage("encode", "encode", encode.encode)
GROUP: Final = Stage("group", "group", group.group)
CONDENSE: Final = Stage("condense", "condense", condense.condense)
VALIDATE: Final = Stage("validate", "validate", validate.validate)
UTILITY: Final = Stage("utility", "validate", utility.utility)
FLOOR: Final = Stage("floor", "release", report.floor, gate=True)
CANDIDATE: Final = Stage("candidate", "audit", candidate.candidate)
AUDIT: Final = Stage("audit", "audit", audit.audit)
DECIDE: Final = Stage("decide", "release", decide.decide)
RELEASE: Final = Stage("release", "release", release.release)
ACCEPT: Final = Stage("accept", "release", drift.accept)
REPORT: Final = Stage("report", "release", report.report)
ENFORCE: Final = Stage("gate", "release", decide.enforce)

Take = Callable[[str, Stage[..., Any], tuple[Any, ...]], Any]


@final
@dataclass
class Walker:
    """Takes stages one by one and remembers what they made, by label."""

    take: Take
    made: dict[str, Made[Any]] = field(default_factory=dict)

    def __call__(self, stage: Stage[P, R], *inputs: P.args, **named: P.kwargs) -> R:
        if named:
            raise TypeError("a stage's inputs are given in their order")
        label = stage.label(inputs)
        result = self.take(label, stage, inputs)
        if result is not None:
            self.made[label] = result
        return cast(R, result)


@shares_workspace("decoct run")
def walk(plan: Config, step: Walker) -> None:
    """Source records -> a signed, audited bundle and a report."""
    cohort = step(INGEST)
    step(VALIDATE_COHORT, "cohort", cohort)
    judged = step(DRIFT, cohort)
    step(ENOUGH_NEW, cohort, judged)
    prepared = step(PREPARE, cohort)
    encoded = {name: step(ENCODE, name, prepared) for name in plan.encode}
    groups = step(GROUP, prepared)
    condensed = {name: step(CONDENSE, name, encoded[table.input], groups) for name, table in plan.condense.items()}
    everything: dict[str, Made[EncodedCohort | CondensedSet]] = {**encoded, **condensed}
    for name, artefact in everything.items():
        step(VALIDATE, name, artefact)
    scores = step(UTILITY, encoded, condensed)
    step(FLOOR, scores, step.made)
    chosen = step(CANDIDATE, encoded, condensed)
    leakage = step(AUDIT, prepared, encoded, condensed, chosen)
    decision = step(DECIDE, chosen, leakage, scores)
    released = step(RELEASE, cohort, chosen, leakage, scores, decision)
    step(ACCEPT, cohort, judged, released)
    step(REPORT, step.made)
    step(ENFORCE, chosen, leakage, scores, decision)


def walk_until(job: Job, verb: str = VERBS[-1], made: dict[str, Made[Any]] | None = None) -> dict[str, Made[Any]]:
    """The road up to and with the verb's stages, in this process; `made` is filled while they end.

    What the verb itself makes is made anew unless the job resumes; what comes before is taken from the store, or made
    if missing. Stages of later verbs are left out: they stand after all others on the road, so nothing misses them.

    Raises:
        DecoctError: as the stages do. Held: nothing new is to be released.
    """
    job = replace(job, to_release=verb == VERBS[-1])
    known = replace(job, resume=True)

    def take(label: str, stage: Stage[..., Any], inputs: tuple[Any, ...]) -> Any:
        if VERBS.index(stage.verb) > VERBS.index(verb):
            return None
        own = verb in (stage.verb, stage.name) and not stage.gate
        return execute(job if own else known, label, stage.does, inputs)

    step = Walker(take, {} if made is None else made)
    walk(job.config, step)
    return step.made


def labels(plan: Config) -> tuple[str, ...]:
    """What all of the road's steps are called, in order; nothing is made."""
    found: list[str] = []
    walk(plan, Walker(lambda label, _, __: found.append(label)))
    return tuple(found)


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


def execute(job: Job, label: str, does: Callable[..., Any], inputs: tuple[Any, ...]) -> Made[Any] | None:
    """Run one stage; only a clean sentence, or the digests of what was made, leaves it."""
    made: Made[Any] | None
    with logged(job.folder, label) as tell, scrubbed(label):
        made = does(job, *inputs)
        tell(made)
    if made is not None:
        say(f"  {label:<28} {made.first[:12]}  {'found in the store' if made.reused else f'{made.seconds:.1f} s'}")
    return made


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
