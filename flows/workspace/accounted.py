"""A job's privacy noise, and what its private queries are charged to: the ledger, under the release policy's budget."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flows.foresee import Known, require_releasable
from flows.workspace.job import Job
from pipeline.core.config import Config
from pipeline.core.digest import digest_array, digest_json
from pipeline.core.errors import BudgetError, ConfigError
from pipeline.core.keys.noise import NoiseSource, Reserve
from pipeline.core.types import Cohort, CondensedSet, EncodedCohort, Moments, Provenance, Split
from pipeline.sharing.policy import ledger
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.policy.rules import LEDGER_QUERIES
from pipeline.store import Made


def noise_source(job: Job, seen: EncodedCohort, ledger: Reserve | None = None) -> NoiseSource:
    """Noise bound to the content that a private method sees: any change of it, and only that, draws afresh.

    With `ledger` it is drawn only for queries that were reserved there; an encoder's noise is no accounted query.
    """
    arrays = {name: getattr(seen, name) for name in ("features", "labels", "subject_index")}
    facts: Mapping[str, object] = {"channels": list(seen.channels), "tasks": [t.name for t in seen.tasks]}
    digests = {name: digest_array(array) for name, array in arrays.items()}
    return NoiseSource(job.secret("noise"), digest_json({**digests, **facts}), ledger)


def check_taken(name: str, found: CondensedSet | Moments, seen: EncodedCohort, noise: NoiseSource) -> None:
    """Refuse what condense.`name` says of itself where the site knows better: what it was made of, and its guarantee.

    A guarantee is for what was reserved in the ledger through `noise`, no less and no more, on public transforms alone.

    Raises:
        ConfigError: another cohort's columns or transforms, or a guarantee that does not rest on the ledger.
    """
    told = ("channels", "tasks", "step_hours", "transforms")
    if wrong := [fact for fact in told if getattr(found, fact) != getattr(seen, fact)]:
        raise ConfigError(f"condense.{name} says other {', '.join(wrong)} of its result than of the stays it was given")
    if (guarantee := found.guarantee) is None:
        return
    claimed, reserved = (Counter(map(_priced, events)) for events in (guarantee.events, noise.reserved_events))
    if not claimed or claimed != reserved:
        raise ConfigError(
            f"condense.{name} claims a privacy guarantee over {claimed.total()} events and reserved {reserved.total()} "
            "in the ledger, or others: nothing is taken from it"
        )
    if not seen.is_public_transform or guarantee.unit != seen.protected_unit:
        raise ConfigError(
            f"condense.{name} claims a guarantee per {guarantee.unit} that its input cannot carry: every transform "
            f"must be public, and the source knows one per {seen.protected_unit}"
        )


def _priced(event: Mapping[str, Any]) -> tuple[str, str]:
    return str(event.get("event")), str(event.get("noise_multiplier"))


def noise_name(job: Job) -> dict[str, str]:
    return {"noise_key": job.secret("noise").fingerprint}


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


def with_queries(provenance: Provenance, asked: Sequence[str]) -> Provenance:
    """The provenance with the names of what was reserved, for the gate to find in the ledger; as it is, if nothing was.

    The run notes them, never the method: what a method says of itself decides nothing.
    """
    if not asked:
        return provenance
    return dataclasses.replace(provenance, config={**provenance.config, LEDGER_QUERIES: sorted(set(asked))})


def training_people(job: Job, encoded: Made[EncodedCohort]) -> ledger.People:
    """Whose records a private method sees: subjects, or stays where the source knows no subjects."""
    return people_of(_cohort(job, encoded))


def people_of(cohort: Cohort) -> ledger.People:
    """The same, of a raw cohort."""
    ids = np.unique(cohort.subject_ids[cohort.split == int(Split.TRAIN)])
    return ledger.People(tuple(ids.tolist()), "subject" if cohort.subjects_known else "stay")


def training_ids(job: Job, encoded: Made[EncodedCohort]) -> tuple[str, ...]:
    """Whose each training stay is, in the order of the stays."""
    cohort = _cohort(job, encoded)
    return tuple(cohort.subject_ids[cohort.split == int(Split.TRAIN)].tolist())


def _cohort(job: Job, encoded: Made[EncodedCohort]) -> Cohort:
    found: Cohort = job.store.get(_first_parent(job, _first_parent(job, encoded.first)), Cohort)
    return found


def _first_parent(job: Job, digest: str) -> str:
    return str(job.store.describe(digest)["meta"]["provenance"]["parents"][0])
