"""Does a stated guarantee follow from the events that it states? Without dp-accounting, so that every receiver can ask.

Composed Gaussian queries are one Gaussian query, whose delta at an epsilon is known in closed form (Balle and Wang
2018; Dong, Roth and Su 2022): a claim over them is held against that. Laplace queries beside them are priced from
below, by the chance that each loses as much as it can; what a ledger cannot price is refused. Standard library only:
the verifier imports it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

ROUNDING: Final = 1.001  # of an epsilon, as at the gate
LEAST_NOISE, MOST_NOISE = 2.0**-10, 2.0**60  # multipliers that no query goes beyond
MOST_LAPLACE: Final = 16
"""Beyond it nothing is said from below: each halves the chance that all lose the most."""

Event = Mapping[str, Any]


def follows(guarantee: Mapping[str, Any]) -> bool:
    """Whether the epsilon is not below what the events give at the delta, as far as can be told here.

    Raises:
        KeyError, TypeError, ValueError, AttributeError, OverflowError: the events are none of a guarantee's.
    """
    events, epsilon, delta = guarantee["events"], guarantee["epsilon"], guarantee["delta"]
    noise: dict[str, list[float]] = {"GaussianDpEvent": [], "LaplaceDpEvent": []}
    for event in events:
        if (query := query_of(event)) is None:
            return False
        noise[query[0]].append(query[1])
    gaussian, laplace = noise.values()
    if not events or len(laplace) > MOST_LAPLACE:
        return False
    joined = 1 / math.sqrt(sum(value**-2.0 for value in gaussian)) if gaussian else None
    left, chance, least = epsilon * ROUNDING, 1.0, []
    for loss in (0.0, *sorted((1 / value for value in laplace), reverse=True)):
        left -= loss
        least.append(chance * (max(0.0, -math.expm1(left)) if joined is None else gaussian_delta(joined, left)))
        chance /= 2
    return bool(max(least) <= delta)


def query_of(event: Event) -> tuple[str, float] | None:
    """Kind and noise multiplier of an event that a ledger prices, less what only names it; None = it is none."""
    kind: Any = event.get("event")
    value: Any = event.get("noise_multiplier")
    if kind not in ("GaussianDpEvent", "LaplaceDpEvent") or type(value) not in (int, float):
        return None
    return (str(kind), float(value)) if LEAST_NOISE <= value <= MOST_NOISE else None


def gaussian_delta(noise_multiplier: float, epsilon: float) -> float:
    """The smallest delta of one Gaussian query at `epsilon`."""
    mu = 1 / noise_multiplier
    return _normal(mu / 2 - epsilon / mu) - math.exp(epsilon) * _normal(-mu / 2 - epsilon / mu)


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))
