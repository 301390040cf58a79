"""Encode, group and condense."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final, Protocol, runtime_checkable

import numpy as np

from condensation.loop import StopCondensing
from condensation.private import samples_from_moments
from encoders.calibrate import Randomisable, calibrated
from encoders.dense import static_channels, summaries
from flows import registry
from flows.accounted import ledger_of
from flows.job import Job
from flows.progress import say, steps
from flows.stages import blocks
from pipeline.core.config import Condense, DistributionMatching, EncodeTable, KeyedEncode, Matching
from pipeline.core.digest import digest_array, digest_json
from pipeline.core.errors import ConfigError
from pipeline.core.noise import NoiseSource, Reserve
from pipeline.core.protocols import FittedEncoder
from pipeline.core.secrets import Secret
from pipeline.core.types import (
    Cohort,
    CondensedSet,
    EncodedCohort,
    Grouping,
    LossCurve,
    Moments,
    Provenance,
    Split,
    Task,
)
from pipeline.store import Made

MAX_CURVE_POINTS: Final = 400
OF_TABLE: Final = " / "  # no table's name has it


@runtime_checkable
class ReleasesMoments(Protocol):
    """A condenser whose only look at patients is one release of moments."""

    def release(self, encoded: EncodedCohort, *, noise: NoiseSource) -> Moments:
        """The moments behind its condensed sets."""
        ...


def device(wanted: str) -> str:
    """`auto` is the accelerator torch has, else the CPU."""
    if wanted != "auto":
        return wanted
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def encode(job: Job, name: str, prepared: Made) -> Made:
    """Prepared series -> the [encode.NAME] encoding of them, with the site's encoder key."""
    table = job.config.encode[name]
    key = job.secret("encoder")
    options = {"encoder": table.model_dump(mode="json"), "key": key.fingerprint}
    options |= _noise_name(job) if table.is_random else {}
    where = device(job.config.device)

    def make(provenance: Provenance) -> tuple[EncodedCohort]:
        given = encoder_input(job, name, prepared)
        fitted = fitted_encoder(table, given, key)
        apart = table.data == "series" and where == "cpu"
        encoded = blocks.encoded(job, name, given, prepared.first, fitted) if apart else None
        if encoded is None:
            encoded = fitted.encode(given, noise=noise_source(job, given), device=where)
        return (dataclasses.replace(encoded, provenance=provenance),)

    return job.once("encode", (prepared.first,), options, None, make)


def fitted_encoder(table: EncodeTable, given: EncodedCohort, key: Secret) -> FittedEncoder:
    """The encoder of an [encode.NAME] table with its key, and with the noise that its `target_rmse` asks for."""
    encoder = registry.encoder(table)
    target = table.target_rmse if isinstance(table, KeyedEncode) else None
    if target is not None and isinstance(encoder, Randomisable):
        encoder = calibrated(encoder, target, given, key)
    return encoder.fit(given, key)


def encoder_input(job: Job, name: str, prepared: Made) -> EncodedCohort:
    """What the [encode.NAME] table encodes: the prepared series, or a vector of summaries for every stay."""
    series: EncodedCohort = job.only(prepared, EncodedCohort)
    if job.config.encode[name].data == "series":
        return series
    return summaries(series, static_channels(cohort_of(job, series)))


def cohort_of(job: Job, prepared: EncodedCohort) -> Cohort:
    """The raw cohort that the prepared series were made from."""
    cohort: Cohort = job.store.get(prepared.provenance.parents[0], Cohort)
    return cohort


def condense(job: Job, name: str, encoded: Made, grouping: Made | None, seed_of: str | None = None) -> Made:
    """The training stays of an encoding -> (CondensedSet, LossCurve) by the [condense.NAME] method.

    A table with `tasks = "each_group"` or `"each_task"` makes such a pair for each, the one with the first task first.
    `seed_of` names the table whose seed is taken instead of its own: methods are compared from the same draws.

    Raises:
        ConfigError: a set with a guarantee whose tasks were chosen on real stays.
    """
    table = job.config.condense[name]
    seed = job.seed("condense", seed_of or name)
    where = device(job.config.device)
    options = {"condenser": table.model_dump(mode="json"), "device": where.split(":")[0], **_noise_name(job)}
    parents: tuple[str, ...] = (encoded.first,)
    if grouping is not None and table.by_group:
        parents = (encoded.first, grouping.first)
        options["tasks_chosen"] = job.only(grouping, Grouping).chosen

    def make(provenance: Provenance) -> tuple[CondensedSet | LossCurve, ...]:
        training = training_part(job, table, encoded, grouping)
        asked = digest_json({"parents": list(parents), "options": options, "seed": seed})[:12]
        noise = noise_source(job, training, ledger_of(job, encoded))
        method = registry.condenser(table)
        parts = wanted_parts(table, training.tasks, None if grouping is None else job.only(grouping, Grouping))
        found: list[CondensedSet | LossCurve] = []
        if table.makes_several and isinstance(method, ReleasesMoments):  # one release serves them all, for one price
            released = method.release(training, noise=noise)
            for tasks in parts:
                sampled = samples_from_moments(of_tasks(released, tasks), n_per_class=table.n_per_class, seed=seed)
                found += [dataclasses.replace(sampled, provenance=provenance), LossCurve(_thinned([]), name)]
            return tuple(found)
        for number, tasks in enumerate(parts):
            part = with_tasks(training, tasks)
            source = noise if len(parts) == 1 else noise_source(job, part, ledger_of(job, encoded))
            condensed, losses = _condensed(job, name, part, source, seed, asked + f"-{number}" * (number > 0))
            if condensed.guarantee is not None and options.get("tasks_chosen") == "real_stays":
                raise ConfigError(f"condense.{name}: its tasks were chosen on real stays, outside the privacy account")
            found += [dataclasses.replace(condensed, provenance=provenance), LossCurve(_thinned(losses), name)]
        _tell_sum(name, [one for one in found if isinstance(one, CondensedSet)])
        return tuple(found)

    return job.once("condense", parents, options, seed, make)


