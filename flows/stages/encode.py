"""Encode prepared series, or summaries of them, with the key of the site."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np

from flows import registry
from flows.compute.devices import device
from flows.compute.maps import rows_by_blocks
from flows.stages.artefacts import Encoded, Prepared
from flows.stages.prepare import with_all_stays
from flows.workspace.accounted import noise_name, noise_source
from flows.workspace.job import Job
from pipeline.core.config import EncodeTable, KeyedEncode
from pipeline.core.digest import digest_array
from pipeline.core.errors import ConfigError, EnvironmentProblem
from pipeline.core.keys.secrets import Secret
from pipeline.core.protocols import FittedEncoder
from pipeline.core.types import (
    Cohort,
    EncodedCohort,
    Provenance,
)
from pipeline.store import Made


@runtime_checkable
class EncodesApart(Protocol):
    """A fitted encoder that can say whether stays encoded by themselves are bit for bit those encoded together."""

    @property
    def stays_apart(self) -> bool:
        """See `encoders.windows.Sealed`."""
        ...


def encode(job: Job, name: str, prepared: Made[Prepared]) -> Made[Encoded]:
    """Prepared series -> the [encode.NAME] encoding of them, with the site's encoder key."""
    table = job.config.encode[name]
    key = job.secret("encoder")
    options = {"encoder": table.model_dump(mode="json"), "key": key.fingerprint}
    options |= noise_name(job) if table.is_random else {}
    owner = registry.foreign_owner(registry.ENCODERS, table)
    options |= {} if owner is None else {"plugin": owner}
    where = device(job.config.device)

    def make(provenance: Provenance) -> tuple[EncodedCohort]:
        given = encoder_input(job, name, prepared)
        fitted = fitted_encoder(table, given, key)
        apart = table.data == "series" and where == "cpu"
        encoded = _by_blocks(job, name, given, prepared.first, fitted) if apart else None
        if encoded is None:
            encoded = fitted.encode(given, noise=noise_source(job, given), device=where)
        if owner is not None:
            encoded = as_site_sees_it(name, registry.name_of(table), given, encoded, key)
        return (dataclasses.replace(encoded, provenance=provenance),)

    return job.once("encode", (prepared.first,), options, None, make, [registry.point_of(table)])


def as_site_sees_it(
    name: str, registered: str, given: EncodedCohort, encoded: EncodedCohort, key: Secret
) -> EncodedCohort:
    """A plug-in's encoding of `given` with what its own specification is not believed in.

    It is no public input of a guarantee, and is audited as an encoding under the site's key, unless it is byte for byte
    the prepared series.

    Raises:
        ConfigError: it changed more than features, channels and hours per step.
    """
    kept = ("labels", "subject_index", "split")
    if (
        any(digest_array(getattr(given, array)) != digest_array(getattr(encoded, array)) for array in kept)
        or encoded.tasks != given.tasks
        or encoded.transforms[:-1] != given.transforms
    ):
        raise ConfigError(
            f"encode.{name} changed labels, subjects, the split, tasks or the public description before it"
        )
    plain = encoded.channels == given.channels and digest_array(encoded.features) == digest_array(given.features)
    believed = {"kind": registered, "public": False, "key_fingerprint": None if plain else key.fingerprint}
    return dataclasses.replace(encoded, transforms=(*given.transforms, {**encoded.transforms[-1], **believed}))


def fitted_encoder(table: EncodeTable, given: EncodedCohort, key: Secret) -> FittedEncoder:
    """The encoder of an [encode.NAME] table with its key, and with the noise that its `target_rmse` asks for."""
    from encoders.calibrate import Randomisable, calibrated

    encoder = registry.encoder(table)
    target = table.target_rmse if isinstance(table, KeyedEncode) else None
    if target is not None and isinstance(encoder, Randomisable):
        encoder = calibrated(encoder, target, given, key)
    return encoder.fit(given, key)


def encoder_input(job: Job, name: str, prepared: Made[Prepared]) -> EncodedCohort:
    """What the [encode.NAME] table encodes: the prepared series, or a vector of summaries for every stay."""
    series = job.only(prepared, EncodedCohort)
    if job.config.encode[name].data == "series":
        return series
    from encoders.dense import static_channels, summaries

    return summaries(series, static_channels(cohort_of(job, series)))


def cohort_of(job: Job, prepared: EncodedCohort) -> Cohort:
    """The raw cohort that the prepared series were made from."""
    cohort: Cohort = job.store.get(prepared.provenance.parents[0], Cohort)
    return cohort


def _by_blocks(job: Job, name: str, given: EncodedCohort, digest: str, fitted: FittedEncoder) -> EncodedCohort | None:
    """The prepared cohort `given`, stored as `digest`, encoded by blocks; None where the encoder wants it whole."""
    if not (isinstance(fitted, EncodesApart) and fitted.stays_apart):
        return None
    fingerprint = job.secret("encoder").fingerprint
    features = rows_by_blocks(job, _encoded_rows, len(given.labels), name, digest, fingerprint)
    told = fitted.encode(job.store.rows(digest, EncodedCohort, slice(0, 1)))
    return with_all_stays(told, features, given)


def _encoded_rows(job: Job, stays: slice, name: str, prepared: str, fingerprint: str) -> np.ndarray:
    """The encoded features of some stays: `(stay, row, column)`; the key is read from the workspace.

    Raises:
        EnvironmentProblem: the workspace holds another key.
    """
    require_encoder_key(job, fingerprint)
    rows = job.store.rows(prepared, EncodedCohort, stays)
    return _fitted(job, name, fingerprint, prepared).encode(rows).features


def require_encoder_key(job: Job, fingerprint: str) -> None:
    """Hold that the workspace has the key that the run began with.

    Raises:
        EnvironmentProblem: it has another one.
    """
    if job.secret("encoder").fingerprint != fingerprint:
        raise EnvironmentProblem("a worker finds another encoder key in the workspace than the run began with")


@lru_cache(maxsize=4)
def _fitted(job: Job, name: str, fingerprint: str, prepared: str) -> FittedEncoder:
    """Fitted once per job: to shape and names alone, as every encoder that encodes stays apart is."""
    shape = job.store.rows(prepared, EncodedCohort, slice(0, 1))
    return registry.encoder(job.config.encode[name]).fit(shape, job.secret("encoder"))
