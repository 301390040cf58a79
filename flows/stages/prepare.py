"""From a cohort to complete series in [0, 1], every transform recorded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from flows.compute.maps import rows_by_blocks
from flows.stages.artefacts import Prepared
from flows.workspace.job import Job
from pipeline.core.types import Cohort, EncodedCohort, Provenance
from pipeline.ingest.cohort import scaling
from pipeline.store import Made


def prepare(job: Job, cohort: Made[Cohort]) -> Made[Prepared]:
    """Cohort -> EncodedCohort of imputed series in [0, 1], every transform recorded."""
    options = job.config.prepare.model_dump(mode="json")

    def make(provenance: Provenance) -> tuple[EncodedCohort]:
        raw, prepared = _prepared(job, cohort, options)
        subjects = {"kind": "subjects", "known": raw.subjects_known, "public": True}
        return (dataclasses.replace(prepared, transforms=(subjects, *prepared.transforms), provenance=provenance),)

    return job.once("prepare", (cohort.first,), options, None, make)


def with_all_stays(told: EncodedCohort, features: np.ndarray, stays: Cohort | EncodedCohort) -> EncodedCohort:
    """What `told` says of any stays, with the arrays of all."""
    return dataclasses.replace(
        told, features=features, labels=stays.labels, subject_index=stays.subject_index, split=stays.split
    )


def _prepared(job: Job, cohort: Made[Cohort], options: Mapping[str, Any]) -> tuple[Cohort, EncodedCohort]:
    """The raw cohort, its digest checked, and the cohort prepared; neither is held in memory if it is large."""
    raw = job.only(cohort, Cohort)
    ranges = scaling.SCALINGS[options["scaling"]](raw)
    features = rows_by_blocks(job, _prepared_rows, len(raw.labels), cohort.first, dict(options), ranges)
    told = scaling.prepare(job.store.rows(cohort.first, Cohort, slice(0, 1)), ranges=ranges, **options)
    return raw, with_all_stays(told, features, raw)


def _prepared_rows(
    job: Job, stays: slice, cohort: str, options: dict[str, Any], ranges: list[tuple[float, float]]
) -> np.ndarray:
    """The prepared features of some stays: `(stay, step, channel)`."""
    return scaling.prepare(job.store.rows(cohort, Cohort, stays), ranges=ranges, **options).features
