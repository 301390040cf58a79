"""Encode, and what condensing and its judges share with it: device, tasks, noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from encoders.calibrate import Randomisable, calibrated
from encoders.dense import static_channels, summaries
from flows import registry
from flows.stages import blocks
from flows.workspace.job import Job
from pipeline.core.config import EncodeTable, KeyedEncode
from pipeline.core.digest import digest_array, digest_json
from pipeline.core.keys.noise import NoiseSource, Reserve
from pipeline.core.keys.secrets import Secret
from pipeline.core.protocols import FittedEncoder
from pipeline.core.types import (
    Cohort,
    EncodedCohort,
    Provenance,
    Task,
)
from pipeline.store import Made


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
    options |= noise_name(job) if table.is_random else {}
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


def noise_name(job: Job) -> dict[str, str]:
    return {"noise_key": job.secret("noise").fingerprint}
