"""How long until a set is as good as the published loop's last one: `python benchmarks/condensing_time.py --folder F`.

P12-8000, in-hospital death, 80 samples, hard labels and learned ones apart. The published form [Cond] (outputs matched
from noise in standard deviations, 24,000 iterations of one architecture of three: `PUBLISHED_FORM`) runs in stretches
of `STRIDE` iterations; after each, a TCN and an LSTM are trained on the samples and scored on the 1,280 *tuning* stays
(two trainings each; the mean AUROC of the four is the score). Then its rivals run on the same machine and thread, and
the first of their stages that reaches the published loop's score is the time that counts. Random real stays stand among
them: a score that a draw of 80 rows reaches makes no ratio. CPU seconds of the process without the scoring; hours for
the published loop, so state is kept under `--folder` and a run goes on where it stopped. At the end the eleven
published networks are trained on its set and scored on the held-out stays, three trainings of each.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from condensers import NETWORKS, OTHERS
from condensing import N_PER_CLASS, TASK, benchmark_noise, load
from reference import machine

from condensation.coresets import Centroids, RandomReal
from condensation.distribution_matching import PUBLISHED_FORM
from condensation.gaussian import Gaussian
from condensation.kernel_matching import KernelMatching
from condensation.loop import StopCondensing
from pipeline.core.protocols import Condenser, OnStep, ignore_step
from pipeline.core.types import CondensedSet, EncodedCohort, Split
from pipeline.validation.utility import TrainingSet, measure_utility

ITERATIONS, STRIDE, SEED, EPOCHS, TRAININGS = 24_000, 2_000, 0, 30, 2
ELEVEN = tuple(f"published-{name}" for name in NETWORKS)
RIVALS: dict[str, list[Condenser]] = {
    "random real stays": [RandomReal()],
    "centroids": [Centroids()],
    "gaussian": [Gaussian()],
    "kernel matching, hard labels": [KernelMatching(labels="hard", iterations=n) for n in (25, 50, 100)],
    "kernel matching, learned labels": [KernelMatching(iterations=n) for n in (25, 50, 100)],
}


def made(condenser: Condenser, train: EncodedCohort, on_step: OnStep) -> tuple[CondensedSet, float]:
    """The set and the process's CPU seconds."""
    begun = time.process_time()
    condensed = condenser.condense(
        train, n_per_class=N_PER_CLASS, seed=SEED, noise=benchmark_noise(0), device="cpu", on_step=on_step
    )
    return condensed, time.process_time() - begun


def scores(condensed: CondensedSet, test: EncodedCohort, models: tuple[str, ...], trainings: int) -> dict[str, Any]:
    """Model -> metric -> mean and interval."""
    training = TrainingSet("raw", condensed.features, condensed.labels[:, :1], test)
    report = measure_utility({"set": training}, models=models, n_seeds=trainings, epochs=EPOCHS, seed=SEED)
    found: dict[str, Any] = {model: {} for model in models}
    for row in report.scores:
        if row.metric in ("auroc", "auprc"):
            found[row.model][row.metric] = [round(row.mean, 4), round(row.low, 4), round(row.high, 4)]
    return found


def tuning_score(condensed: CondensedSet, tuning: EncodedCohort) -> float:
    """Mean tuning AUROC of TCN and LSTM."""
    found = scores(condensed, tuning, ("tcn", "lstm"), TRAININGS)
    return round(float(np.mean([model["auroc"][0] for model in found.values()])), 4)


def published(
    train: EncodedCohort, tuning: EncodedCohort, folder: Path, last: int
) -> tuple[CondensedSet | None, list[dict[str, Any]]]:
    """The published loop, in stretches, until `last`; its last set and [{iterations, cpu_seconds, tuning_auroc}].

    A stretch that was interrupted goes on from its checkpoint, and the time before that is not counted: to the
    published loop's advantage.
    """
    journal = folder / "published.jsonl"
    curve = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()] if journal.exists() else []
    loop = dataclasses.replace(PUBLISHED_FORM, iterations=ITERATIONS, checkpoint=folder / "published.npz")
    condensed = None
    for until in range(STRIDE * (len(curve) + 1), last + 1, STRIDE):

        def stop(step: int, _of: int, _loss: float, until: int = until) -> None:
            if step >= until:
                raise StopCondensing

        condensed, seconds = made(loop, train, stop)
        spent = seconds + (curve[-1]["cpu_seconds"] if curve else 0.0)
        point = {
            "iterations": until,
            "cpu_seconds": round(spent, 1),
            "tuning_auroc": tuning_score(condensed, tuning),
        }
        curve.append(point)
        with journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(point) + "\n")
        print(json.dumps(point), flush=True)
    if last == ITERATIONS and condensed is None:  # all stretches are in the journal: the checkpoint holds the last set
        condensed = made(loop, train, ignore_step)[0]
    return condensed, curve


def rivals(train: EncodedCohort, tuning: EncodedCohort, target: float, spent: float) -> dict[str, Any]:
    """Row -> its stages, and how many times faster the first stage is that reaches `target`."""
    rows: dict[str, Any] = {}
    for name, stages in RIVALS.items():
        found = []
        for stage in stages:
            condensed, seconds = made(stage, train, ignore_step)
            reached = tuning_score(condensed, tuning)
            found.append({"cpu_seconds": round(seconds, 2), "tuning_auroc": reached})
        enough = [stage for stage in found if stage["tuning_auroc"] >= target]
        times = round(spent / enough[0]["cpu_seconds"], 1) if enough else None
        rows[name] = {"stages": found, "times_faster": times}
        print(name, json.dumps(rows[name]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="state of the published loop (unreleased samples)")
    parser.add_argument(
        "--until", type=int, default=ITERATIONS, help=f"iterations of the published loop, a multiple of {STRIDE}"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "condensing_time.json")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    cohort = load((TASK,))
    train, tuning = cohort.part(Split.TRAIN), cohort.part(Split.TUNING)
    condensed, curve = published(train, tuning, options.folder, options.until)
    last = curve[-1]
    result: dict[str, Any] = {
        "benchmark": "condensing_time",
        "machine": {**machine(np, torch, sklearn), "threads_used": 1},
        "published": curve,
        "rivals": rivals(train, tuning, last["tuning_auroc"], last["cpu_seconds"]),
    }
    if condensed is not None and last["iterations"] == ITERATIONS:
        found = scores(condensed, cohort.part(Split.HELD_OUT), (*OTHERS, *ELEVEN), 3)
        mean = round(float(np.mean([found[name]["auroc"][0] for name in ELEVEN])), 4)
        result |= {"published_on_held_out": found, "published_mean_of_11": mean}
        print("mean of the eleven networks, held-out:", mean)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
