"""Does a stated guarantee follow from the events that it states? Without dp-accounting, so that every receiver can ask.

Composed Gaussian queries are one Gaussian query, whose delta at an epsilon is known in closed form (Balle and Wang
2018; Dong, Roth and Su 2022): a claim over them is held against that. Events of other kinds, which the site's gate
priced, must at least be some that it can price. Standard library only: the verifier imports it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

ROUNDING: Final = 1.001  # of an epsilon, as at the gate
_PRICED: Final = frozenset(
    {"GaussianDpEvent", "LaplaceDpEvent", "SelfComposedDpEvent", "PoissonSampledDpEvent", "ComposedDpEvent"}
)

Event = Mapping[str, Any]


def follows(guarantee: Mapping[str, Any]) -> bool:
    """Whether the epsilon is not below what the events give at the delta, as far as can be told here.

    Raises:
        KeyError, TypeError, ValueError, AttributeError, OverflowError: the events are none of a guarantee's.
    """
    events, epsilon, delta = guarantee["events"], guarantee["epsilon"], guarantee["delta"]
    if [event["event"] for event in events] != ["parallel"]:
        return _covers(events, epsilon, delta)
    sites = events[0]["sites"]  # disjoint people: each pays for their own site
    return bool(sites) and all(
        0 <= site["delta"] <= delta and _covers(site["events"], epsilon, site["delta"]) for site in sites
    )


def gaussian_delta(noise_multiplier: float, epsilon: float) -> float:
    """The smallest delta of one Gaussian query at `epsilon`."""
    mu = 1 / noise_multiplier
    return _normal(mu / 2 - epsilon / mu) - math.exp(epsilon) * _normal(-mu / 2 - epsilon / mu)


def _covers(events: Sequence[Event], epsilon: float, delta: float) -> bool:
    kinds = [event["event"] for event in events]
    if not kinds or not set(kinds) <= _PRICED:
        return False
    if set(kinds) != {"GaussianDpEvent"}:
        return True
    multipliers = [event["noise_multiplier"] for event in events]
    if not all(type(value) in (int, float) and 0 < value < math.inf for value in multipliers):
        return False
    joined = 1 / math.sqrt(sum(value**-2.0 for value in multipliers))
    return gaussian_delta(joined, epsilon * ROUNDING) <= delta


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))
