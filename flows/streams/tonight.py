"""Tonight's set of a stream: who enters, what they add, frozen on the ledger, and the set from all nights so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Protocol, runtime_checkable
from zoneinfo import ZoneInfo

import numpy as np

from flows import registry
from flows.charging.foresee import Known, require_releasable
from flows.charging.ledger import require_related, training_ids, training_people
from flows.progress import say
from flows.workspace.accounted import check_taken, with_queries
from flows.workspace.job import Job
from pipeline.core.config import Condense
from pipeline.core.digest import digest_json
from pipeline.core.errors import ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.types import CondensedSet, EncodedCohort, Provenance
from pipeline.sharing.policy.ledger import reserved_queries
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.policy.streams import Frozen, StreamTerms, enter, frozen_nights, reserve_stream
from pipeline.store import Made


@runtime_checkable
class AnswersNightly(Protocol):
    """A condenser whose sets of all nights are answers to one query."""

    @property
    def begins(self) -> str:
        """ISO date of night 1, or empty."""
        ...

    @property
    def horizon(self) -> int:
        """Nights."""
        ...

    @property
    def entries(self) -> int:
        """Of a person, at most."""
        ...

    @property
    def separation(self) -> int:
        """Nights between two entries of a person, at least."""
        ...

    @property
    def backlog_nights(self) -> int:
        """Over which people enter who are there already."""
        ...

    def reserve(self, like: EncodedCohort, noise: NoiseSource) -> None:
        """Put all nights on record."""
        ...

    def increment(
        self, night: int, entrants: EncodedCohort, before: Sequence[Frozen], noise: NoiseSource
    ) -> np.ndarray:
        """What entrants add."""
        ...

    def night(
        self,
        night: int,
        like: EncodedCohort,
        added: Sequence[Frozen],
        noise: NoiseSource,
        *,
        n_per_class: int,
        seed: int,
    ) -> CondensedSet:
        """The set of a night."""
        ...


def of_stream(table: Condense) -> AnswersNightly | None:
    """The table's condenser, if it is one of a stream; one of Decoct's own without a horizon is not even loaded."""
    if table.kind != "plugin" and "horizon" not in table.options:
        return None
    method = registry.condenser(table)
    return method if isinstance(method, AnswersNightly) else None


def tonight(job: Job, name: str, method: AnswersNightly) -> int:
    """The number of today's night by the calendar of [night], so that nothing about patients decides whether it is one.

    Raises:
        ConfigError: `begins` is no date, lies in the future, or the stream's last night has passed.
    """
    try:
        first = date.fromisoformat(method.begins)
    except ValueError:
        raise ConfigError(
            f'condense.{name} needs the day of its first night: begins = "2026-12-01"; it stays as it is ever after'
        ) from None
    night = (today(job) - first).days + 1
    if not 1 <= night <= method.horizon:
        raise ConfigError(
            f"condense.{name}: today is not among the {method.horizon} nights that begin on {first.isoformat()}; "
            "a stream that begins anew is another one, and is priced beside this one"
        )
    return night


def today(job: Job) -> date:
    """The date where the nights are run."""
    return datetime.now(tz=ZoneInfo(job.config.night.timezone)).date()


def night_set(
    job: Job, name: str, night: int, encoded: Made[EncodedCohort], training: EncodedCohort, provenance: Provenance
) -> CondensedSet:
    """The [condense.NAME] set of a night; asked again on the same night, the same.

    People enter by what is known of themselves alone: their stays, the night, and when they entered before.

    Raises:
        ConfigError: as `tonight`, or the table makes several sets. BudgetError: the ledger refuses the stream or the
        night, or what was added on an earlier one is lost.
    """
    method = registry.condenser(job.config.condense[name])
    assert isinstance(method, AnswersNightly)
    policy, asked = load_policy(job.config.release.policy), list[str]()
    terms = StreamTerms(method.horizon, method.entries, method.separation, training.protected_unit)

    def reserve(query: str, events: Sequence[Mapping[str, Any]]) -> None:
        if query not in reserved_queries(job.config.workspace):  # what was paid for stays paid for
            seen = Known.of(job.only(encoded, EncodedCohort))
            require_releasable(job.config, seen, to_release=job.to_release)
            require_related(job.config, training_people(job, encoded))
        reserve_stream(job.config.workspace, query, events, terms, policy.budget, policy.name)
        asked.append(query)

    noise = NoiseSource(job.secret("noise"), digest_json({"stream": [job.config.name, name]}), reserve)
    method.reserve(training, noise)
    (stream,) = asked
    workspace = job.config.workspace
    before = [one for one in frozen_nights(workspace, stream, night) if one.night < night]
    ids = training_ids(job, encoded)
    ready = _ready(job, ids, training, night, method.backlog_nights)

    def increment(admitted: Mapping[str, int]) -> np.ndarray:
        rows = [rows[admitted[one]] for one, rows in ready.items() if one in admitted]
        return method.increment(night, training.take(np.sort(np.array(rows, np.int64))), before, noise)

    waiting = {one: len(rows) for one, rows in ready.items()}
    told = enter(workspace, stream, night, waiting, policy.budget, increment)
    say(f"  {name}: night {night} of {method.horizon}, {told.people} entered" + (" before" if told.again else ""))
    left_out = {"beyond the cap": told.beyond_cap, "too soon": told.too_soon, "over the budget": told.over_budget}
    for reason, count in left_out.items():
        if count:
            say(f"  {name}: {count} left out, {reason}")
    frozen = frozen_nights(workspace, stream, night)
    n, seed = job.config.condense[name].n_per_class, provenance.seed or 0
    made = method.night(night, training, frozen, noise, n_per_class=n, seed=seed)
    check_taken(name, made, training, noise)
    return dataclasses.replace(
        made, method=registry.name_of(job.config.condense[name]), provenance=with_queries(provenance, asked)
    )


def _ready(
    job: Job, ids: Sequence[str], training: EncodedCohort, night: int, backlog_nights: int
) -> dict[str, list[int]]:
    """Whose records are complete, with the rows of their stays in order.

    A stay whose first label is not known yet waits for it. While the stream is younger than `backlog_nights`, everybody
    waits for a night that a keyed hash of their own id gives: whoever is there already enters spread over these nights.
    """
    slots = job.secret("noise")
    found: dict[str, list[int]] = {}
    for row, (one, label) in enumerate(zip(ids, training.labels[:, 0], strict=True)):
        if np.isnan(label):
            continue
        if night < backlog_nights:
            slot = int.from_bytes(slots.derive(f"stream slot {one}")[:8], "little") % backlog_nights
            if slot >= night:
                continue
        found.setdefault(one, []).append(row)
    return found
