"""Two sites add their private moments: `python benchmarks/pooling.py [--part tuning] [--out FILE]`.

Site A holds PhysioNet 2012's set A, site B its set B, in-hospital death. Each releases its training stays' moments once
at epsilon 1, delta 1e-6 per stay; 80 samples with soft labels (40 per class) are drawn from A's moments, from B's, from
their sum, and from one release at epsilon 1 over the pooled training stays, which would need somebody who holds them
all. Receivers train on the set alone (`pipeline.probes.training`: fixed steps, no checkpoint) and are tested on the
held-out stays of both sites (published split: 5,120 train, 1,280 tuning, 1,600 test). Each row is the mean over
independent noise secrets, one training each; the interval is a bootstrap over test stays and secrets. Repeating is for
measuring: a site releases once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
import torch
from condensing import DELTA, SEED, TASK, load
from reference import machine

from condensation.private.condenser import samples_from_moments
from condensation.private.moments import release_moments
from condensation.private.pooling import noise_scale, pooled
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Moments, Split
from pipeline.ingest.sources.readers import read_source
from pipeline.validation.utility import TrainingSet, measure_utility

MODELS = ("tcn", "logistic_regression")
N_PER_CLASS, SECRETS, EPSILON = 40, 5, 1.0


def release(stays: EncodedCohort, site: str, number: int) -> Moments:
    """One site's release under its own secret; a benchmark's secrets are no secrets."""
    noise = NoiseSource(Secret(number.to_bytes(32, "little"), "noise"), site)
    return release_moments(stays, epsilon=EPSILON, delta=DELTA, noise=noise)


def rows(train: EncodedCohort, of_a: np.ndarray) -> dict[str, Callable[[int], Moments]]:
    """Row -> secret number -> moments."""
    a, b = train.take(np.flatnonzero(of_a)), train.take(np.flatnonzero(~of_a))
    return {
        "A alone": lambda k: release(a, "A", k),
        "B alone": lambda k: release(b, "B", k),
        "A + B, added moments": lambda k: pooled([release(a, "A", k), release(b, "B", k)]),
        "A and B pooled, one release": lambda k: release(train, "both", k),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["tuning", "test"], default="test", help="explore on tuning, report on test")
    parser.add_argument("--secrets", type=int, default=SECRETS)
    parser.add_argument("--out", type=Path, help="file for the JSON (a run on test writes results/pooling.json)")
    options = parser.parse_args()
    started = time.monotonic()
    encoded = load((TASK,))
    in_a = np.arange(len(encoded.labels)) < read_source("embedded", sets=("a",)).stays.height
    training = encoded.split == int(Split.TRAIN)
    train = encoded.part(Split.TRAIN)
    test = encoded.part(Split.TUNING if options.part == "tuning" else Split.HELD_OUT)
    moments = {
        name: [draw(number) for number in range(options.secrets)] for name, draw in rows(train, in_a[training]).items()
    }
    sets: dict[str, TrainingSet] = {}
    for name, drawn in moments.items():
        made = [samples_from_moments(one, n_per_class=N_PER_CLASS, seed=SEED + k) for k, one in enumerate(drawn)]
        sets[name] = TrainingSet("raw", tuple(c.features for c in made), tuple(c.labels for c in made), test)
    report = measure_utility(sets, models=MODELS, n_seeds=options.secrets, epochs=30, seed=SEED)
    scores = [dataclasses.asdict(row) for row in report.scores if row.metric in ("auroc", "auprc")]
    result: dict[str, Any] = {
        "benchmark": "pooling",
        "machine": machine(np, scipy, torch, sklearn),
        "data": "PhysioNet 2012, set A = site A, set B = site B, published fixed split",
        "part": options.part,
        "n": {
            "train_a": int(in_a[training].sum()),
            "train_b": int((~in_a)[training].sum()),
            "evaluated": len(test.labels),
            "events": int(test.labels[:, 0].sum()),
        },
        "task": TASK,
        "epsilon_per_stay": EPSILON,
        "delta": DELTA,
        "n_samples": 2 * N_PER_CLASS,
        "secrets": options.secrets,
        "noise_scale": {name: round(noise_scale(drawn[0].guarantee), 3) for name, drawn in moments.items()},
        "interval": report.interval,
        "training": report.training,
        "scores": scores,
        "wall_seconds": round(time.monotonic() - started),
    }
    if options.out or options.part == "test":
        path = options.out or Path(__file__).parent / "results" / "pooling.json"
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for row in scores:
        told = f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}], sd over secrets {row['seed_sd']:.3f}"
        print(f"{row['training_set']:<28} {row['model']:<20} {row['metric']:<6} {told}")


if __name__ == "__main__":
    main()
