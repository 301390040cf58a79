"""The road, on one page: `walk` says what feeds what; `road` walks it as a Prefect flow, `walk_until` in this process.

Prefect sees the path of the run's folder, names and digests; configuration, artefacts and keys stay on the site's disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast, final

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
from flows.workspace.job import open_job
from flows.workspace.locks import shares_workspace
from flows.workspace.logs import logged
from pipeline.core.config import Config
from pipeline.core.errors import DecoctError, EnvironmentProblem, Held
from pipeline.core.redaction import outward, scrubbed
from pipeline.store import Made

Stage = Callable[..., Made | None]
Runner = Callable[[str, Stage, tuple[Any, ...]], Made | None]


@final
@dataclass
class Walker:
    """Runs stages one by one and remembers what they made, by label."""

    run: Runner
    made: dict[str, Made] = field(default_factory=dict)

    def __call__(self, label: str, stage: Stage, *inputs: Any) -> Any:
        result = self.run(label, stage, inputs)
        if result is not None:
            self.made[label] = result
        return result


@shares_workspace("decoct run")
def walk(plan: Config, step: Walker) -> None:
    """Source records -> a signed, audited bundle and a report."""
    cohort = step("ingest", ingest.ingest)
    step("validate cohort", validate.validate, "cohort", cohort)
    judged = step("drift", drift.drift, cohort)
    step("enough new", drift.enough_new, cohort, judged)
    prepared = step("prepare", prepare.prepare, cohort)
    encoded = {name: step(f"encode {name}", encode.encode, name, prepared) for name in plan.encode}
    groups = step("group", group.group, prepared)
    condensed = {
        name: step(f"condense {name}", condense.condense, name, encoded[table.input], groups)
        for name, table in plan.condense.items()
    }
    for name, artefact in {**encoded, **condensed}.items():
        step(f"validate {name}", validate.validate, name, artefact)
    scores = step("utility", utility.utility, encoded, condensed)
    step("floor", utility.floor, scores, step.made)
    chosen = step("candidate", candidate.candidate, encoded, condensed)
    leakage = step("audit", audit.audit, prepared, encoded, condensed, chosen)
    decision = step("decide", decide.decide, chosen, leakage, scores)
    released = step("release", release.release, cohort, chosen, leakage, scores, decision)
    step("accept", drift.accept, cohort, judged, released)
    step("report", report.report, step.made)
    step("gate", decide.enforce, chosen, leakage, scores, decision)


@flow(name="decoct", persist_result=False, validate_parameters=False)
def road(folder: str, resume: bool = False) -> dict[str, Made] | State[dict[str, Made]]:
    """The whole road as Prefect tasks; `folder` holds the run's configuration. Held: completed, without a decision."""
    made: dict[str, Made] = {}
    try:
        walk_as_tasks(folder, made, resume=resume)
    except Held as held:
        return Completed(name="Held", message=outward(str(held)), data=made)
    except DecoctError as error:  # Prefect raises it, and keeps the message
        return cast("State[dict[str, Made]]", Failed(message=told(error), data=error))
    return made


def walk_as_tasks(
    folder: str, made: dict[str, Made], *, resume: bool, ended: Callable[[str], None] = lambda _: None
) -> None:
    """Every stage a Prefect task of the flow that calls this; `made` is filled while they end, `ended` told of each.

    Raises:
        DecoctError: as the stages do. Held: nothing new is to be released.
    """

    def run(label: str, stage: Stage, inputs: tuple[Any, ...]) -> Made | None:
        try:
            result = run_stage.with_options(name=label, task_run_name=label)(folder, resume, label, stage, inputs)
        except StageStopped as stopped:
            raise stopped.error from None
        if isinstance(result, Held):
            raise result
        ended(label)
        return result

    walk(open_job(folder, resume=resume).config, Walker(run, made))


def walk_here(folder: str, made: dict[str, Made], *, resume: bool) -> None:
    """Every stage in this process, without Prefect; otherwise as `walk_as_tasks`."""

    def run(label: str, stage: Stage, inputs: tuple[Any, ...]) -> Made | None:
        return execute(folder, resume, label, stage, inputs)

    walk(open_job(folder, resume=resume).config, Walker(run, made))


VERB_STAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "ingest": ("ingest", "validate cohort"),
    "encode": ("prepare", "encode"),
    "group": ("group",),
    "condense": ("condense",),
    "validate": ("validate", "utility"),
    "audit": ("candidate", "audit"),
    "release": ("decide", "release", "accept", "report", "gate"),
}
"""Which labels (or their first words) a verb makes; what comes before is taken from the store, or made if missing."""
GATES: Final = frozenset({"drift", "enough new", "floor"})
"""Between the stages of a whole run; a verb that asks for less than a release is not stopped by them."""


def walk_until(folder: str, verb: str, *, resume: bool) -> dict[str, Made]:
    """The road up to and with the verb's stages, without Prefect."""
    verbs = tuple(VERB_STAGES)
    wanted = {label for name in verbs[: verbs.index(verb) + 1] for label in VERB_STAGES[name]}
    plan = open_job(folder, resume=resume).config

    def run(label: str, stage: Stage, inputs: tuple[Any, ...]) -> Made | None:
        if label in GATES:
            return execute(folder, True, label, stage, inputs) if verb == verbs[-1] else None
        if not _belongs(label, wanted):
            raise _FarEnough
        return execute(folder, resume or not _belongs(label, set(VERB_STAGES[verb])), label, stage, inputs)

    step = Walker(run)
    with suppress(_FarEnough):
        walk(plan, step)
    return step.made


@final
class _FarEnough(Exception):
    """The verb's last stage is behind us."""


def _belongs(label: str, wanted: set[str]) -> bool:
    return label in wanted or label.split()[0] in wanted


def execute(folder: str, resume: bool, label: str, stage: Stage, inputs: tuple[Any, ...]) -> Made | None:
    """Run one stage; only a clean sentence, or the digests of what was made, leaves it."""
    with logged(Path(folder), label) as tell, scrubbed(label):
        made = stage(open_job(folder, resume=resume), *inputs)
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
def run_stage(folder: str, resume: bool, label: str, stage: Stage, inputs: tuple[Any, ...]) -> Made | Held | None:
    """One stage as a Prefect task; that a night is held is what it returns, as nothing has failed."""
    try:
        made = execute(folder, resume, label, stage, inputs)
    except Held as held:
        return held
    except DecoctError as error:
        raise StageStopped(error) from None
    if made is not None:
        get_run_logger().info("%s made %s in %.1f s, reused: %s", label, made.first[:12], made.seconds, made.reused)
    return made
