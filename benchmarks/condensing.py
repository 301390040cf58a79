"""What a model learns from 80 samples: `python benchmarks/condensing.py [--part tuning] [--dm-iterations N]`.

Real data: PhysioNet 2012 sets A and B (8,000 stays), in-hospital death, 48 hourly steps x 44 channels, public ranges,
no masks; the published fixed split (two 20 % splits, seed 42: 5,120 train, 1,280 tuning, 1,600 test). Receivers train
on the set alone, no real data, no checkpoint: 30 epochs, but 90 to 400 steps (`pipeline.probes.training`). Every row
is the mean over 5 trainings on 5 independent condensations (one condensation where a note says so), with a 95 %
bootstrap interval over test stays and seeds.
Private rows: epsilon at delta 1e-6 per stay, everything that touches stays inside the account; each condensation has
its own secret, so their spread includes the noise. That repetition is for measuring: a site releases once.

Not in the default run: distribution matching as published, 24,000 iterations from noise (`--literal-iterations`).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
import torch
from reference import machine, reference_split, retention

from condensation.coresets import Centroids, RandomReal
from condensation.distribution_matching import PUBLISHED_FORM, DistributionMatching
from condensation.private.condenser import PrivateMoments, samples_from_moments
from condensation.private.moments import release_moments
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.protocols import Condenser
from pipeline.core.types import CondensedSet, EncodedCohort, Split
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.readers import read_source
from pipeline.validation.utility import TrainingSet, measure_utility

MODELS = ("tcn", "lstm", "gradient_boosting", "logistic_regression")
TASK = "in_hospital_death"
N_PER_CLASS, DRAWS, SEED, DELTA = 40, 5, 0, 1e-6
BARS = {  # (row, model) -> smallest mean AUROC
    ("private, epsilon 1", "tcn"): 0.815,
    ("private, epsilon 1", "logistic_regression"): 0.827,
}
Draw = Callable[[int], CondensedSet]


def load(tasks: tuple[str, ...], mapping: str = "physionet2012", n_steps: int = 48) -> EncodedCohort:
    """The 8,000 stays in RecordID order of A, then B, with the published split; `n_steps` hours of them."""
    tables = read_source("embedded", sets=("a", "b"))
    split = reference_split(tables.stays.height)
    meaning = load_mapping(mapping)
    cohort, _ = build_cohort(tables, meaning, step_hours=1.0, n_steps=n_steps, tasks=tasks, split=split)
    prepared = prepare(cohort)
    unit = {"kind": "subjects", "known": tables.subjects_known, "public": True}
    return dataclasses.replace(prepared, transforms=(unit, *prepared.transforms))


def benchmark_noise(draw: int) -> NoiseSource:
    """A benchmark's secrets are no secrets: a stranger must get the same figures."""
    return NoiseSource(Secret(draw.to_bytes(32, "little"), "noise"), "benchmark")


def condensed_by(condenser: Condenser, train: EncodedCohort, n_per_class: int = N_PER_CLASS) -> Draw:
    """Draw number -> condensed set."""
    return lambda draw: condenser.condense(
        train,
        n_per_class=n_per_class,
        seed=SEED + draw,
        noise=benchmark_noise(draw),
        device="cpu",
        on_step=lambda *_: None,
    )


def private_variant(train: EncodedCohort, n_per_class: int, *, hard: bool) -> Draw:
    """Other samples from the same private moments: post-processing, no further epsilon."""

    def draw(number: int) -> CondensedSet:
        moments = release_moments(train, epsilon=1.0, delta=DELTA, noise=benchmark_noise(number))
        return samples_from_moments(moments, n_per_class=n_per_class, seed=SEED + number, hard_labels=hard)

    return draw


