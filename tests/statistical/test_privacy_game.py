"""One worst-case person against nobody, both noisy answers read by likelihood ratio: `benchmarks/privacy_game.py`.

The interval of mu holds in 999 of 1,000 games. At epsilon 4 some hundred releases show half the noise; the benchmark
plays 10,000 a side at epsilon 1, too.
"""

from __future__ import annotations

import functools

from privacy_game import Found, play

from condensation.private.accounting import analytic_epsilon


@functools.cache
def game(factor: float) -> Found:
    return play(4.0, factor, 300)


def test_the_strongest_attacker_stays_inside_the_claim() -> None:
    found = game(1.0)
    assert found.low <= found.claimed_mu
    assert found.epsilons()[0] <= 4.0
    assert found.high > 0.8 * found.claimed_mu  # he is strong: the claim is nearly what he reaches


def test_half_the_noise_is_above_the_claim() -> None:
    found = game(0.5)
    assert found.low > found.claimed_mu
    assert found.epsilons()[0] > 4.0
    assert found.claimed_mu * 1.5 < found.mu < found.claimed_mu * 2.5


def test_the_claim_is_that_of_the_accountant() -> None:
    assert abs(analytic_epsilon(1 / game(1.0).claimed_mu, 1e-6) - 4.0) < 0.01
