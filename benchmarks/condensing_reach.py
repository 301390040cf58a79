"""How far a condensed set reaches: `python benchmarks/condensing_reach.py [--part transfer|sizes|tasks|splits]`.

* transfer: condensed on set A's training stays (one institution), tested on A's held-out stays and on all of set B (the
  other), beside the full training stays; AUROC of in-hospital death.
* sizes: 20, 80, 320 and 1,280 samples on P12-8000, kernel matching beside Gaussians, centroids and random stays.
* tasks: the seven labels T7, 80 samples, macro AUROC beside the full data's.
* splits: ten random splits of the 8,000 stays (5,120 train, 1,600 test), paired: Gaussian draws with a teacher's labels
  less kernel matching.

Receivers have no real data; `DRAWS` condensations, one training each; defaults throughout. Intervals as everywhere:
bootstrap over the test stays and the draws. A cell that the result file has is not computed again: delete it there to
have it anew.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from condensing import TASK, benchmark_noise, load
from reference import machine
from scipy import stats

from condensation.coresets import Centroids, RandomReal
from condensation.gaussian import Gaussian
from condensation.kernel_matching import KernelMatching
from condensation.private.condenser import PrivateMoments
from pipeline.core.protocols import Condenser
from pipeline.core.seeds import generator
from pipeline.core.types import CondensedSet, EncodedCohort, Split, with_tasks
from pipeline.core.types.found import FULL_DATA
from pipeline.validation.utility import TrainingSet, measure_utility

MODELS = ("tcn", "lstm", "logistic_regression")
TAUGHT = "gaussian, a teacher's labels"
METHODS: Mapping[str, Condenser] = {
    "kernel matching, learned labels": KernelMatching(),
    "kernel matching, hard labels": KernelMatching(labels="hard"),
    TAUGHT: Gaussian(labels="teacher"),
    "centroids": Centroids(),
    "random real stays": RandomReal(),
    "private, epsilon 1": PrivateMoments(),
}
DRAWS, EPOCHS, SEED, SIZES = 3, 30, 0, (10, 40, 160, 640)
N_SPLITS, N_TRAIN, N_TEST = 10, 5_120, 1_600
SPLIT_MODELS = ("gradient_boosting", "logistic_regression", "tcn-b")


def condensed(method: Condenser, train: EncodedCohort, n_per_class: int) -> tuple[CondensedSet, ...]:
    """`DRAWS` independent condensations."""
    return tuple(
        method.condense(
            train,
            n_per_class=n_per_class,
            seed=SEED + draw,
            noise=benchmark_noise(draw),
            device="cpu",
            on_step=lambda *_: None,
        )
        for draw in range(DRAWS)
    )


def scored(
    name: str,
    sets: tuple[CondensedSet, ...] | EncodedCohort,
    test: EncodedCohort,
    models: tuple[str, ...] = MODELS,
) -> list[dict[str, Any]]:
    """AUROC and AUPRC of every model and task."""
    if isinstance(sets, EncodedCohort):
        training = TrainingSet("raw", sets.features, sets.labels, test)
    else:
        training = TrainingSet("raw", tuple(s.features for s in sets), tuple(s.labels for s in sets), test)
    report = measure_utility({name: training}, models=models, n_seeds=DRAWS, epochs=EPOCHS, seed=SEED)
    found = [vars(row) for row in report.scores if row.metric in ("auroc", "auprc")]
    for row in found:
        if row["metric"] == "auroc":
            told = f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
            print(f"{name:<34} {row['n_samples']:>5} {row['model']:<20} {row['task']:<18} {told}", flush=True)
    return found


Keep = Callable[[str, Callable[[], Any]], Any]  # a cell's name, and how to compute it if it is not there


def transfer(keep: Keep) -> None:
    """Set A is the first half of the stays, as they lie in order."""
    both = load((TASK,))
    half = len(both.features) // 2
    a, b = both.take(np.arange(half)), both.take(np.arange(half, 2 * half))
    train = a.part(Split.TRAIN)
    chosen = ("kernel matching, learned labels", "kernel matching, hard labels", TAUGHT, "private, epsilon 1")
    sets: dict[str, Any] = {name: condensed(METHODS[name], train, 40) for name in chosen}
    sets |= {f"{TAUGHT}, 320": condensed(METHODS[TAUGHT], train, 160), FULL_DATA: train}
    for where, test in (("A's held-out stays", a.part(Split.HELD_OUT)), ("all of B", b)):
        for name, rows in sets.items():
            label = f"{name}, on {where}"
            keep(label, lambda label=label, rows=rows, test=test: scored(label, rows, test))


def sizes(keep: Keep) -> None:
    """Rows by method and number of samples, beside the full data."""
    cohort = load((TASK,))
    train, test = cohort.part(Split.TRAIN), cohort.part(Split.HELD_OUT)
    chosen = ("kernel matching, learned labels", TAUGHT, "centroids", "random real stays", "private, epsilon 1")
    for name in chosen:
        for size in (size for size in SIZES if fits(train, size)):
            keep(
                f"{name}, {2 * size}",
                lambda name=name, size=size: scored(name, condensed(METHODS[name], train, size), test),
            )
    keep(FULL_DATA, lambda: scored(FULL_DATA, train, test))


def fits(train: EncodedCohort, n_per_class: int) -> bool:
    """Whether the rarer class has as many stays as are asked for."""
    return int((train.labels[:, 0] == 1).sum()) >= n_per_class


def tasks(keep: Keep) -> None:
    """The seven tasks in one set; classes by the first."""
    cohort = load(())
    cohort = with_tasks(cohort, cohort.tasks[:7])
    train, test = cohort.part(Split.TRAIN), cohort.part(Split.HELD_OUT)
    name = "kernel matching, learned labels"
    rows = {
        name: keep(name, lambda: scored(name, condensed(METHODS[name], train, 40), test)),
        FULL_DATA: keep(FULL_DATA, lambda: scored(FULL_DATA, train, test)),
    }
    for row, found in rows.items():
        macro = {
            model: [r["mean"] for r in found if r["model"] == model and r["metric"] == "auroc"] for model in MODELS
        }
        keep(f"macro AUROC, {row}", lambda macro=macro: {model: float(np.mean(m)) for model, m in macro.items()})


def splits(keep: Keep) -> None:
    """One row a split, and the paired differences' mean with its interval by the corrected resampled t-test."""
    cohort = load((TASK,))
    order = [
        generator(SEED, "benchmark", "split", number).permutation(len(cohort.features)) for number in range(N_SPLITS)
    ]
    rows: dict[str, list[float]] = {}
    for number, stays in enumerate(order):
        train, test = cohort.take(np.sort(stays[:N_TRAIN])), cohort.take(np.sort(stays[-N_TEST:]))
        for name, size in ((TAUGHT, 160), ("kernel matching, learned labels", 40)):
            label = f"{name}, {2 * size}, split {number}"
            found = keep(
                label,
                lambda label=label, name=name, size=size, train=train, test=test: scored(
                    label, condensed(METHODS[name], train, size), test, SPLIT_MODELS
                ),
            )
            for row in found:
                if row["metric"] == "auroc":
                    rows.setdefault(f"{name} | {row['model']}", []).append(row["mean"])
    for model in SPLIT_MODELS:
        ours, theirs = (np.array(rows[f"{name} | {model}"]) for name in (TAUGHT, "kernel matching, learned labels"))
        half = corrected_half_width(ours - theirs)
        print(f"{model:<20} {ours.mean():.3f} {theirs.mean():.3f} {(ours - theirs).mean():+.4f} +- {half:.4f}")


def corrected_half_width(differences: np.ndarray) -> float:
    """Of a 95 % interval over random splits, whose training parts overlap (Nadeau and Bengio 2003)."""
    n = len(differences)
    variance = (1 / n + N_TEST / N_TRAIN) * differences.var(ddof=1)
    return float(stats.t.ppf(0.975, n - 1) * np.sqrt(variance))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = {"transfer": transfer, "sizes": sizes, "tasks": tasks, "splits": splits}
    parser.add_argument("--part", choices=parts, action="append", help="only this (may be repeated)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "condensing_reach.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    result |= {"benchmark": "condensing_reach", "machine": machine(np, torch, sklearn), "draws": DRAWS}
    for part in options.part or parts:
        cells = result.setdefault(part, {})

        def keep(name: str, compute: Callable[[], Any], cells: dict[str, Any] = cells) -> Any:
            if name not in cells:
                cells[name] = compute()
                options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            return cells[name]

        parts[part](keep)


if __name__ == "__main__":
    main()
