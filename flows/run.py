"""The road, on one page: `walk` says what feeds what; `walk_until` walks it in this process, `flows.tasks` as a flow.

A stage's module, and what it needs, is loaded when its stage is taken: an unchanged run, or one until an early stage,
does not wait for the libraries of those that do nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, TypeVar, cast, final

from flows.progress import say
from flows.workspace.job import Job
from flows.workspace.locks import shares_workspace
from flows.workspace.logs import logged
from pipeline.core.config import Config
from pipeline.core.redaction import scrubbed
from pipeline.core.types import CondensedSet, EncodedCohort
from pipeline.store import Made


@final
class _Later:
    """Stands for a stage's module: its attributes are functions that load it and call theirs of the same name."""

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*inputs: Any) -> Any:
            return getattr(_module(self._stage), name)(*inputs)

        return call


def _module(stage: str) -> Any:
    """By statements that name the modules: what code reaches is found by the names in its imports."""
    match stage:
        case "audit":
            import flows.stages.audit

            return flows.stages.audit
        case "candidate":
            import flows.stages.candidate

            return flows.stages.candidate
        case "condense":
            import flows.stages.condense

            return flows.stages.condense
        case "decide":
            import flows.stages.decide

            return flows.stages.decide
        case "drift":
            import flows.stages.drift

            return flows.stages.drift
        case "encode":
            import flows.stages.encode

            return flows.stages.encode
        case "group":
            import flows.stages.group

            return flows.stages.group
        case "ingest":
            import flows.stages.ingest

            return flows.stages.ingest
        case "prepare":
            import flows.stages.prepare

            return flows.stages.prepare
        case "release":
            import flows.stages.release

            return flows.stages.release
        case "report":
            import flows.stages.report

            return flows.stages.report
        case "utility":
            import flows.stages.utility

            return flows.stages.utility
        case "validate":
            import flows.stages.validate

            return flows.stages.validate
        case _:
            raise AttributeError(stage)


if TYPE_CHECKING:
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
else:
    audit = _Later("audit")
    candidate = _Later("candidate")
    condense = _Later("condense")
    decide = _Later("decide")
    drift = _Later("drift")
    encode = _Later("encode")
    group = _Later("group")
    ingest = _Later("ingest")
    prepare = _Later("prepare")
    release = _Later("release")
    report = _Later("report")
    utility = _Later("utility")
    validate = _Later("validate")

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


def execute(job: Job, label: str, does: Callable[..., Any], inputs: tuple[Any, ...]) -> Made[Any] | None:
    """Run one stage; only a clean sentence, or the digests of what was made, leaves it."""
    made: Made[Any] | None
    with logged(job.folder, label) as tell, scrubbed(label):
        made = does(job, *inputs)
        tell(made)
    if made is not None:
        say(f"  {label:<28} {made.first[:12]}  {'found in the store' if made.reused else f'{made.seconds:.1f} s'}")
    return made
