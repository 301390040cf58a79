"""The road, on one page: `walk` says what feeds what; `walk_until` walks it in this process, `flows.tasks` as a flow.

A stage's module loads what makes its artefact where it makes it: an unchanged run, or one until an early stage, does
not wait for the libraries of those that do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar, cast, final

from flows.compute.maps import calls
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
from flows.stopping import at_most
from flows.workspace.job import Job
from flows.workspace.locks import shares_workspace
from flows.workspace.logs import logged
from pipeline.core.config import Config
from pipeline.core.redaction import scrubbed
from pipeline.core.types import CondensedSet, EncodedCohort
from pipeline.store import Made

P = ParamSpec("P")
R = TypeVar("R")


@final
@dataclass(frozen=True)
class Stage(Generic[P, R]):
    """A row of the table below: its name, the verb whose own work it is, and what does it.

    A gate stands between the stages of a whole run: what it found before is taken from the store, whatever is redone.
    `whole`: whether a taking is a piece for one worker; one that gives pieces to workers itself is not.
    """

    name: str
    verb: str
    does: Callable[Concatenate[Job, P], R]
    gate: bool = False
    whole: Callable[[Config, str], bool] = lambda _, __: False  # of the configuration and the table's name

    def label(self, inputs: tuple[Any, ...]) -> str:
        """What one taking of it is called: with the name of the table that it is about, if that comes first."""
        return f"{self.name} {inputs[0]}" if inputs and isinstance(inputs[0], str) else self.name

    def of(self, *inputs: P.args, **named: P.kwargs) -> Taking[R]:
        """One taking of it, for `Walker.each`."""
        if named:
            raise TypeError("a stage's inputs are given in their order")
        return Taking(self, inputs)


@final
@dataclass(frozen=True)
class Taking(Generic[R]):
    """A stage and what it is given."""

    stage: Stage[..., R]
    inputs: tuple[Any, ...]

    @property
    def label(self) -> str:
        """As `Stage.label`."""
        return self.stage.label(self.inputs)


VERBS: Final = ("ingest", "encode", "group", "condense", "validate", "audit", "release")
"""In the order of the road: a verb's stages are fed by its own and earlier ones'."""

INGEST: Final = Stage("ingest", "ingest", ingest.ingest)
VALIDATE_COHORT: Final = Stage("validate", "ingest", validate.validate)
DRIFT: Final = Stage("drift", "release", drift.drift, gate=True)
ENOUGH_NEW: Final = Stage("enough new", "release", drift.enough_new, gate=True)
RELEASABLE: Final = Stage("releasable", "release", decide.releasable, gate=True)
PREPARE: Final = Stage("prepare", "encode", prepare.prepare)
ENCODE: Final = Stage("encode", "encode", encode.encode)
GROUP: Final = Stage("group", "group", group.group)
CONDENSE: Final = Stage(
    "condense", "condense", condense.condense, whole=lambda plan, name: not plan.condense[name].makes_several
)
VALIDATE: Final = Stage("validate", "validate", validate.validate, whole=lambda _, __: True)
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
TakeAll = Callable[[Sequence[Taking[Any]]], Iterable[Any]]


@final
@dataclass
class Walker:
    """Takes stages and remembers what they made, by label; `take_all` those of which none needs another's result."""

    take: Take
    made: dict[str, Made[Any]] = field(default_factory=dict)
    take_all: TakeAll | None = None

    def __call__(self, stage: Stage[P, R], *inputs: P.args, **named: P.kwargs) -> R:
        taking = stage.of(*inputs, **named)
        return cast(R, self._keep(taking, self.take(taking.label, stage, inputs)))

    def each(self, given: Mapping[str, Taking[R]]) -> dict[str, R]:
        """What each makes, of which none needs another's result, under the names that they are given by."""
        takings = tuple(given.values())
        take_all = self._one_by_one if self.take_all is None else self.take_all
        results = zip(given.items(), take_all(takings), strict=True)
        return {name: cast(R, self._keep(taking, result)) for (name, taking), result in results}

    def _one_by_one(self, takings: Sequence[Taking[Any]]) -> Iterator[Any]:
        return (self.take(one.label, one.stage, one.inputs) for one in takings)

    def _keep(self, taking: Taking[Any], result: Any) -> Any:
        if result is not None:
            self.made[taking.label] = result
        return result


