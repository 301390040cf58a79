"""The artefact that [release] names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import cast

from flows.stages.artefacts import Candidate, Encoded
from flows.stages.condense import moments
from flows.workspace.job import Job
from pipeline.core.types import (
    CondensedSet,
    EncodedCohort,
    Provenance,
    Split,
)
from pipeline.store import Made


def candidate(
    job: Job, encoded: Mapping[str, Made[Encoded]], condensed: Mapping[str, Made[CondensedSet]]
) -> Made[Candidate]:
    """The artefact that [release] names: a condensed set, an encoding's training stays, or private moments."""
    release = job.config.release
    if release.kind == "condensed":
        return cast("Made[Candidate]", condensed[release.artefact])
    if release.kind == "moments":
        source = encoded[job.config.condense[release.artefact].input]
        return cast("Made[Candidate]", moments(job, release.artefact, source))
    source = encoded[release.artefact]

    def make(provenance: Provenance) -> tuple[EncodedCohort]:
        return (dataclasses.replace(job.only(source, EncodedCohort).part(Split.TRAIN), provenance=provenance),)

    return job.once("training part", (source.first,), {}, None, make, [])
