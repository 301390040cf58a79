"""Ways to be wrong about differential privacy that public condensation code has shipped, each rebuilt small.

Every design claims epsilon 1 at delta 1e-6 for a per-patient clipped sum that guides a condensed set. The one-run
canary audit (Steinke, Nasr and Jagielski 2023) refutes the claim of each, and does not refute the same design put
right, under the same attack. Canaries are orthogonal patients of the largest norm allowed; the attacker knows all but
the coins.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from one_run import CanaryAudit, one_run_audit

from condensation.private.accounting import noise_multipliers
from condensation.private.moments import clipped
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret

CLAIM, DELTA, CLIP, STEPS, SEED = 1.0, 1e-6, 1.0, 50, 7
(ONE,) = noise_multipliers(CLAIM, DELTA, (1.0,))
EACH = noise_multipliers(CLAIM, DELTA, (1 / STEPS,) * STEPS)[0]  # of every step, where all are counted
NOISE = NoiseSource(Secret(bytes(range(32)), "noise"), "broken designs")
Release = Callable[[np.ndarray], Any]


def fresh(step: int, multiplier: float, size: int) -> np.ndarray:
    return NOISE.normal({"step": step}, multiplier * CLIP, (size,))


def signs(step: int, size: int) -> np.ndarray:
    """The public random features of a step: every coordinate's sign is drawn anew."""
    return np.random.default_rng(1000 + step).choice([-1.0, 1.0], size)


def sums(present: np.ndarray) -> np.ndarray:
    """Canary i is CLIP times the i-th axis: the sum of clipped rows, `(canary,)`."""
    return CLIP * present.astype(np.float64)


# --- the designs, each wrong and right --------------------------------------------------------------------------------


def halved_sigma(present: np.ndarray) -> np.ndarray:
    return sums(present) + fresh(0, ONE / 2, len(present))


def one_query(present: np.ndarray) -> np.ndarray:
    return sums(present) + fresh(0, ONE, len(present))


def stored_sums_noised_anew(present: np.ndarray) -> np.ndarray:
    """The exact sums are kept "because they were computed once"; every step noises them again, and all are released."""
    stored = sums(present)
    return np.mean([stored + fresh(step, ONE, len(present)) for step in range(STEPS)], axis=0)


def sums_noised_once(present: np.ndarray) -> np.ndarray:
    """Noised once; what every step reads is the same noisy sum."""
    stored = one_query(present)
    return np.mean([stored for _ in range(STEPS)], axis=0)


def steps_counted_as(multiplier: float) -> Release:
    """A set moves towards the noisy mean of every step; only its last state is released."""

    def run(present: np.ndarray) -> np.ndarray:
        samples = np.zeros(len(present))
        for step in range(STEPS):
            features = signs(step, len(present))
            target = features * sums(present) + fresh(step, multiplier, len(present))
            samples += 0.1 * (features * target - samples)  # the signs are public, so the samples can undo them
        return samples

    return run


def same_noise_each_epoch(present: np.ndarray) -> list[np.ndarray]:
    """All steps are counted, but the generator is seeded again at every epoch: one noise vector on many answers."""
    return [signs(step, len(present)) * sums(present) + fresh(0, EACH, len(present)) for step in range(STEPS)]


def other_noise_each_epoch(present: np.ndarray) -> list[np.ndarray]:
    return [signs(step, len(present)) * sums(present) + fresh(step, EACH, len(present)) for step in range(STEPS)]


def cancel_a_common_noise(released: list[np.ndarray]) -> np.ndarray:
    """Per coordinate the least-squares x of y_t = sign_t x + noise, one noise for all t."""
    drawn = np.array([signs(step, len(released[0])) for step in range(len(released))])
    answers = np.array(released)
    centred = drawn - drawn.mean(axis=0)
    return np.asarray((centred * answers).sum(axis=0) / np.maximum((centred**2).sum(axis=0), 1e-9))


HEAVY = 20.0  # times the clip norm: what an unclipped patient may weigh
CROWD = 20_000


def whole_estimate_clipped(present: np.ndarray) -> np.ndarray:
    """The mean is clipped to CLIP, as if one patient could then move it by CLIP / n only."""
    rows = HEAVY * CLIP * present.astype(np.float64)  # the sum of the orthogonal, unclipped rows
    mean = clipped(rows[None] / CROWD, CLIP)[0]
    return mean + fresh(0, ONE, len(present)) / CROWD


