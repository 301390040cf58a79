"""What a guarantee's own events amount to: epsilon computed again at the gate, by dp-accounting, from them alone.

The gate believes no claim: a condenser that counts a step too few, or states a smaller epsilon than its noise gives, is
refused. What it cannot price it does not wave through. Sites that were added (`parallel`) are priced one by one; the
sum costs a person what their own site cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, final

from pipeline.core.types import PrivacyGuarantee

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
    if any(event.get("event") == "parallel" for event in guarantee.events):
        return _parallel(guarantee)
    return _priced(tuple(_frozen(event) for event in guarantee.events), guarantee.delta)


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
    if sorted(map(_told, reserved)) != sorted(map(_told, guarantee.events)):
        return "the guarantee states other events than were reserved in the ledger"
    return ""


def _told(event: Event) -> tuple[str, str]:
    return str(event.get("event")), str(event.get("noise_multiplier"))


def _parallel(guarantee: PrivacyGuarantee) -> float:
    """Disjoint people at several sites: the largest of the sites' epsilons."""
    if len(guarantee.events) != 1:
        raise Unpriced("it adds sites and has other events beside them")
    sites = guarantee.events[0].get("sites") or ()
    found = []
    for site in sites:
        delta = site.get("delta")
        if not isinstance(delta, float) or not 0 <= delta <= guarantee.delta or not site.get("events"):
            raise Unpriced("a site that was added names no events, or a larger delta than the whole")
        found.append(_priced(tuple(_frozen(event) for event in site["events"]), delta))
    if not found:
        raise Unpriced("it adds sites and lists none")
    return max(found)


Frozen = tuple[tuple[str, Any], ...]


def _frozen(event: Mapping[str, Any]) -> Frozen:
    """An event as something hashable: its parameters, inner events alike; what only names it is left out."""
    if not isinstance(event, Mapping) or not isinstance(event.get("event"), str):
        raise Unpriced("an event has no kind")
    kept: list[tuple[str, Any]] = []
    for name in ("event", "noise_multiplier", "sampling_probability", "count", "inner", "events"):
        if name not in event:
            continue
        value = event[name]
        if isinstance(value, Mapping):
            value = _frozen(value)
        elif isinstance(value, list | tuple):
            value = tuple(_frozen(item) for item in value)
        kept.append((name, value))
    return tuple(kept)


@lru_cache(maxsize=64)
def _priced(events: tuple[Frozen, ...], delta: float) -> float:
    """Epsilon of the events' composition; Gaussian queries are joined into one first (Dong, Roth and Su 2022)."""
    from dp_accounting import dp_event
    from dp_accounting.pld import PLDAccountant

    gaussian = [dict(event) for event in events if dict(event)["event"] == "GaussianDpEvent"]
    composed = [_event(dict(event)) for event in events if dict(event)["event"] != "GaussianDpEvent"]
    if gaussian:
        precision = sum(1 / _positive(event, "noise_multiplier") ** 2 for event in gaussian)
        composed.append(dp_event.GaussianDpEvent(1 / math.sqrt(precision)))
    rough = _epsilon(PLDAccountant(value_discretization_interval=1e-3), composed, delta)
    fine = max(1e-4, min(rough, 100.0) / 1000)  # as fine as the calibration: the value is an upper bound either way
    return _epsilon(PLDAccountant(value_discretization_interval=fine), composed, delta)


def _epsilon(accountant: Any, composed: list[Any], delta: float) -> float:
    for event in composed:
        if not accountant.supports(event):
            raise Unpriced(f"dp-accounting does not price a {type(event).__name__} here")
        accountant.compose(event)
    return float(accountant.get_epsilon(delta))


def _event(event: dict[str, Any]) -> Any:
    """A dp-accounting event of ours: the same names, the same meaning."""
    from dp_accounting import dp_event

    kind = event.get("event")
    if kind == "GaussianDpEvent":
        return dp_event.GaussianDpEvent(_positive(event, "noise_multiplier"))
    if kind == "LaplaceDpEvent":
        return dp_event.LaplaceDpEvent(_positive(event, "noise_multiplier"))
    if kind == "SelfComposedDpEvent":
        count = event.get("count")
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise Unpriced("an event is repeated an unknown number of times")
        return dp_event.SelfComposedDpEvent(_event(dict(event.get("inner", ()))), count)
    if kind == "PoissonSampledDpEvent":
        probability = _positive(event, "sampling_probability")
        if probability > 1:
            raise Unpriced("a sampling probability is above 1")
        return dp_event.PoissonSampledDpEvent(probability, _event(dict(event.get("inner", ()))))
    if kind == "ComposedDpEvent":
        return dp_event.ComposedDpEvent([_event(dict(inner)) for inner in event.get("events", ())])
    raise Unpriced(f"the cost of an event of the kind {kind} is not known")


def _positive(event: Mapping[str, Any], name: str) -> float:
    value = event.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise Unpriced(f"an event has no {name}")
    return float(value)
