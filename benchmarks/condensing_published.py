"""What condensation learns: `python benchmarks/condensing_published.py --folder F [--rows ...] [--models ...]`.

P12-8000, in-hospital death, 80 samples, 44 channels, tested on the 1,600 held-out stays of the published split by
networks in the architecture of [Cond]'s authors, under two evaluators. Theirs: series standardised by the training
part, 30 epochs, the epoch of best AUROC on the 1,280 *real* tuning stays; so the receiver needs real data. Ours: series
as shared, 90 steps, the last; the receiver has no real data.

The published form runs its whole path here: outputs matched from N(0, 1), standardised, 24,000 steps of rate 1e-3, at a
quarter of the networks' width and 128 stays of a class a step; half an hour of one core. Full width is a matter of
`PUBLISHED`, and of a GPU. One row matches embeddings in its place, in 250 steps. Every set is condensed `DRAWS` times,
with one training of each receiver.
Intervals: 95 %, bootstrap over test stays and draws together; one draw says nothing of the spread between
condensations. Two figures say what a set holds, in standard deviations: the relative error of the difference of its
class means, and the variance of its samples' time means within a class as a share of the real stays', statics left out.
Sets and finished cells lie under `--folder`, and a run goes on there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from condensing import N_PER_CLASS, TASK, benchmark_noise, load
from reference import machine

from condensation.coresets import Centroids, RandomReal
from condensation.distribution_matching import PUBLISHED_FORM
from condensation.gaussian import Gaussian
from condensation.kernel_matching import KernelMatching
from condensation.roles import roles_of
from condensation.standard import Standard, standard_of
from pipeline.core.protocols import Condenser, ignore_step
from pipeline.core.seeds import child_seed, generator
from pipeline.core.types import EncodedCohort, Split
from pipeline.probes.panel import fit_predict
from pipeline.validation.metrics import auprc, auroc
from pipeline.validation.utility import subject_weights

RECEIVERS = ("published-tcn-b", "published-lstm-b", "published-rnn-b")
EVALUATORS = ("authors", "fixed length")
DRAWS, EPOCHS, SEED, N_BOOTSTRAP = 3, 30, 0, 500
PUBLISHED = dataclasses.replace(
    PUBLISHED_FORM,
    batch_size=128,
    networks=("published-tcn-a-quarter", "published-lstm-a-quarter", "published-vit-a-quarter"),
)
EMBEDDINGS = dataclasses.replace(PUBLISHED, match="embedding", iterations=250, learning_rate=2e-2, anneal=True)
MEANS = "class means and white noise"
Arrays = tuple[np.ndarray, np.ndarray, float]
"""Features and labels of a set, and the CPU seconds it took."""


def condensed(condenser: Condenser, train: EncodedCohort, draw: int) -> Arrays:
    """The set of one draw."""
    begun = time.process_time()
    found = condenser.condense(
        train, n_per_class=N_PER_CLASS, seed=draw, noise=benchmark_noise(draw), device="cpu", on_step=ignore_step
    )
    return found.features, found.labels[:, :1], time.process_time() - begun


def means_and_noise(train: EncodedCohort, draw: int) -> Arrays:
    """Each class's exact mean and N(0, 1) noise in standard deviations: where matching of means alone would end."""
    begun = time.process_time()
    standard = standard_of(train)
    means = np.stack([train.features[train.labels[:, 0] == label].mean(axis=0) for label in (0, 1)])
    noise = generator(draw, "benchmark", "white").normal(size=(2, N_PER_CLASS, *means.shape[1:]))
    noise -= noise.mean(axis=1, keepdims=True)
    features = (means[:, None] + standard.sd * noise).reshape(-1, *means.shape[1:])
    labels = np.repeat([[0.0], [1.0]], N_PER_CLASS, axis=0)
    return features.astype(np.float32), labels.astype(np.float32), time.process_time() - begun


