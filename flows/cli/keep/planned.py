"""What a year of releases costs one person under a policy: each night a release of its own, or all nights one stream.

Nothing is read but policies; the figures are the closed form of Gaussian queries, which the ledger's price agrees with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from condensation.private.accounting import analytic_epsilon, noise_multipliers
from condensation.private.stream.factor import relative_noise, square_root_factor
from pipeline.sharing.policy.load import Policy

NIGHTS: Final = (1, 4, 15, 30, 52, 365)
EPSILON: Final = 1.0  # of one release, as the default condenser makes it
DELTA: Final = 1e-6


@final
@dataclass(frozen=True)
class Planned:
    """A row: so many nights a year under a policy, with the same people in all of them."""

    policy: str
    budget: float  # epsilon for one person in the policy's period
    delta: float
    nights: int
    apart: float  # epsilon if each night is a release of `EPSILON`
    admitted: int  # how many of those nights the budget covers
    stream: float  # epsilon of one stream whose last night is as accurate as such a release
    limit: float  # the most that a stream may cost: the budget, or what a single set may claim
    noise: float  # of the last night of a stream at the limit, beside such a release


def planned(policies: Sequence[Policy], nights: Sequence[int] = NIGHTS) -> tuple[Planned, ...]:
    """The table, policies in their order, fewest nights first."""
    (one,) = noise_multipliers(EPSILON, DELTA, (1.0,))
    rows = []
    for policy in policies:
        budget, delta = policy.budget, policy.budget.delta
        covered = int((one / noise_multipliers(budget.epsilon, delta, (1.0,))[0]) ** 2)
        limit = min(budget.epsilon, policy.max_epsilon)
        (most,) = noise_multipliers(limit, delta, (1.0,))
        for number in nights:
            _, worst = relative_noise(square_root_factor(number))
            apart, stream = (analytic_epsilon(one / of_one, delta) for of_one in (number**0.5, worst))
            told = (policy.name, budget.epsilon, delta, number, apart, min(number, covered), stream)
            rows.append(Planned(*told, limit, most * worst / one))
    return tuple(rows)
