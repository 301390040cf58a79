"""Condense: one set, or one for each group or task, of an encoding's training stays; and the moments behind them."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final, Protocol, final, runtime_checkable

import numpy as np

from flows import registry
from flows.charging.ledger import ledger_of
from flows.compute.devices import device
from flows.compute.maps import calls
from flows.progress import say, steps
from flows.stages.artefacts import Encoded
from flows.streams.tonight import night_set, of_stream, tonight
from flows.workspace.accounted import check_taken, noise_name, noise_source, with_queries
from flows.workspace.job import Job
from pipeline.core.config import Condense
from pipeline.core.digest import digest_json
from pipeline.core.errors import ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.protocols import ignore_step
from pipeline.core.threads import single_threaded
from pipeline.core.types import (
    CondensedSet,
    EncodedCohort,
    Grouping,
    LossCurve,
    Moments,
    Provenance,
    Split,
    Task,
    with_tasks,
)
from pipeline.store import Made

MAX_CURVE_POINTS: Final = 400


@runtime_checkable
class Resumes(Protocol):
    """A condenser that moves samples step by step, and writes down where it stands if it is told where."""

    @property
    def checkpoint(self) -> str | Path | None:
        """The file; an option that no table sets."""
        ...


@runtime_checkable
class ReleasesMoments(Protocol):
    """A condenser whose only look at patients is one release of moments."""

    def release(self, encoded: EncodedCohort, *, noise: NoiseSource) -> Moments:
        """The moments behind its condensed sets."""
        ...


def condense(
    job: Job, name: str, encoded: Made[Encoded], grouping: Made[Grouping] | None, seed_of: str | None = None
) -> Made[CondensedSet]:
    """The training stays of an encoding -> (CondensedSet, LossCurve) by the [condense.NAME] method.

    A table with `tasks = "each_group"` or `"each_task"` makes such a pair for each, the one with the first task first,
    each on one thread: by this process or by workers, they are the same.
    `seed_of` names the table whose seed is taken instead of its own: methods are compared from the same draws.

    Raises:
        ConfigError: a set with a guarantee whose tasks were chosen on real stays.
    """
    table = job.config.condense[name]
    seed = job.seed("condense", seed_of or name)
    where = device(job.config.device)
    options: dict[str, Any] = {
        "condenser": table.model_dump(mode="json"),
        "device": where.split(":")[0],
        **noise_name(job),
    }
    owner = registry.foreign_owner(registry.CONDENSERS, table)
    options |= {} if owner is None else {"plugin": owner}
    parents: tuple[str, ...] = (encoded.first,)
    if grouping is not None and table.by_group:
        parents = (encoded.first, grouping.first)
        options["tasks_chosen"] = job.only(grouping, Grouping).chosen
    stream = of_stream(table)
    night = None if stream is None else tonight(job, name, stream)
    options |= {} if night is None else {"night": night}

    def make(provenance: Provenance) -> tuple[CondensedSet | LossCurve, ...]:
        several = _Sets(job, name, encoded, grouping, provenance)
        if night is not None:
            return several.of_night(night)
        resumes = isinstance(registry.condenser(table), Resumes)
        if table.makes_several and resumes and job.config.compute.by_workers:
            return several.by_workers()
        if (released := several.from_one_release()) is not None:
            return released
        make_one = single_threaded(several.made) if table.makes_several else several.made
        found = [one for number in range(len(several.parts)) for one in make_one(number)]
        _tell_sum(name, [one for one in found if isinstance(one, CondensedSet)])
        return tuple(found)

    return job.once("condense", parents, options, seed, make, [registry.point_of(table)])


@final
class _Sets:
    """The sets of a table, one or one for each group or task, each followed by its loss curve."""

    def __init__(
        self, job: Job, name: str, encoded: Made[Encoded], grouping: Made[Grouping] | None, provenance: Provenance
    ) -> None:
        self._job, self._name, self._encoded, self._grouping = job, name, encoded, grouping
        self._provenance, self._table = provenance, job.config.condense[name]
        self._training = training_part(job, self._table, encoded, grouping)
        found = None if grouping is None else job.only(grouping, Grouping)
        self.parts = wanted_parts(self._table, self._training.tasks, found)

    def from_one_release(self) -> tuple[CondensedSet | LossCurve, ...] | None:
        """All of them from one release of moments, for one price; None for a table that makes one, or none of these."""
        method = registry.condenser(self._table)
        if not self._table.makes_several or not isinstance(method, ReleasesMoments):
            return None
        from condensation.private.condenser import samples_from_moments

        asked: list[str] = []
        noise = noise_source(self._job, self._training, ledger_of(self._job, self._encoded, asked))
        released = method.release(self._training, noise=noise)
        check_taken(self._name, released, self._training, noise)
        told = with_queries(self._provenance, asked)
        found: list[CondensedSet | LossCurve] = []
        for tasks in self.parts:
            n, seed = self._table.n_per_class, self._provenance.seed or 0
            sampled = samples_from_moments(of_tasks(released, tasks), n_per_class=n, seed=seed)
            named = dataclasses.replace(sampled, method=registry.name_of(self._table), provenance=told)
            found += [named, LossCurve(_thinned([]), self._name)]
        return tuple(found)

    def of_night(self, night: int) -> tuple[CondensedSet | LossCurve, ...]:
        """The one set of a stream's night.

        Raises:
            ConfigError: the table asks for several, or its tasks were chosen on real stays; or as `night_set`.
        """
        if len(self.parts) > 1 or self._provenance.config.get("tasks_chosen") == "real_stays":
            raise ConfigError(f"condense.{self._name}: a stream makes one set a night, of tasks that were not chosen")
        part = with_tasks(self._training, self.parts[0])
        made = night_set(self._job, self._name, night, self._encoded, part, self._provenance)
        return made, LossCurve(_thinned([]), self._name)

    def made(self, number: int, *, quiet: bool = False) -> tuple[CondensedSet, LossCurve]:
        """One of them; `quiet` where somebody else tells how far all of them are.

        Raises:
            ConfigError: it carries a guarantee, and its tasks were chosen on real stays; or as `check_taken`.
        """
        part, told = with_tasks(self._training, self.parts[number]), self._provenance
        queries: list[str] = []
        noise = noise_source(self._job, part, ledger_of(self._job, self._encoded, queries))
        asked = digest_json({"parents": list(told.parents), "options": dict(told.config), "seed": told.seed})[:12]
        asked += f"-{number}" * (number > 0)
        condensed, losses = _condensed(self._job, self._name, part, noise, told.seed or 0, asked, quiet=quiet)
        check_taken(self._name, condensed, part, noise)
        if condensed.guarantee is not None and told.config.get("tasks_chosen") == "real_stays":
            raise ConfigError(
                f"condense.{self._name}: its tasks were chosen on real stays, outside the privacy account"
            )
        named = dataclasses.replace(
            condensed, method=registry.name_of(self._table), provenance=with_queries(told, queries)
        )
        return named, LossCurve(_thinned(losses), self._name)

    def by_workers(self) -> tuple[CondensedSet | LossCurve, ...]:
        """Each by whichever worker is free, which puts it into the store."""
        many = len(self.parts)
        told = (self._job, self._name, self._encoded, self._grouping, self._provenance)
        found: list[CondensedSet | LossCurve] = []
        with steps(f"condensing {self._name}", "") as on_step:
            for one, curve in calls(self._job, _set_there, [(*told, number) for number in range(many)]):
                found += [self._job.store.get(one, CondensedSet), self._job.store.get(curve, LossCurve)]
                on_step(len(found) // 2, many, 0.0)
        return tuple(found)


@single_threaded
def _set_there(
    job: Job, name: str, encoded: Made[Encoded], grouping: Made[Grouping] | None, provenance: Provenance, number: int
) -> tuple[str, str]:
    """On a worker: one of a table's sets, put into the store; digests of it and of its loss curve."""
    made, curve = _Sets(job, name, encoded, grouping, provenance).made(number, quiet=True)
    return job.store.put(made), job.store.put(curve)


