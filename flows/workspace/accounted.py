"""A job's privacy noise, bound to what it hides, and what is believed of a result that claims a guarantee."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from flows.workspace.job import Job
from pipeline.core.digest import digest_array, digest_json
from pipeline.core.errors import ConfigError
from pipeline.core.keys.noise import NoiseSource, Reserve
from pipeline.core.types import CondensedSet, EncodedCohort, Moments, Provenance
from pipeline.sharing.claims import query_of
from pipeline.sharing.policy.rules import LEDGER_QUERIES


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
    claimed, reserved = (Counter(map(query_of, events)) for events in (guarantee.events, noise.reserved_events))
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


def noise_name(job: Job) -> dict[str, str]:
    return {"noise_key": job.secret("noise").fingerprint}


def with_queries(provenance: Provenance, asked: Sequence[str]) -> Provenance:
    """The provenance with the names of what was reserved, for the gate to find in the ledger; as it is, if nothing was.

    The run notes them, never the method: what a method says of itself decides nothing.
    """
    if not asked:
        return provenance
    return dataclasses.replace(provenance, config={**provenance.config, LEDGER_QUERIES: sorted(set(asked))})