def condensed_sets(job: Job, made: Made) -> tuple[CondensedSet, ...]:
    """All sets of a table: one, or one for each group or task; a loss curve follows each."""
    return tuple(job.only(made, CondensedSet, position) for position in range(0, len(made.digests), 2))


def set_name(table: str, number: int) -> str:
    """How a table's set is called where sets stand side by side: the first has the table's own name."""
    return f"{table}{OF_TABLE}{number + 1}" if number else table


def table_of(name: str) -> str:
    """The table of a `set_name`."""
    return name.split(OF_TABLE)[0]


def _condensed(
    job: Job, name: str, training: EncodedCohort, noise: NoiseSource, seed: int, asked: str
) -> tuple[CondensedSet, list[float]]:
    """One set and the loss while it was made; with a checkpoint, and a file that stops it."""
    table = job.config.condense[name]
    losses: list[float] = []
    checkpoint, stop = job.folder / f"{name}-{asked}.checkpoint", job.folder / f"stop-{name}"
    if not job.resume:
        checkpoint.unlink(missing_ok=True)
    with steps(f"condensing {name}") as draw:

        def on_step(step: int, total: int, loss: float) -> None:
            losses.append(loss)
            draw(step, total, loss)
            if stop.exists():
                say(f"  condensing {name} is stopped by {stop.name}; the best samples so far are kept")
                raise StopCondensing

        more = {"checkpoint": checkpoint} if isinstance(table, Matching | DistributionMatching) else {}
        condensed = registry.condenser(table, **more).condense(
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


def moments(job: Job, name: str, encoded: Made) -> Made:
    """The private moments behind the [condense.NAME] set: the same query, so the same noise and no further cost.

    Raises:
        ConfigError: the method does not rest on moments.
    """
    table = job.config.condense[name]
    options = {"moments": table.model_dump(mode="json"), **_noise_name(job)}

    def make(provenance: Provenance) -> tuple[Moments]:
        method = registry.condenser(table)
        if not isinstance(method, ReleasesMoments):
            raise ConfigError(f"release.kind = 'moments', but condense.{name} is a method without moments")
        training = training_part(job, table, encoded, None)
        released = method.release(training, noise=noise_source(job, training, ledger_of(job, encoded)))
        return (dataclasses.replace(released, provenance=provenance),)

    return job.once("moments", (encoded.first,), options, None, make)


def training_part(job: Job, table: Condense, encoded: Made, grouping: Made | None) -> EncodedCohort:
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


def with_tasks(cohort: EncodedCohort, tasks: tuple[Task, ...]) -> EncodedCohort:
    """The cohort with those of its tasks only, in its own order."""
    kept = [index for index, task in enumerate(cohort.tasks) if task in tasks]
    return dataclasses.replace(cohort, labels=cohort.labels[:, kept], tasks=tuple(cohort.tasks[i] for i in kept))


def noise_source(job: Job, seen: EncodedCohort, ledger: Reserve | None = None) -> NoiseSource:
    """Noise bound to the content that a private method sees: any change of it, and only that, draws afresh.

    With `ledger` it is drawn only for queries that were reserved there; an encoder's noise is no accounted query.
    """
    arrays = {name: getattr(seen, name) for name in ("features", "labels", "subject_index")}
    facts: Mapping[str, object] = {"channels": list(seen.channels), "tasks": [t.name for t in seen.tasks]}
    digests = {name: digest_array(array) for name, array in arrays.items()}
    return NoiseSource(job.secret("noise"), digest_json({**digests, **facts}), ledger)


def _noise_name(job: Job) -> dict[str, str]:
    return {"noise_key": job.secret("noise").fingerprint}


def _thinned(losses: list[float]) -> np.ndarray:
    if not losses:
        return np.zeros(0, np.float32)
    kept = np.unique(np.linspace(0, len(losses) - 1, min(len(losses), MAX_CURVE_POINTS)).astype(int))
    return np.array([losses[index] for index in kept], np.float32)
