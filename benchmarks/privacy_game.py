"""Is a release as private as it says, one person against nobody? The strongest attacker, on the shipped mechanism.

    python benchmarks/privacy_game.py --out benchmarks/results/privacy_game.json

An empty cohort against one worst-case person: every channel at one end of the range, then at the other, every label 1.
Each release has a secret of its own. The attacker sees both noisy answers before anything is made of them, and scores
them by the log of their likelihood ratio, which no other score beats (Neyman and Pearson). For a mu-Gaussian mechanism
the score is normal with variance mu^2 and means mu^2 apart. `half the noise` is the same with half the scale: it must
be seen.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final
from unittest import mock

import numpy as np
import scipy
from reference import machine
from scipy.stats import norm
from threadpoolctl import threadpool_limits

from condensation.private import granular
from condensation.private import moments as mechanism
from condensation.private.accounting import analytic_epsilon, noise_multipliers
from condensation.private.feature_map import LevelAndTrend, public_range
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import SECRET_BYTES, Secret
from pipeline.core.types import EncodedCohort, Provenance, Task

STEPS, CHANNELS, TASKS = 4, 3, 2
DELTA: Final = 1e-6
SURE: Final = 3.29  # standard errors of the interval: one that holds in 999 of 1,000 games


@final
@dataclass(frozen=True)
class Found:
    """mu of the mechanism as the scores show it, with an interval of 99.9 %."""

    mu: float
    low: float
    high: float
    claimed_mu: float
    releases: int  # on each side

    def epsilons(self) -> tuple[float, float]:
        """What the interval's ends are worth at the claim's delta."""
        low, high = (analytic_epsilon(1 / mu, DELTA) if mu > 1e-3 else 0.0 for mu in (self.low, self.high))
        return low, high


class Scaled:
    """The site's noise at a share of its scale."""

    def __init__(self, number: int, factor: float) -> None:
        self.source = NoiseSource(Secret(number.to_bytes(SECRET_BYTES, "little"), "noise"), "the game")
        self.factor = factor

    def reserve(self, *_: object) -> None:
        """No ledger."""

    def discrete_normal(self, query: object, scale: int, shape: tuple[int, ...]) -> np.ndarray:
        return self.source.discrete_normal(query, math.ceil(scale * self.factor), shape)


def cohort(people: int) -> EncodedCohort:
    """Nobody, or one person at the ends of every range."""
    series = np.ones((people, STEPS, CHANNELS), np.float32)
    series[:, : STEPS // 2] = 0.0
    return EncodedCohort(
        features=series,
        labels=np.ones((people, TASKS), np.float32),
        subject_index=np.arange(people, dtype=np.int32),
        split=np.zeros(people, np.int8),
        channels=tuple(f"c{i}" for i in range(CHANNELS)),
        tasks=tuple(Task(f"t{i}") for i in range(TASKS)),
        step_hours=1.0,
        transforms=({"kind": "scaling", "public": True},),
        provenance=Provenance("benchmark"),
    )


def scores(people: int, epsilon: float, factor: float, numbers: range) -> np.ndarray:
    """The log likelihood ratio of "one person" to "nobody", of a release under each secret: `(release,)`."""
    there, one = cohort(people), cohort(1)
    phi = LevelAndTrend(STEPS, CHANNELS, *public_range(one.transforms))
    rows, share, signs = phi.features(one.features), np.ones(1), mechanism.signed_labels(one.labels)
    seen: list[float] = []

    def moved(query: dict[str, object], clip_norm: float, scaler: mechanism.Standardiser | None) -> np.ndarray:
        """What the person adds to the answer, known to the attacker to the last bit."""
        if scaler is None:
            clip = mechanism.RAW_CLIP_SHARE * phi.half_range * math.sqrt(phi.n_features - 1)
            return mechanism.centre_parts(rows, share, clip, 1 / (2 * phi.half_range))
        weights = mechanism.task_weights(TASKS, math.sqrt(1 + clip_norm**2))
        return mechanism.moment_parts(mechanism.standardised(rows, scaler, clip_norm), share, signs, weights)

    scalers: list[mechanism.Standardiser] = []
    true_moments = mechanism._ask_moments

    def ask_moments(*given: object) -> object:
        scalers.append(next(one for one in given if isinstance(one, mechanism.Standardiser)))
        return true_moments(*given)  # type: ignore[arg-type]

    def answered(
        exact: np.ndarray, sensitivity: float, multiplier: float, noise: NoiseSource, query: dict[str, object]
    ) -> tuple[np.ndarray, float]:
        answer, scale = granular.noisy_answer(exact, sensitivity, multiplier, noise, query)
        move = moved(query, mechanism.DEFAULT_CLIP_NORM, scalers[-1] if query["part"] == "moments" else None)
        seen.append(float((answer @ move - move @ move / 2) / (scale * factor) ** 2))
        return answer, scale

    release = mechanism.release_moments.__wrapped__  # type: ignore[attr-defined]  # threads are limited once
    with mock.patch.multiple(mechanism, noisy_answer=answered, _ask_moments=ask_moments):
        for number in numbers:
            release(there, epsilon=epsilon, delta=DELTA, noise=Scaled(number, factor))
    return np.array(seen).reshape(-1, 2).sum(axis=1)


def play(epsilon: float, factor: float, releases: int, first: int = 0) -> Found:
    """mu from the difference of the mean scores over their spread, and its interval."""
    nobody = scores(0, epsilon, factor, range(first, first + releases))
    somebody = scores(1, epsilon, factor, range(first + releases, first + 2 * releases))
    spread = math.sqrt((nobody.var(ddof=1) + somebody.var(ddof=1)) / 2)
    mu = float((somebody.mean() - nobody.mean()) / spread)
    error = math.sqrt(2 / releases + mu**2 / (4 * releases))  # of the means, and of the spread from both sides
    (multiplier,) = noise_multipliers(epsilon, DELTA, (1.0,))
    return Found(mu, mu - SURE * error, mu + SURE * error, 1 / multiplier, releases)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--releases", type=int, default=20_000)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 4.0])
    parser.add_argument("--out", type=Path, default=Path("results/privacy_game.json"))
    options = parser.parse_args()
    rows = []
    with threadpool_limits(1):
        for epsilon in options.epsilons:
            for factor in (1.0, 0.5):
                began = time.process_time()
                found = play(epsilon, factor, options.releases)
                low, high = found.epsilons()
                rows.append(
                    {
                        "claim": epsilon,
                        "noise_times": factor,
                        "releases_a_side": found.releases,
                        "claimed_mu": round(found.claimed_mu, 4),
                        "mu": [round(value, 4) for value in (found.low, found.mu, found.high)],
                        "epsilon": [round(low, 3), round(analytic_epsilon(1 / found.mu, DELTA), 3), round(high, 3)],
                        "cpu_seconds": round(time.process_time() - began, 1),
                    }
                )
    result = {
        "machine": machine(np, scipy),
        "delta": DELTA,
        "confidence": round(2 * norm.cdf(SURE) - 1, 4),
        "rows": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