def _condensed(
    job: Job, name: str, training: EncodedCohort, noise: NoiseSource, seed: int, asked: str, *, quiet: bool
) -> tuple[CondensedSet, list[float]]:
    """One set and the loss while it was made; with a checkpoint, and a file that stops it."""
    from condensation.loop import StopCondensing

    table = job.config.condense[name]
    losses: list[float] = []
    checkpoint, stop = job.folder / f"{name}-{asked}.checkpoint", job.folder / f"stop-{name}"
    if not job.resume:
        checkpoint.unlink(missing_ok=True)
    with nullcontext(ignore_step) if quiet else steps(f"condensing {name}") as draw:

        def on_step(step: int, total: int, loss: float) -> None:
            losses.append(loss)
            draw(step, total, loss)
            if stop.exists():
                say(f"  condensing {name} is stopped by {stop.name}; the best samples so far are kept")
                raise StopCondensing

        method = registry.condenser(table)
        if isinstance(method, Resumes):
            method = registry.condenser(table, checkpoint=checkpoint)
        condensed = method.condense(
            training,
            n_per_class=table.n_per_class,
            seed=seed,
            noise=noise,
            device=device(job.config.device),
            on_step=on_step,
        )
    checkpoint.unlink(missing_ok=True)
    stop.unlink(missing_ok=True)
    return condensed, losses