def contestants(train: EncodedCohort, all_tasks: EncodedCohort, options: argparse.Namespace) -> dict[str, Any]:
    """Row -> (draw, number of independent condensations)."""
    rows: dict[str, tuple[Draw, int]] = {
        "random real stays": (condensed_by(RandomReal(), train), DRAWS),
        "centroids": (condensed_by(Centroids(), train), DRAWS),
        "private, epsilon 1": (condensed_by(PrivateMoments(epsilon=1.0, delta=DELTA), train), DRAWS),
        "private, epsilon 1, seven tasks": (condensed_by(PrivateMoments(delta=DELTA), all_tasks), DRAWS),
        "private, epsilon 1, hard labels": (private_variant(train, N_PER_CLASS, hard=True), DRAWS),
        "private, epsilon 1, 400 samples": (private_variant(train, 200, hard=False), DRAWS),
        "private, epsilon 4": (condensed_by(PrivateMoments(epsilon=4.0, delta=DELTA), train), DRAWS),
        "private, epsilon 0.25": (condensed_by(PrivateMoments(epsilon=0.25, delta=DELTA), train), DRAWS),
    }
    for start in ("real", "centroids") if options.dm_iterations else ():
        matching = DistributionMatching(initialisation=start, iterations=options.dm_iterations)  # type: ignore[arg-type]
        row = f"distribution matching, embedding from {start}, {options.dm_iterations} iterations"
        rows[row] = (condensed_by(matching, train), 1)
    if options.literal_iterations:
        literal = dataclasses.replace(PUBLISHED_FORM, iterations=options.literal_iterations)
        row = f"distribution matching as published, {options.literal_iterations} iterations"
        rows[row] = (condensed_by(literal, train), 1)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["tuning", "test"], default="test", help="explore on tuning, report on test")
    parser.add_argument("--dm-iterations", type=int, default=100, help="0 = leave distribution matching out")
    parser.add_argument("--literal-iterations", type=int, default=0, help="24000 = as published")
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--out", type=Path, help="file for the JSON (the default run writes results/condensing.json)")
    options = parser.parse_args()
    started = time.monotonic()
    encoded, seven = load((TASK,)), load(())
    train, all_tasks = encoded.part(Split.TRAIN), seven.part(Split.TRAIN)
    test = encoded.part(Split.TUNING if options.part == "tuning" else Split.HELD_OUT)
    sets, seconds = {}, {}
    if not options.only:
        sets["full_data"] = TrainingSet("raw", train.features, train.labels, test)
    for name, (draw, n_draws) in contestants(train, all_tasks, options).items():
        if options.only not in name:
            continue
        drawn, times = [], []
        for number in range(n_draws):
            begun = time.thread_time()
            drawn.append(draw(number))
            times.append(time.thread_time() - begun)
        sets[name] = TrainingSet("raw", tuple(c.features for c in drawn), tuple(c.labels[:, :1] for c in drawn), test)
        seconds[name] = {"median": round(statistics.median(times), 3), "condensations": n_draws}
    report = measure_utility(sets, models=options.models, n_seeds=DRAWS, epochs=30, seed=SEED)
    scores = [dataclasses.asdict(row) for row in report.scores]
    means = {(row.training_set, row.model): row.mean for row in report.scores if row.metric == "auroc"}
    result = {
        "benchmark": "condensing",
        "machine": {**machine(np, scipy, torch, sklearn), "torch_threads": torch.get_num_threads()},
        "data": "PhysioNet 2012 sets A and B, published fixed split",
        "part": options.part,
        "n": {"train": len(train.labels), "evaluated": len(test.labels), "events": int(test.labels[:, 0].sum())},
        "task": TASK,
        "seed": SEED,
        "epochs": report.epochs,
        "interval": report.interval,
        "condensing_seconds": {"clock": "CPU time of the main thread", **seconds},
        "retention_auroc": {
            name: {model: retention(report, name, model, TASK) for model in options.models} for name in sets
        },
        "bars": {
            f"{row}, {model}": {"bar": bar, "met": means[row, model] >= bar}
            for (row, model), bar in BARS.items()
            if (row, model) in means
        },
        "scores": scores,
        "wall_seconds": round(time.monotonic() - started),
    }
    text = json.dumps(result, indent=2) + "\n"
    if options.out or (options.part == "test" and not options.only):
        (options.out or Path(__file__).parent / "results" / "condensing.json").write_text(text, encoding="utf-8")
    print_table(scores, list(sets))


def print_table(scores: list[dict[str, Any]], names: list[str]) -> None:
    """AUROC/AUPRC, one row a set, one column a model."""
    cell = {(s["training_set"], s["model"], s["metric"]): s for s in scores}
    for name in names:
        cells = [
            f"{model} {cell[name, model, 'auroc']['mean']:.3f} "
            f"[{cell[name, model, 'auroc']['low']:.3f}, {cell[name, model, 'auroc']['high']:.3f}] "
            f"/ {cell[name, model, 'auprc']['mean']:.3f}"
            for model in MODELS
            if (name, model, "auroc") in cell
        ]
        print(f"{name}: " + " | ".join(cells))


if __name__ == "__main__":
    main()