@shares_workspace("decoct run")
def walk(plan: Config, step: Walker) -> None:
    """Source records -> a signed, audited bundle and a report."""
    cohort = step(INGEST)
    step(VALIDATE_COHORT, "cohort", cohort)
    judged = step(DRIFT, cohort)
    step(ENOUGH_NEW, cohort, judged)
    step(RELEASABLE, cohort)
    prepared = step(PREPARE, cohort)
    encoded = step.each({name: ENCODE.of(name, prepared) for name in plan.encode})
    groups = step(GROUP, prepared)
    condensed = step.each(
        {name: CONDENSE.of(name, encoded[table.input], groups) for name, table in plan.condense.items()}
    )
    everything: dict[str, Made[EncodedCohort | CondensedSet]] = {**encoded, **condensed}
    step.each({name: VALIDATE.of(name, artefact) for name, artefact in everything.items()})
    scores = step(UTILITY, encoded, condensed)
    step(FLOOR, scores, step.made)
    chosen = step(CANDIDATE, encoded, condensed)
    leakage = step(AUDIT, prepared, encoded, condensed, chosen)
    decision = step(DECIDE, chosen, leakage, scores)
    released = step(RELEASE, cohort, chosen, leakage, scores, decision)
    step(ACCEPT, cohort, judged, released)
    step(REPORT, step.made)
    step(ENFORCE, chosen, leakage, scores, decision, released)


def walk_until(job: Job, verb: str = VERBS[-1], made: dict[str, Made[Any]] | None = None) -> dict[str, Made[Any]]:
    """The road up to and with the verb's stages, in this process; `made` is filled while they end.

    What the verb itself makes is made anew unless the job resumes; what comes before is taken from the store, or made
    if missing. Stages of later verbs are left out: they stand after all others on the road, so nothing misses them.

    Raises:
        DecoctError: as the stages do. Held: nothing new is to be released.
    """
    job = replace(job, to_release=verb == VERBS[-1])
    known = replace(job, resume=True)

    def take(_: str, stage: Stage[..., Any], inputs: tuple[Any, ...]) -> Any:
        (result,) = take_all([Taking(stage, inputs)])
        return result

    def take_all(takings: Sequence[Taking[Any]]) -> Iterable[Any]:
        stage = takings[0].stage
        if VERBS.index(stage.verb) > VERBS.index(verb):
            return (None for _ in takings)
        own = verb in (stage.verb, stage.name) and not stage.gate
        return side_by_side(job if own else known, takings)

    step = Walker(take, {} if made is None else made, take_all)
    walk(job.config, step)
    return step.made


def labels(plan: Config) -> tuple[str, ...]:
    """What all of the road's steps are called, in order; nothing is made."""
    found: list[str] = []
    walk(plan, Walker(lambda label, _, __: found.append(label)))
    return tuple(found)


def side_by_side(job: Job, takings: Sequence[Taking[Any]]) -> Iterator[Any]:
    """What each makes, in their order: by workers where there are some, else one after the other.

    In one process they are not mixed: the state of torch's generator, and how many threads add a sum up, are its own.

    Raises:
        DecoctError: as the stages do, and as `flows.compute.maps.calls`.
    """
    if not on_workers(job, takings):
        yield from (execute(job, one.label, one.stage.does, one.inputs) for one in takings)
    else:
        told = [(job, job.to_release, one.label, one.stage.does, one.inputs) for one in takings]
        yield from calls(job, _execute_there, told)


def on_workers(job: Job, takings: Sequence[Taking[Any]]) -> bool:
    """Whether these are given to workers: whole stages, unless all that they begin with was found in the store.

    What comes of that is likely to be there as well, and the start of a worker takes longer than to look.
    """
    if len(takings) < 2 or not job.config.compute.by_workers:
        return False
    begun_with = [made for one in takings for made in one.inputs if isinstance(made, Made)]
    whole = all(one.stage.whole(job.config, str(one.inputs[0])) for one in takings)
    return whole and not all(made.reused for made in begun_with)


def _execute_there(
    job: Job, to_release: bool, label: str, does: Callable[..., Any], inputs: tuple[Any, ...]
) -> Made[Any] | None:
    """On a worker: one stage of several."""
    return execute(replace(job, to_release=to_release), label, does, inputs)


def execute(job: Job, label: str, does: Callable[..., Any], inputs: tuple[Any, ...]) -> Made[Any] | None:
    """Run one stage; only a clean sentence, or the digests of what was made, leaves it."""
    made: Made[Any] | None
    with (
        logged(job.folder, label) as tell,
        scrubbed(label),
        at_most(job.config.night.stage_minutes if job.night else 0, label),
    ):
        made = does(job, *inputs)
        tell(made)
    if made is not None:
        say(f"  {label:<28} {made.first[:12]}  {'found in the store' if made.reused else f'{made.seconds:.1f} s'}")
    return made
