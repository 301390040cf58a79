"""What a job's private queries are charged to: the ledger, under the release policy's budget, after a look ahead.

It stands apart from the noise (`flows.workspace.accounted`), which encoders use too: what is made of stays does not
depend on what is foreseen of a release.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flows.charging.foresee import Known, require_releasable
from flows.workspace.job import Job
from pipeline.core.config import Config
from pipeline.core.errors import BudgetError
from pipeline.core.keys.noise import Reserve
from pipeline.core.types import Cohort, EncodedCohort, Split
from pipeline.sharing.policy import ledger
from pipeline.sharing.policy.load import load_policy
from pipeline.store import Made


def ledger_of(job: Job, encoded: Made[EncodedCohort], asked: list[str]) -> Reserve:
    """Reserves a query about the training stays of `encoded`, and adds its name to `asked`.

    The callable raises:
        DataError, ReleaseRefused: what is made could not be tested, or not be released; nothing is charged or drawn.
        BudgetError: the policy's budget does not cover the query, or the ledger cannot be trusted; nothing is drawn.
    """

    def reserve(query: str, events: Sequence[Mapping[str, Any]]) -> None:
        policy = load_policy(job.config.release.policy)
        people = training_people(job, encoded)
        if query not in ledger.reserved_queries(job.config.workspace):  # what was paid for stays paid for
            seen = Known.of(job.only(encoded, EncodedCohort))
            require_releasable(job.config, seen, to_release=job.to_release)
            require_related(job.config, people)
        ledger.reserve(job.config.workspace, query, events, people, policy.budget, policy.name)
        asked.append(query)

    return reserve


def require_related(config: Config, people: ledger.People) -> None:
    """Somebody of the cohort is on the ledger, or somebody has said that these are other people.

    Raises:
        BudgetError: neither.
    """
    code = ledger.unrelated(config.workspace, people)
    if code and config.release.other_people != code:
        raise BudgetError(
            "nothing was drawn: not one id of this cohort is in any cohort on the ledger; if ids were changed, their "
            "queries would not be added up: bring the old ids back; if these are other people, say so: "
            f'other_people = "{code}" under [release]'
        )


def training_people(job: Job, encoded: Made[EncodedCohort]) -> ledger.People:
    """Whose records a private method sees: subjects, or stays where the source knows no subjects."""
    return people_of(_cohort(job, encoded))


def people_of(cohort: Cohort) -> ledger.People:
    """The same, of a raw cohort."""
    return ledger.People(tuple(np.unique(_ids(cohort)).tolist()), "subject" if cohort.subjects_known else "stay")


def training_ids(job: Job, encoded: Made[EncodedCohort]) -> tuple[str, ...]:
    """Whose each training stay is, in the order of the stays."""
    return tuple(_ids(_cohort(job, encoded)).tolist())


def _ids(cohort: Cohort) -> np.ndarray:
    return np.asarray(cohort.subject_ids[cohort.split == int(Split.TRAIN)])


def _cohort(job: Job, encoded: Made[EncodedCohort]) -> Cohort:
    found: Cohort = job.store.get(_first_parent(job, _first_parent(job, encoded.first)), Cohort)
    return found


def _first_parent(job: Job, digest: str) -> str:
    return str(job.store.describe(digest)["meta"]["provenance"]["parents"][0])
