"""Encode, group and condense."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from condensation.loop import StopCondensing
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
from pipeline.grouping.run import group_tasks, validate_grouping
from pipeline.grouping.validated import MIN_VALIDATED
from pipeline.store import Made

MAX_CURVE_POINTS: Final = 400


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


def group(job: Job, prepared: Made) -> Made | None:
    """Which tasks are alike, on the prepared training stays; None when nobody asks or there is only one task."""
    table = job.config.group
    if table is None or len(job.store.describe(prepared.first)["meta"]["tasks"]) < 2:
        return None
    seed = job.seed("group")

    def make(_: Provenance) -> tuple[Grouping]:
        cohort = job.only(prepared, EncodedCohort)
        training = cohort.part(Split.TRAIN)
        options: dict[str, Any] = {**table.model_dump(exclude={"decide"}), "seed": seed}
        with steps("grouping", "") as on_step:
            found = group_tasks(training, **options, on_step=on_step)
        if table.decide == "affinity" or len(found.tasks) < MIN_VALIDATED:
            return (found,)
        with steps("training candidate groups", "gain") as on_step:
            where = device(job.config.device)
            tuning = cohort.part(Split.TUNING)
            return (validate_grouping(found, training, tuning, **options, device=where, on_step=on_step),)

    return job.once("group", (prepared.first,), table.model_dump(mode="json"), seed, make)


def condense(job: Job, name: str, encoded: Made, grouping: Made | None, seed_of: str | None = None) -> Made:
    """The training stays of an encoding -> (CondensedSet, LossCurve) by the [condense.NAME] method.

    `seed_of` names the table whose seed is taken instead of its own: methods are compared from the same draws.
    """
    table = job.config.condense[name]
    seed = job.seed("condense", seed_of or name)
    where = device(job.config.device)
    options = {"condenser": table.model_dump(mode="json"), "device": where.split(":")[0], **_noise_name(job)}
    by_group = grouping is not None and table.tasks == "group"
    parents = (encoded.first, grouping.first) if by_group and grouping else (encoded.first,)

    def make(provenance: Provenance) -> tuple[CondensedSet, LossCurve]:
        training = training_part(job, table, encoded, grouping)
        losses: list[float] = []
        asked = digest_json({"parents": list(parents), "options": options, "seed": seed})
        checkpoint, stop = job.folder / f"{name}-{asked[:12]}.checkpoint", job.folder / f"stop-{name}"
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
                noise=noise_source(job, training, ledger_of(job, encoded)),
                device=where,
                on_step=on_step,
            )
        checkpoint.unlink(missing_ok=True)
        stop.unlink(missing_ok=True)
        return dataclasses.replace(condensed, provenance=provenance), LossCurve(_thinned(losses), name)

    return job.once("condense", parents, options, seed, make)


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
    return with_tasks(training, wanted_tasks(job, table, training.tasks, grouping))


def wanted_tasks(job: Job, table: Condense, tasks: tuple[Task, ...], grouping: Made | None) -> tuple[Task, ...]:
    """`first`, `all`, or the first task and those grouped with it."""
    if table.tasks == "first":
        return tasks[:1]
    if table.tasks == "all" or grouping is None:
        return tasks
    groups = job.only(grouping, Grouping).groups
    mates = next((group for group in groups if tasks[0].name in group), (tasks[0].name,))  # it may have been left out
    return tuple(task for task in tasks if task.name in mates)


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
