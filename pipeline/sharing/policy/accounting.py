"""What a guarantee's own events amount to: epsilon computed again at the gate, by dp-accounting, from them alone.

The gate believes no claim: a condenser that counts a step too few, or states a smaller epsilon than its noise gives, is
refused. What it cannot price it does not wave through; a sum over sites, which no ledger has reserved, is such a thing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, final

from pipeline.core.types import PrivacyGuarantee
from pipeline.sharing.claims import query_of

UNDERSTATED: Final = 1.001  # a claim below the recomputed value by more than rounding is a false claim
OVERSTATED: Final = 1.05  # a claim well above it does not belong to these events


Event = Mapping[str, Any]


@final
class Unpriced(Exception):
    """An event that this gate cannot price; the message says which, in words."""


def recomputed_epsilon(guarantee: PrivacyGuarantee) -> float:
    """The smallest epsilon that dp-accounting gives the events at the guarantee's delta.

    Raises:
        Unpriced: no event, an unknown one, or one with a parameter that is none.
    """
    if not guarantee.events:
        raise Unpriced("it names no event")
    return _priced(_queries(guarantee.events), guarantee.delta)


def mismatch(claimed: float, recomputed: float) -> str | None:
    """In what way a claim does not match its events: "understated", "overstated", or None."""
    if not math.isfinite(recomputed) or recomputed > claimed * UNDERSTATED:
        return "understated"
    return "overstated" if claimed > recomputed * OVERSTATED + 1e-6 else None


def unreserved(guarantee: PrivacyGuarantee, queries: Sequence[str], ledger: Mapping[str, Sequence[Event]]) -> str:
    """Why the guarantee does not rest on what was reserved in the ledger, in words; empty = it does.

    `queries` are the names that were reserved while the artefact was made, as the run noted them; `ledger` is name ->
    events. So a set whose maker drew no accounted noise has no guarantee to claim, whatever it states.
    """
    if not queries:
        return "the guarantee rests on no query: nothing was reserved in the ledger while the artefact was made"
    missing = [name for name in queries if name not in ledger]
    if missing:
        return f"{len(missing)} of the guarantee's {len(queries)} queries are not in this workspace's ledger"
    reserved = [event for name in dict.fromkeys(queries) for event in ledger[name]]
    if Counter(map(query_of, reserved)) != Counter(map(query_of, guarantee.events)):
        return "the guarantee states other events than were reserved in the ledger"
    return ""


def _queries(events: Sequence[Event]) -> tuple[tuple[str, float], ...]:
    found = [query_of(event) for event in events]
    if None in found:
        raise Unpriced("an event is of a kind that nobody here can price, or has no noise_multiplier")
    return tuple(filter(None, found))


@lru_cache(maxsize=64)
def _priced(queries: tuple[tuple[str, float], ...], delta: float) -> float:
    """Epsilon of the queries' composition; Gaussian ones are joined into one first (Dong, Roth and Su 2022)."""
    from dp_accounting import dp_event
    from dp_accounting.pld import PLDAccountant

    gaussian = [multiplier for kind, multiplier in queries if kind == "GaussianDpEvent"]
    composed = [dp_event.LaplaceDpEvent(multiplier) for kind, multiplier in queries if kind == "LaplaceDpEvent"]
    if gaussian:
        composed.append(dp_event.GaussianDpEvent(1 / math.sqrt(sum(value**-2.0 for value in gaussian))))

    def epsilon(interval: float) -> float:
        accountant = PLDAccountant(value_discretization_interval=interval)
        for event in composed:
            accountant.compose(event)
        return float(accountant.get_epsilon(delta))

    # as fine as the calibration: the value is an upper bound either way
    return epsilon(max(1e-4, min(epsilon(1e-3), 100.0) / 1000))
