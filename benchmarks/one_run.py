"""What (epsilon, delta) one run refutes: canaries put in or left out by fair coins, guessed from the release.

Steinke, Nasr and Jagielski, "Privacy auditing with one (1) training run" (NeurIPS 2023, arXiv 2305.08846), theorem 5.2
and algorithm 1: each of m canaries is a patient of its own, in with probability one half, independently; the auditor
guesses some of the coins and abstains from the rest. Under (epsilon, delta)-differential privacy by adding or removing
one patient the number of right guesses is, up to delta, no larger than that of randomised response. More right guesses
than that refute the claim, with the stated confidence. A lower bound says nothing of what a better attack would find.

The auditor knows nothing of the mechanism: it is handed over as a function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar, final

import numpy as np
from scipy import stats

from pipeline.core.errors import DataError
from pipeline.core.seeds import generator

LARGEST_EPSILON: Final = 100.0
PRECISION: Final = 1e-7  # of epsilon, towards the smaller side
CONFIDENCE: Final = 0.95
T = TypeVar("T")


@final
@dataclass(frozen=True)
class CanaryAudit:
    """What one run refuted: with `confidence`, the mechanism is not (e, delta)-private for any e below `epsilon`."""

    epsilon: float
    ceiling: float  # what these guesses, all right, would have refuted: an audit below the claim cannot contradict it
    correct: int
    guessed: int
    n_canaries: int
    delta: float
    confidence: float


def one_run_audit(
    mechanism: Callable[[np.ndarray], T],
    score: Callable[[T], np.ndarray],
    *,
    n_canaries: int,
    guesses_in: int,
    guesses_out: int,
    delta: float,
    seed: int,
    confidence: float = CONFIDENCE,
) -> CanaryAudit:
    """Toss the coins, run the mechanism once, guess, and bound epsilon from below.

    Args:
        mechanism: `(canary,)` of booleans, who is in -> what is released.
        score: the release -> `(canary,)`, larger = rather in; NaN = no guess.
        guesses_in, guesses_out: how many of the highest are guessed to be in, of the lowest to be out; fixed before the
            run, for a number chosen by the result would void the confidence.
        seed: of the coins. It is no secret of a site, but a coin seen beforehand is no coin.

    Raises:
        DataError: more guesses than canaries, or a figure out of range.
    """
    if min(guesses_in, guesses_out) < 0 or guesses_in + guesses_out > n_canaries:
        raise DataError("an audit guesses each canary at most once")
    present = generator(seed, "canaries", "coins").integers(0, 2, n_canaries).astype(bool)
    found = np.asarray(score(mechanism(present.copy())), dtype=np.float64)
    if found.shape != (n_canaries,):
        raise DataError(f"the scores have shape {found.shape}, expected ({n_canaries},)")
    known = np.flatnonzero(~np.isnan(found))
    order = known[np.argsort(-found[known], kind="stable")]
    inside = order[: min(guesses_in, len(order))]
    outside = order[max(len(inside), len(order) - guesses_out) :]
    correct = int(present[inside].sum() + (~present[outside]).sum())
    guessed = len(inside) + len(outside)
    return CanaryAudit(
        epsilon=empirical_epsilon(correct, guessed, n_canaries, delta, confidence),
        ceiling=empirical_epsilon(guessed, guessed, n_canaries, delta, confidence),
        correct=correct,
        guessed=guessed,
        n_canaries=n_canaries,
        delta=delta,
        confidence=confidence,
    )


def empirical_epsilon(correct: int, guessed: int, m: int, delta: float, confidence: float = CONFIDENCE) -> float:
    """The largest epsilon at which `correct` of `guessed` right guesses among m canaries is still too many; 0 if none.

    Raises:
        DataError: not 0 <= correct <= guessed <= m, or delta or confidence outside [0, 1).
    """
    if not (0 <= correct <= guessed <= m and 0 <= delta < 1 and 0 < confidence < 1):
        raise DataError("an audit needs 0 <= correct <= guessed <= m, 0 <= delta < 1 and 0 < confidence < 1")
    level = 1 - confidence
    if guessed == 0 or p_value(correct, guessed, m, 0.0, delta) > level:
        return 0.0
    low, high = 0.0, LARGEST_EPSILON
    while high - low > PRECISION:
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(correct, guessed, m, middle, delta) <= level else (low, middle)
    return low


def p_value(correct: int, guessed: int, m: int, epsilon: float, delta: float) -> float:
    """Bound on the chance of at least `correct` right guesses under (epsilon, delta): theorem 5.2 of the paper.

    P[W >= v] + 2 m delta max_i P[v > W >= v - i] / i with W ~ Binomial(guessed, e^epsilon / (1 + e^epsilon)), v =
    correct.
    """
    right = 1 / (1 + math.exp(-epsilon))
    exceeded = float(stats.binom.sf(correct - 1, guessed, right))
    if delta == 0 or correct == 0:
        return exceeded
    below = stats.binom.pmf(correct - np.arange(1, correct + 1), guessed, right)
    worst = float(np.max(np.cumsum(below) / np.arange(1, correct + 1)))
    return min(1.0, exceeded + 2 * m * delta * worst)
