"""Every condenser under eleven networks of ours: `python benchmarks/condensers.py [--rows ...] [--models ...]`.

P12-8000, in-hospital death, 80 samples, 44 channels, tested on the 1,600 held-out stays of the published split; every
method at its defaults, which were chosen on tuning stays (docs/benchmarks/condensing.md). Each row: `DRAWS` independent
condensations (for private rows `DRAWS` secrets; a site releases once), one training of every receiver on each; the
receiver has no real data, 30 epochs but 90 to 400 steps. The eleven have the sizes of [Cond]'s and an architecture of
our own (`pipeline.probes.networks`); `--models published-tcn-a ...` asks for theirs. Hard and soft labels are rows of
their own, and beside the soft ones stands their control: the same start with a teacher's labels and no matching. The
ceiling is a row, too: all real training stays, three trainings of each receiver.
Intervals: bootstrap over the test stays and the draws. A journal is kept, and a run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from condensing import DELTA, N_PER_CLASS, TASK, Draw, condensed_by, load, private_variant
from reference import machine

from condensation.coresets import Centroids, Herding, RandomReal
from condensation.gaussian import Gaussian
from condensation.kernel_matching import KernelMatching
from condensation.private.condenser import PrivateMoments
from pipeline.core.types import CondensedSet, EncodedCohort, Split
from pipeline.validation.utility import TrainingSet, measure_utility

NETWORKS = ("tcn-a", "tcn-b", "tcn-g", "lstm-a", "lstm-b", "rnn-a", "rnn-b", "vit-a", "vit-b", "trsf-a", "trsf-b")
OTHERS = ("tcn", "lstm", "transformer", "gradient_boosting", "lightgbm", "logistic_regression")
DRAWS, EPOCHS, SEED = 3, 30, 0
BARS = {"kernel matching, learned labels": 0.835, "private, epsilon 1": 0.825, "private, epsilon 4": 0.832}


PLUG_INS = {
    "characteristic_function": "characteristic functions",
    "gradient_matching": "gradient matching",
    "trajectory_matching": "trajectory matching",
}
"""Of examples/more-condensers: entry point -> row."""


def plug_ins() -> dict[str, Any]:
    """Their rows where that distribution is installed; else they are left out, and it is said."""
    found = {point.name: point.load()() for point in entry_points(group="decoct.condensers") if point.name in PLUG_INS}
    if missing := [row for name, row in PLUG_INS.items() if name not in found]:
        print(f"left out, as examples/more-condensers is not installed: {', '.join(missing)}")
    return {row: found[name] for name, row in PLUG_INS.items() if name in found}


def rows(train: EncodedCohort) -> dict[str, Draw]:
    """Row -> how its sets are made."""
    methods: dict[str, Any] = {
        "random real stays": RandomReal(),
        "herding": Herding(),
        "centroids": Centroids(),
        "gaussian": Gaussian(),
        "gaussian, a teacher's labels": Gaussian(labels="teacher"),
        **plug_ins(),
        "kernel matching, hard labels": KernelMatching(labels="hard"),
        "centroids with a teacher's labels, not matched": KernelMatching(labels="teacher", iterations=0),
        "kernel matching, learned labels": KernelMatching(),
        "private, epsilon 1": PrivateMoments(epsilon=1.0, delta=DELTA),
        "private, epsilon 4": PrivateMoments(epsilon=4.0, delta=DELTA),
    }
    made: dict[str, Draw] = {name: condensed_by(method, train) for name, method in methods.items()}
    made["private, epsilon 1, hard labels"] = private_variant(train, N_PER_CLASS, hard=True)
    taught = Gaussian(labels="teacher")
    made["gaussian, a teacher's labels, 320 samples"] = condensed_by(taught, train, n_per_class=160)
    made["all real training stays"] = lambda _: dataclasses.replace(
        made["random real stays"](0), features=train.features, labels=train.labels
    )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=[], help="only these")
    parser.add_argument("--models", nargs="+", default=[*OTHERS, *NETWORKS])
    parser.add_argument("--journal", type=Path, required=True, help="JSONL of finished cells")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "condensers.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoded = load((TASK,))
    train, test = encoded.part(Split.TRAIN), encoded.part(Split.HELD_OUT)
    done = read(options.journal)
    for name, draw in rows(train).items():
        missing = [model for model in options.models if (name, model) not in done]
        if missing and (not options.rows or name in options.rows):
            measure(name, draw, missing, test, options.journal)
    summary = summarised(read(options.journal))
    options.out.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    for name, row in summary["rows"].items():
        print(f"{name:<48} {row['told']}")


def measure(name: str, draw: Draw, models: list[str], test: EncodedCohort, journal: Path) -> None:
    """Condense `DRAWS` times and train every model; one journal line per model."""
    sets, seconds = zip(*(timed(lambda number=number: draw(number)) for number in range(DRAWS)), strict=True)
    training = TrainingSet(
        "raw", tuple(item.features for item in sets), tuple(item.labels[:, :1] for item in sets), test
    )
    for model in models:
        report = measure_utility({name: training}, models=[model], n_seeds=DRAWS, epochs=EPOCHS, seed=SEED)
        scores = {row.metric: vars(row) for row in report.scores if row.metric in ("auroc", "auprc")}
        cell = {"row": name, "model": model, "condensing_cpu_seconds": [round(s, 1) for s in seconds], **scores}
        with journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(cell) + "\n")
        print(f"{name:<48} {model:<20} {scores['auroc']['mean']:.3f} {scores['auprc']['mean']:.3f}", flush=True)


def timed(make: Callable[[], CondensedSet]) -> tuple[CondensedSet, float]:
    """What is made and the process's CPU seconds."""
    begun = time.process_time()
    return make(), time.process_time() - begun


def read(journal: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Finished cells."""
    lines = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    return {(cell["row"], cell["model"]): cell for cell in map(json.loads, lines)}


def summarised(cells: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    """The table: mean and worst of our eleven networks per row, and every cell."""
    table: dict[str, Any] = {}
    for name in dict.fromkeys(row for row, _ in cells):
        found = {model: cells[name, model] for model in (*OTHERS, *NETWORKS) if (name, model) in cells}
        eleven = [found[model]["auroc"]["mean"] for model in NETWORKS if model in found]
        row: dict[str, Any] = {"n_networks": len(eleven), "cells": found, "bar": BARS.get(name)}
        if eleven:
            row |= {"mean_auroc": round(float(np.mean(eleven)), 4), "worst_auroc": round(min(eleven), 4)}
        others = ", ".join(f"{model} {found[model]['auroc']['mean']:.3f}" for model in OTHERS if model in found)
        row["told"] = (
            f"mean of {len(eleven)} networks {row.get('mean_auroc')}, worst {row.get('worst_auroc')}; {others}"
        )
        table[name] = row
    return {
        "benchmark": "condensers",
        "machine": {**machine(np, torch, sklearn), "threads_used": 1},
        "task": TASK,
        "samples": 2 * N_PER_CLASS,
        "draws": DRAWS,
        "rows": table,
    }


if __name__ == "__main__":
    main()