def every_patient_clipped(present: np.ndarray) -> np.ndarray:
    rows = min(HEAVY, 1.0) * CLIP * present.astype(np.float64)
    return rows / CROWD + fresh(0, ONE, len(present)) / CROWD


N_SAMPLES = 200


def started_from(records: bool) -> Release:
    """Samples start at real records or at public points and move by an accounted query; the account has only that."""

    def run(present: np.ndarray) -> np.ndarray:
        draws = np.random.default_rng(SEED)
        members = np.flatnonzero(present) if records else np.arange(len(present))
        chosen = draws.choice(members, N_SAMPLES, replace=False)
        samples = np.zeros(len(present))  # the coordinates in which some sample stands out
        samples[chosen] = 50 * CLIP
        return samples + 0.05 * one_query(present)

    return run


def copies_of_records(released: np.ndarray) -> np.ndarray:
    """Guess "in" for the canaries that a sample looks like, and nothing of the others."""
    return np.where(released > 25 * CLIP, released, np.nan)


def noise_of_a_recorded_seed(present: np.ndarray) -> tuple[int, np.ndarray]:
    return SEED, sums(present) + ONE * CLIP * np.random.default_rng(SEED).normal(size=len(present))


def noise_of_a_secret(present: np.ndarray) -> tuple[int, np.ndarray]:
    return SEED, one_query(present)


def subtract_the_noise(released: tuple[int, np.ndarray]) -> np.ndarray:
    seed, answer = released
    return np.asarray(answer - ONE * CLIP * np.random.default_rng(seed).normal(size=len(answer)))


def noise_scaled_by_the_data(present: np.ndarray) -> np.ndarray:
    """The noise is scaled to the largest norm that is there, and an empty sum is released as it is."""
    rows = sums(present)
    largest = np.abs(rows).max() if present.any() else 0.0
    return rows + largest * fresh(0, ONE, len(present))


@dataclass(frozen=True)
class Case:
    """A design, the same put right, and the attack on both."""

    wrong: Release
    right: Release
    score: Callable[[Any], np.ndarray] = np.asarray
    n_canaries: int = 20_000
    guesses_in: int = 300
    guesses_out: int = 300


CASES = {
    "sigma halved": Case(halved_sigma, one_query, n_canaries=100_000, guesses_in=1000, guesses_out=1000),
    "un-noised sums noised anew at every step": Case(stored_sums_noised_anew, sums_noised_once),
    "steps not counted": Case(steps_counted_as(ONE), steps_counted_as(EACH)),
    "the same noise at every epoch": Case(same_noise_each_epoch, other_noise_each_epoch, cancel_a_common_noise),
    "the whole estimate clipped, not each patient": Case(whole_estimate_clipped, every_patient_clipped),
    "started from real records, outside the account": Case(
        started_from(records=True), started_from(records=False), copies_of_records, 20_000, N_SAMPLES, 0
    ),
    "noise drawn from the recorded seed": Case(noise_of_a_recorded_seed, noise_of_a_secret, subtract_the_noise),
}


def audited(case: Case, design: Release) -> CanaryAudit:
    return one_run_audit(
        design,
        case.score,
        n_canaries=case.n_canaries,
        guesses_in=case.guesses_in,
        guesses_out=case.guesses_out,
        delta=DELTA,
        seed=SEED,
    )


@pytest.mark.parametrize("name", CASES)
def test_a_broken_design_is_caught_and_the_right_one_is_not(name: str) -> None:
    case = CASES[name]
    wrong, right = audited(case, case.wrong), audited(case, case.right)
    assert min(wrong.ceiling, right.ceiling) > CLAIM  # the audit could have seen it, in both
    assert wrong.epsilon > CLAIM
    assert right.epsilon <= CLAIM


def test_a_scale_taken_from_the_data_is_caught_on_neighbours() -> None:
    """One canary and one bit: with nobody there the answer is exactly zero, so the two cohorts are told apart for sure.

    The one-run audit needs many canaries and cannot see this; two neighbouring cohorts can.
    """
    empty, one = (noise_scaled_by_the_data(np.array([there])) for there in (False, True))
    assert empty[0] == 0.0
    assert one[0] != 0.0
    assert one_query(np.array([False]))[0] != 0.0
