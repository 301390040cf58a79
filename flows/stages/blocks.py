"""Prepared and encoded stays, block by block: what a worker makes, given a run's folder and which stays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np

from flows import registry
from flows.compute import rows_by_blocks
from flows.workspace.job import Job, open_job
from pipeline.core.errors import EnvironmentProblem
from pipeline.core.protocols import FittedEncoder
from pipeline.core.types import Cohort, EncodedCohort
from pipeline.ingest.cohort.scaling import SCALINGS, prepare
from pipeline.store import Made


@runtime_checkable
class EncodesApart(Protocol):
    """A fitted encoder that can say whether stays encoded by themselves are bit for bit those encoded together."""

    @property
    def stays_apart(self) -> bool:
        """See `encoders.windows.Sealed`."""
        ...


def prepared(job: Job, cohort: Made, options: Mapping[str, Any]) -> tuple[Cohort, EncodedCohort]:
    """The raw cohort, its digest checked, and the cohort prepared; neither is held in memory if it is large."""
    raw: Cohort = job.only(cohort, Cohort)
    ranges = SCALINGS[options["scaling"]](raw)
    features = rows_by_blocks(job, prepared_rows, len(raw.labels), cohort.first, dict(options), ranges)
    told = prepare(job.store.rows(cohort.first, Cohort, slice(0, 1)), ranges=ranges, **options)
    return raw, _whole(told, features, raw)


def prepared_rows(
    folder: str, stays: slice, cohort: str, options: dict[str, Any], ranges: list[tuple[float, float]]
) -> np.ndarray:
    """The prepared features of some stays: `(stay, step, channel)`."""
    raw = open_job(folder, resume=False).store.rows(cohort, Cohort, stays)
    return prepare(raw, ranges=ranges, **options).features


def encoded(job: Job, name: str, given: EncodedCohort, digest: str, fitted: FittedEncoder) -> EncodedCohort | None:
    """The prepared cohort `given`, stored as `digest`, encoded by blocks; None where the encoder wants it whole."""
    if not (isinstance(fitted, EncodesApart) and fitted.stays_apart):
        return None
    fingerprint = job.secret("encoder").fingerprint
    features = rows_by_blocks(job, encoded_rows, len(given.labels), name, digest, fingerprint)
    told = fitted.encode(job.store.rows(digest, EncodedCohort, slice(0, 1)))
    return _whole(told, features, given)


def encoded_rows(folder: str, stays: slice, name: str, prepared: str, fingerprint: str) -> np.ndarray:
    """The encoded features of some stays: `(stay, row, column)`; the key is read from the workspace.

    Raises:
        EnvironmentProblem: the workspace holds another key.
    """
    job = open_job(folder, resume=False)
    if job.secret("encoder").fingerprint != fingerprint:
        raise EnvironmentProblem("a worker finds another encoder key in the workspace than the run began with")
    rows = job.store.rows(prepared, EncodedCohort, stays)
    return _fitted(folder, name, job.config_digest, fingerprint, prepared).encode(rows).features


def _whole(told: EncodedCohort, features: np.ndarray, stays: Cohort | EncodedCohort) -> EncodedCohort:
    """What `told` says of any stays, with the arrays of all."""
    return dataclasses.replace(
        told, features=features, labels=stays.labels, subject_index=stays.subject_index, split=stays.split
    )


@lru_cache(maxsize=4)
def _fitted(folder: str, name: str, config: str, fingerprint: str, prepared: str) -> FittedEncoder:
    """Fitted once per process: to shape and names alone, as every encoder that encodes stays apart is."""
    job = open_job(folder, resume=False)
    shape = job.store.rows(prepared, EncodedCohort, slice(0, 1))
    return registry.encoder(job.config.encode[name]).fit(shape, job.secret("encoder"))