def rows(train: EncodedCohort, folder: Path) -> dict[str, tuple[Callable[[int], Arrays], int]]:
    """Row -> (draw number -> set, number of draws)."""
    methods: dict[str, Condenser] = {
        "random real stays": RandomReal(),
        "centroids": Centroids(),
        "gaussian": Gaussian(),
        "gaussian, a teacher's labels": Gaussian(labels="teacher"),
        "kernel matching, hard labels": KernelMatching(labels="hard"),
        "kernel matching, learned labels": KernelMatching(),
    }
    start = dataclasses.replace(PUBLISHED, iterations=0)
    found: dict[str, tuple[Callable[[int], Arrays], int]] = {
        "published form, quarter width": (
            lambda draw: condensed(
                dataclasses.replace(PUBLISHED, checkpoint=folder / f"published-{draw}.npz"), train, draw
            ),
            DRAWS,
        ),
        "published form, quarter width, 0 steps": (lambda draw: condensed(start, train, draw), 1),
        f"embeddings from noise, quarter width, {EMBEDDINGS.iterations} steps": (
            lambda draw: condensed(EMBEDDINGS, train, draw),
            1,
        ),
        MEANS: (lambda draw: means_and_noise(train, draw), DRAWS),
    }
    for name, condenser in methods.items():
        found[name] = (lambda draw, condenser=condenser: condensed(condenser, train, draw), DRAWS)  # type: ignore[misc]
    return found


def _file(*parts: object) -> str:
    return ".".join(str(part).replace(" ", "_").replace(",", "").replace("'", "") for part in parts)


def sets_of(name: str, make: Callable[[int], Arrays], draws: int, folder: Path) -> Iterator[tuple[int, Arrays]]:
    """The row's sets, made or taken from the folder."""
    for draw in range(draws):
        path = folder / f"{_file(name, draw)}.npz"
        if not path.exists():
            features, labels, seconds = make(draw)
            np.savez(path, features=features, labels=labels, seconds=seconds)
            print(f"{name}, draw {draw}: {seconds:.1f} CPU seconds", flush=True)
        stored = np.load(path)
        yield draw, (stored["features"], stored["labels"], float(stored["seconds"]))


def predict_all(name: str, sets: dict[int, Arrays], models: Sequence[str], cohort: EncodedCohort, folder: Path) -> None:
    """Train every receiver on every set under both evaluators, and keep its probabilities of the held-out stays."""
    train, tuning, test = (cohort.part(part) for part in (Split.TRAIN, Split.TUNING, Split.HELD_OUT))
    standard = standard_of(train)
    for draw, (features, labels, _) in sets.items():
        for model in models:
            for evaluator in EVALUATORS:
                path = folder / f"{_file(name, draw, model, evaluator)}.npy"
                if path.exists():
                    continue
                scale: Callable[[np.ndarray], np.ndarray] = (
                    (lambda x: z(standard, x)) if evaluator == "authors" else (lambda x: x)
                )
                scores = fit_predict(
                    *(model, scale(features), labels, scale(test.features)),
                    epochs=EPOCHS,
                    seed=child_seed(SEED, model, draw),
                    tuning=(scale(tuning.features), tuning.labels[:, :1]) if evaluator == "authors" else None,
                )
                np.save(path, scores[:, 0])
                one = auroc(scores[:, 0].astype(np.float64), test.labels[:, 0], np.ones((1, len(scores))))[0]
                print(f"{name}, draw {draw}, {model}, {evaluator}: {one:.3f}", flush=True)


def z(standard: Standard, features: np.ndarray) -> np.ndarray:
    """Series in standard deviations of the training part."""
    return np.asarray(standard.z(torch.from_numpy(np.ascontiguousarray(features))).numpy())


def what_it_holds(
    features: np.ndarray, labels: np.ndarray, standard: Standard, moving: Sequence[int]
) -> tuple[np.ndarray, float]:
    """In z: the difference of the class means, and the variance of `moving` channels' time means within a class."""
    parts = [z(standard, features[(labels[:, 0] >= 0.5) == side]) for side in (False, True)]
    spread = np.mean([part[:, :, moving].mean(axis=1).var(axis=0) for part in parts])
    return parts[1].mean(axis=0) - parts[0].mean(axis=0), float(spread)