def _tell_sum(name: str, sets: list[CondensedSet]) -> None:
    """What several private sets about the same people cost together."""
    epsilons = [one.guarantee.epsilon for one in sets if one.guarantee is not None]
    if len(epsilons) > 1:
        say(f"  {name}: {len(epsilons)} private sets about the same people, epsilon {sum(epsilons):g} in sum")


def moments(job: Job, name: str, encoded: Made[Encoded]) -> Made[Moments]:
    """The private moments behind the [condense.NAME] set: the same query, so the same noise and no further cost.

    Raises:
        ConfigError: the method does not rest on moments.
    """
    table = job.config.condense[name]
    options = {"moments": table.model_dump(mode="json"), **noise_name(job)}

    def make(provenance: Provenance) -> tuple[Moments]:
        method = registry.condenser(table)
        if not isinstance(method, ReleasesMoments):
            raise ConfigError(f"release.kind = 'moments', but condense.{name} is a method without moments")
        training = training_part(job, table, encoded, None)
        asked: list[str] = []
        noise = noise_source(job, training, ledger_of(job, encoded, asked))
        released = method.release(training, noise=noise)
        check_taken(name, released, training, noise)
        return (dataclasses.replace(released, provenance=with_queries(provenance, asked)),)

    return job.once("moments", (encoded.first,), options, None, make, [registry.point_of(table)])


def training_part(job: Job, table: Condense, encoded: Made[Encoded], grouping: Made[Grouping] | None) -> EncodedCohort:
    """The training stays with the tasks that the table asks for.

    Subjects are coded anew: the noise of a private release must not be drawn afresh because somebody else came or went.
    """
    training = job.only(encoded, EncodedCohort).part(Split.TRAIN)
    codes = np.unique(training.subject_index, return_inverse=True)[1].astype(np.int32)
    training = dataclasses.replace(training, subject_index=codes)
    found = None if grouping is None else job.only(grouping, Grouping)
    wanted = {task for part in wanted_parts(table, training.tasks, found) for task in part}
    return with_tasks(training, tuple(task for task in training.tasks if task in wanted))


def wanted_parts(table: Condense, tasks: tuple[Task, ...], grouping: Grouping | None) -> tuple[tuple[Task, ...], ...]:
    """The tasks of each set that the table makes, the set with the first task first.

    Raises:
        ConfigError: the table names a task that the cohort does not have.
    """
    if table.tasks == "first":
        return (tasks[:1],)
    if table.tasks == "each_task":
        return tuple((task,) for task in tasks)
    if isinstance(table.tasks, tuple):
        unknown = set(table.tasks) - {task.name for task in tasks}
        if unknown or not table.tasks:
            named = sorted(unknown)[0] if unknown else "none"
            raise ConfigError(f"a condense table's tasks name {named}; there are: {', '.join(t.name for t in tasks)}")
        return (tuple(task for task in tasks if task.name in table.tasks),)
    if table.tasks == "all" or grouping is None:
        return (tasks,)
    groups = [tuple(task for task in tasks if task.name in group) for group in grouping.groups]
    first = next((group for group in groups if tasks[0] in group), tasks[:1])  # it may have been left out
    others = [group for group in groups if tasks[0] not in group]
    return (first, *others) if table.tasks == "each_group" else (first,)


def of_tasks(moments: Moments, tasks: tuple[Task, ...]) -> Moments:
    """The moments of some of their tasks: post-processing."""
    rows = [moments.tasks.index(task) for task in tasks]
    return dataclasses.replace(
        moments, tasks=tasks, signed_sums=moments.signed_sums[rows], signed_counts=moments.signed_counts[rows]
    )


def _thinned(losses: list[float]) -> np.ndarray:
    if not losses:
        return np.zeros(0, np.float32)
    kept = np.unique(np.linspace(0, len(losses) - 1, min(len(losses), MAX_CURVE_POINTS)).astype(int))
    return np.array([losses[index] for index in kept], np.float32)
