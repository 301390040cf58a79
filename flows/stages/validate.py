"""Hold cohorts, encodings and condensed sets against their data contracts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final

from flows.workspace.job import Job
from pipeline.core.errors import DataError
from pipeline.core.types import Cohort, CondensedSet, ContractResult, EncodedCohort, Provenance
from pipeline.store import Made
from pipeline.validation import contracts

_CHECKS: Final[Mapping[str, tuple[type[Any], Callable[[Any], ContractResult]]]] = {
    "Cohort": (Cohort, contracts.check_cohort),
    "EncodedCohort": (EncodedCohort, contracts.check_encoded),
    "CondensedSet": (CondensedSet, contracts.check_condensed),
}


def validate(job: Job, name: str, artefact: Made[Cohort | EncodedCohort | CondensedSet]) -> Made[ContractResult]:
    """Hold the artefact called `name` against the data contract of its kind.

    Raises:
        DataError: a critical rule is broken, or the artefact's kind has no contract.
    """
    kind = job.store.kind_of(artefact.first)
    if kind not in _CHECKS:
        raise DataError(f"artefact {artefact.first[:12]} is a {kind}; contracts exist for {', '.join(sorted(_CHECKS))}")
    cls, check = _CHECKS[kind]

    def make(_: Provenance) -> tuple[ContractResult]:
        return (dataclasses.replace(check(job.only(artefact, cls)), artefact=name),)

    made = job.once("validate", (artefact.first,), {"suite": kind, "name": name}, None, make)
    contracts.require(job.only(made, ContractResult))
    return made
