"""From a cohort to complete series in [0, 1], every transform recorded."""

from __future__ import annotations

import dataclasses

from flows.stages import blocks
from flows.workspace.job import Job
from pipeline.core.types import EncodedCohort, Provenance
from pipeline.store import Made


def prepare(job: Job, cohort: Made) -> Made:
    """Cohort -> EncodedCohort of imputed series in [0, 1], every transform recorded."""
    options = job.config.prepare.model_dump(mode="json")

    def make(provenance: Provenance) -> tuple[EncodedCohort]:
        raw, prepared = blocks.prepared(job, cohort, options)
        subjects = {"kind": "subjects", "known": raw.subjects_known, "public": True}
        return (dataclasses.replace(prepared, transforms=(subjects, *prepared.transforms), provenance=provenance),)

    return job.once("prepare", (cohort.first,), options, None, make)
