"""What the panel of downstream models reaches on PhysioNet 2012: `python benchmarks/panel.py [--quick]`.

Reference split P12-8000: sets A and B in RecordID order of A then B, `train_test_split(test_size=.2, random_state=42)`
twice -> 5,120 / 1,280 / 1,600 stays; 48 hourly steps, public ranges, carry-forward, no masks; in-hospital death. Rows:
all training stays (ceiling), 80 random real stays, and the floor that every condenser must beat: k-means centroids, 40
per class. Figures on the test split are for comparison with papers; constants were chosen on the tuning split.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import sklearn
import torch
from reference import machine, reference_split, retention
from sklearn.cluster import KMeans

from pipeline.core.seeds import generator
from pipeline.core.types import EncodedCohort, Split, UtilityReport, UtilityScore
from pipeline.core.types.found import FULL_DATA, RANDOM_REAL
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.embedded import read_embedded
from pipeline.probes.training import LEARNING_RATE, MAX_STEPS, MIN_STEPS
from pipeline.validation.utility import TrainingSet, measure_utility

MODELS = ("tcn", "lstm", "gru", "gradient_boosting", "logistic_regression")
QUICK_MODELS = ("tcn", "logistic_regression")
N_PER_CLASS, N_DRAWS, N_SEEDS, EPOCHS, SEED = 40, 5, 5, 30, 0
TASK = "in_hospital_death"
BAR = ("k-means centroids", "tcn", 0.81)


def stays() -> EncodedCohort:
    """The prepared stays with the one task."""
    tables = read_embedded()
    cohort, _ = build_cohort(
        tables,
        load_mapping("physionet2012"),
        step_hours=1.0,
        n_steps=48,
        tasks=(TASK,),
        split=reference_split(tables.stays.height),
    )
    return prepare(cohort)


def training_sets(train: EncodedCohort, test: EncodedCohort) -> dict[str, TrainingSet]:
    """The three rows; random stays and centroids differ by draw."""
    classes = [np.flatnonzero(train.labels[:, 0] == label) for label in (0, 1)]
    labels = np.repeat(np.array([0, 1], np.float32), N_PER_CLASS)[:, None]
    draws, centroids = [], []
    for k in range(N_DRAWS):
        draw = generator(SEED, "panel", k)
        draws.append(
            train.features[np.concatenate([draw.choice(rows, N_PER_CLASS, replace=False) for rows in classes])]
        )
        flat = [train.features[rows].reshape(len(rows), -1) for rows in classes]
        means = [KMeans(N_PER_CLASS, n_init=1, random_state=k).fit(x).cluster_centers_ for x in flat]
        centroids.append(np.concatenate(means).reshape(-1, *train.features.shape[1:]).astype(np.float32))
    same = (labels,) * N_DRAWS
    return {
        FULL_DATA: TrainingSet("raw", train.features, train.labels, test),
        RANDOM_REAL: TrainingSet("raw", tuple(draws), same, test),
        BAR[0]: TrainingSet("raw", tuple(centroids), same, test),
    }


def main() -> None:
    """Measure, print and keep the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two models, two seeds")
    parser.add_argument("--split", choices=("tuning", "held_out"), default="held_out", help="where to test")
    parser.add_argument("--out", type=Path, help="file for the JSON (benchmarks/results/panel.json unless quick)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models, n_seeds = (QUICK_MODELS, 2) if arguments.quick else (MODELS, N_SEEDS)
    prepared = stays()
    test = prepared.part(Split[arguments.split.upper()])
    sets = training_sets(prepared.part(Split.TRAIN), test)
    scores: list[UtilityScore] = []
    cpu_seconds: dict[str, float] = {}
    for model in models:
        for name, training_set in sets.items():
            start = time.process_time()
            report = measure_utility({name: training_set}, models=[model], n_seeds=n_seeds, epochs=EPOCHS, seed=SEED)
            cpu_seconds[f"{model} on {name}"] = round(time.process_time() - start, 1)
            scores += report.scores
    whole = UtilityReport(tuple(scores), EPOCHS, report.interval)
    bar = whole.score(BAR[0], BAR[1], "auroc", TASK)
    result = {
        "benchmark": "panel",
        "machine": {**machine(np, torch, sklearn), "threads_used": 1},
        "seed": SEED,
        "tested_on": arguments.split,
        "training": {"learning_rate": LEARNING_RATE, "epochs": EPOCHS, "min_steps": MIN_STEPS, "max_steps": MAX_STEPS},
        "interval": whole.interval,
        "scores": [dataclasses.asdict(score) for score in scores],
        "auroc_retention": {
            f"{model} on {name}": retention(whole, name, model, TASK) for model in models for name in sets
        },
        "cpu_seconds": cpu_seconds,
        "bar": {"row": f"{BAR[1]} on {BAR[0]}, AUROC", "bar": BAR[2], "met": bar is not None and bar.mean >= BAR[2]},
    }
    text = json.dumps(result, indent=2) + "\n"
    if arguments.out or not (arguments.quick or arguments.split == "tuning"):
        (arguments.out or Path(__file__).parent / "results" / "panel.json").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