def summarised(
    made: dict[str, dict[int, Arrays]], models: Sequence[str], cohort: EncodedCohort, folder: Path
) -> dict[str, Any]:
    """Rows under both evaluators, and the paired difference of each to the class means."""
    train, test = cohort.part(Split.TRAIN), cohort.part(Split.HELD_OUT)
    truth = test.labels[:, 0].astype(np.float64)
    draws = generator(SEED, "benchmark", "bootstrap")
    weights = subject_weights(test.subject_index, N_BOOTSTRAP, draws)
    every = np.concatenate([np.ones((1, len(truth))), weights])  # the point, then its replicates
    standard = standard_of(train)
    static = roles_of(train.channels, train.transforms).static
    moving = [channel for channel in range(len(train.channels)) if channel not in static]
    real, real_spread = what_it_holds(train.features, train.labels[:, :1], standard, moving)
    table: dict[str, dict[str, Any]] = {}
    replicates: dict[tuple[str, str], np.ndarray] = {}
    for name, sets in made.items():
        held = [what_it_holds(features, labels, standard, moving) for features, labels, _ in sets.values()]
        errors = [np.linalg.norm(difference - real) / np.linalg.norm(real) for difference, _ in held]
        row: dict[str, Any] = {
            "draws": len(sets),
            "cpu_seconds": round(float(np.mean([seconds for _, _, seconds in sets.values()])), 2),
            "class_difference_error": round(float(np.mean(errors)), 2),
            "time_mean_spread": round(float(np.mean([spread for _, spread in held])) / real_spread, 2),
        }
        picked = draws.integers(len(sets), size=(N_BOOTSTRAP, len(sets)))
        for evaluator in EVALUATORS:
            paths = [[folder / f"{_file(name, draw, model, evaluator)}.npy" for model in models] for draw in sets]
            if not all(path.exists() for of_draw in paths for path in of_draw):
                continue
            scores = [[np.load(path).astype(np.float64) for path in of_draw] for of_draw in paths]
            by_draw = np.array([[auroc(one, truth, every) for one in of_draw] for of_draw in scores])
            means = by_draw.mean(axis=1)  # (draw, 1 + replicate), over the receivers
            sampled = np.take_along_axis(means[:, 1:].T, picked, axis=1).mean(axis=1)
            replicates[name, evaluator] = np.concatenate([[means[:, 0].mean()], sampled])
            key = evaluator.replace(" ", "_")
            row[f"{key}_auroc"] = _interval(replicates[name, evaluator])
            row[f"{key}_sd_of_draws"] = round(float(means[:, 0].std(ddof=1)), 4) if len(sets) > 1 else None
            one = np.ones((1, len(truth)))
            row[f"{key}_auprc"] = round(float(np.mean([auprc(s, truth, one) for of in scores for s in of])), 4)
            row[f"{key}_receivers"] = {
                model: round(float(by_draw[:, number, 0].mean()), 4) for number, model in enumerate(models)
            }
        table[name] = row
    for (name, evaluator), found in replicates.items():
        if name != MEANS and (MEANS, evaluator) in replicates:
            key = f"{evaluator.replace(' ', '_')}_more_than_means"
            table[name][key] = _interval(found - replicates[MEANS, evaluator])
    return table


def _interval(found: np.ndarray) -> list[float]:
    """Point and 95 % bounds of (point, replicates ...)."""
    low, high = np.quantile(found[1:], (0.025, 0.975))
    return [round(float(value), 4) for value in (found[0], low, high)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="sets (unreleased samples) and finished cells")
    parser.add_argument("--rows", nargs="+", default=[], help="rows whose name begins so")
    parser.add_argument("--models", nargs="+", default=list(RECEIVERS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "condensing_published.json")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    cohort = load((TASK,))
    planned = rows(cohort.part(Split.TRAIN), options.folder)
    for name, (make, draws) in planned.items():
        if not options.rows or name.startswith(tuple(options.rows)):
            sets = dict(sets_of(name, make, draws, options.folder))
            predict_all(name, sets, options.models, cohort, options.folder)
    finished = {
        name: dict(sets_of(name, make, draws, options.folder))
        for name, (make, draws) in planned.items()
        if all((options.folder / f"{_file(name, draw)}.npz").exists() for draw in range(draws))
    }
    table = summarised(finished, options.models, cohort, options.folder)
    result = {
        "benchmark": "condensing_published",
        "machine": {**machine(np, torch, sklearn), "threads_used": 1},
        "task": TASK,
        "samples": 2 * N_PER_CLASS,
        "receivers": list(options.models),
        "published_form": PUBLISHED.told(),
        "rows": table,
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, row in table.items():
        print(name, json.dumps(row))


if __name__ == "__main__":
    main()
