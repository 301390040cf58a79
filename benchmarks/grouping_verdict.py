"""What the verdict says of real stays, and how often it errs: `python benchmarks/grouping_verdict.py [--planted 40]`.

T8: the first 24 hours of PhysioNet 2012 (sets A and B) as summaries, eight labels from hours 24 to 48 or the outcome.
The first so many training stays of the published split are halved four times, pairs and singles trained in each half,
as `decide = "validation"` does; beside it the same with every task's labels permuted on their own, where there is
nothing to find. Told: the correlation of the two halves' pair gains, and by how much it is above what pairs in a random
order reach; above 0 a grouping is identifiable.

Where the truth is known: 500 stays of 30 numbers, two hidden causes that share 6 or 8 tasks (planted), and the same
labels permuted on their own, in `--planted` data sets each.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from grouping_truth import eight_tasks
from reference import machine

from pipeline.core.seeds import generator
from pipeline.core.types import Split
from pipeline.grouping.reliability import pair_reliability
from pipeline.grouping.validated import Effort, trainer_inputs

SIMULATED = 500  # stays


def verdict(inputs: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, Any]:
    """Of one cohort; every stay is a subject."""
    begun = time.process_time()
    subjects = np.arange(len(labels))
    found = pair_reliability(inputs, labels, subjects, n_splits=Effort().n_splits, n_seeds=1, seed=seed)
    return {
        "correlation": round(found.correlation, 3),
        "low": round(found.low, 3),
        "identifiable": found.identifiable,
        "cpu_seconds": round(time.process_time() - begun, 1),
    }


def simulated(n_tasks: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, labels of stays whose even and odd tasks have a hidden cause each, and the same labels permuted."""
    rng = np.random.default_rng(1000 + seed)
    inputs = rng.normal(size=(SIMULATED, 30)).astype(np.float32)
    hidden = 3 * np.tanh(inputs @ rng.normal(size=(30, 2)) * 1.5 / np.sqrt(30))
    chance = 1 / (1 + np.exp(-hidden[:, np.arange(n_tasks) % 2]))
    labels = (rng.random((SIMULATED, n_tasks)) < chance).astype(np.float32)
    return inputs, labels, np.stack([column[rng.permutation(SIMULATED)] for column in labels.T], axis=1)


def errors(n_tasks: int, n_sets: int) -> dict[str, Any]:
    """How many planted groupings are found, and how many permuted ones."""
    found = {"planted": 0, "permuted": 0}
    for seed in range(n_sets):
        inputs, *both = simulated(n_tasks, seed)
        for name, labels in zip(found, both, strict=True):
            found[name] += verdict(inputs, labels, seed)["identifiable"]
        print(n_tasks, "tasks", seed + 1, found, flush=True)
    return {"tasks": n_tasks, "stays": SIMULATED, "data_sets": n_sets, **found}


def permuted(labels: np.ndarray, seed: int) -> np.ndarray:
    """Every task's labels given out again among the stays."""
    rng = generator(seed, "permuted")
    return np.stack([rng.permutation(column) for column in labels.T], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stays", type=int, nargs="+", default=[800, 2400])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--planted", type=int, default=40, help="simulated data sets for each number of tasks; 0 = none"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "grouping_verdict.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoded = eight_tasks()
    train = np.flatnonzero(encoded.split == int(Split.TRAIN))
    rows = []
    for stays in options.stays:
        chosen = train[:stays]
        inputs, labels = trainer_inputs(encoded.features[chosen]), encoded.labels[chosen]
        for seed in range(options.seeds):
            for name, truth in (("as they are", labels), ("permuted", permuted(labels, seed))):
                rows.append({"stays": stays, "labels": name, "seed": seed, **verdict(inputs, truth, seed)})
                print(json.dumps(rows[-1]), flush=True)
    simulations = [errors(n_tasks, options.planted) for n_tasks in (6, 8) if options.planted]
    result = {
        "benchmark": "grouping_verdict",
        "machine": machine(np, torch),
        "verdicts": rows,
        "simulated": simulations,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
