"""The artefact that [release] names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from flows.stages.condense import moments
from flows.workspace.job import Job
from pipeline.core.types import (
    EncodedCohort,
    Split,
)
from pipeline.store import Made


def candidate(job: Job, encoded: Mapping[str, Made], condensed: Mapping[str, Made]) -> Made:
    """The artefact that [release] names: a condensed set, an encoding's training stays, or private moments."""
    release = job.config.release
    if release.kind == "condensed":
        return condensed[release.artefact]
    if release.kind == "moments":
        return moments(job, release.artefact, encoded[job.config.condense[release.artefact].input])
    source = encoded[release.artefact]

    def make(provenance: object) -> tuple[EncodedCohort]:
        return (dataclasses.replace(job.only(source, EncodedCohort).part(Split.TRAIN), provenance=provenance),)

    return job.once("training part", (source.first,), {}, None, make)
