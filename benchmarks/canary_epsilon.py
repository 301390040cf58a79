"""How close do canaries come to the claim, and at what cost? The game on releases, on the shipped private mechanism.

    python benchmarks/canary_epsilon.py --runs 20 --out benchmarks/results/canary_epsilon.json

Every run has secrets, and so noise, of its own. `right` is the mechanism as it is: its lower bound must not exceed the
claim. `half the noise` is the same with every normal halved: it must. CPU seconds are this process's.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from reference import machine
from threadpoolctl import threadpool_limits

from condensation.private.moments import release_moments
from pipeline.audit.games.release_game import play
from pipeline.audit.scene import Mechanism
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import SECRET_BYTES, Secret
from pipeline.core.types import EncodedCohort, Moments, Provenance, Task

DELTA = 1e-6
STEPS, CHANNELS, TASKS = 8, 6, 2


class Scaled:
    """The site's noise times a factor."""

    def __init__(self, number: int, factor: float) -> None:
        self.source = NoiseSource(Secret(number.to_bytes(SECRET_BYTES, "little"), "noise"), "benchmark")
        self.factor = factor

    def reserve(self, *_: object) -> None:
        """No ledger."""

    def discrete_normal(self, query: object, scale: int, shape: tuple[int, ...]) -> np.ndarray:
        return self.factor * self.source.discrete_normal(query, scale, shape)


def mechanism(epsilon: float, factor: float) -> Mechanism:
    """The shipped release at `epsilon`, with its noise times `factor`."""
    columns = EncodedCohort(
        features=np.zeros((0, STEPS, CHANNELS), np.float32),
        labels=np.zeros((0, TASKS), np.float32),
        subject_index=np.zeros(0, np.int32),
        split=np.zeros(0, np.int8),
        channels=tuple(f"c{i}" for i in range(CHANNELS)),
        tasks=tuple(Task(f"t{i}") for i in range(TASKS)),
        step_hours=1.0,
        transforms=({"kind": "scaling", "public": True},),
        provenance=Provenance("benchmark"),
    )
    bare = release_moments.__wrapped__  # type: ignore[attr-defined]  # threads are limited once, for all calls

    def release(cohort: EncodedCohort, number: int) -> Moments:
        found: Moments = bare(cohort, epsilon=epsilon, delta=DELTA, noise=Scaled(number, factor))
        return found

    guarantee = release(columns, 0).guarantee
    assert guarantee is not None
    return Mechanism(release, columns, guarantee)


def audited(epsilon: float, factor: float, runs: int, rounds: int) -> dict[str, Any]:
    """Bounds of several runs."""
    began = time.process_time()
    games = [play(mechanism(epsilon, factor), seed=seed, rounds=rounds) for seed in range(runs)]
    bounds = np.array([game.found.epsilon for game in games])
    return {
        "claim": epsilon,
        "noise_times": factor,
        "runs": runs,
        "rounds": rounds,
        "canaries_in_a_group": games[0].group,
        "releases_per_run": games[0].releases,
        "cpu_seconds_per_run": round((time.process_time() - began) / runs, 2),
        "lower_bounds": {"min": bounds.min(), "median": float(np.median(bounds)), "max": bounds.max()},
        "above_claim": int((bounds > epsilon).sum()),
        "ceiling": games[0].found.ceiling,
        "controls_held": sum(game.controls_held for game in games),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1.0])
    parser.add_argument("--out", type=Path, default=Path("results/canary_epsilon.json"))
    options = parser.parse_args()
    rows = []
    with threadpool_limits(1):
        for epsilon in options.epsilons:
            for factor, runs in ((1.0, options.runs), (0.5, options.runs)):
                rows.append(audited(epsilon, factor, runs, options.rounds))
                result = {"machine": machine(np, scipy), "delta": DELTA, "confidence": 0.99, "rows": rows}
                options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
