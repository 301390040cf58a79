"""Encode prepared series, or summaries of them, with the key of the site."""

from __future__ import annotations

import dataclasses

from encoders.calibrate import Randomisable, calibrated
from encoders.dense import static_channels, summaries
from flows import registry
from flows.compute import device
from flows.stages import blocks
from flows.workspace.accounted import noise_name, noise_source
from flows.workspace.job import Job
from pipeline.core.config import EncodeTable, KeyedEncode
from pipeline.core.keys.secrets import Secret
from pipeline.core.protocols import FittedEncoder
from pipeline.core.types import (
    Cohort,
    EncodedCohort,
    Provenance,
)
from pipeline.store import Made


def encode(job: Job, name: str, prepared: Made) -> Made:
    """Prepared series -> the [encode.NAME] encoding of them, with the site's encoder key."""
    table = job.config.encode[name]
    key = job.secret("encoder")
    options = {"encoder": table.model_dump(mode="json"), "key": key.fingerprint}
    options |= registry.brought(registry.ENCODERS)
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
