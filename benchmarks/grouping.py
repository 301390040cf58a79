"""Task affinity on PhysioNet 2012: time against TAG, and is it more than luck? `python benchmarks/grouping.py`.

Seven tasks, 2,000 of the 5,120 training stays of the reference split (sets A then B, two 20 % splits with seed 42),
the first 48 hours as input.

* time: samplewise_multihead (3 initialisations, summary features included) against TAG (Fifty et al. 2021) on the same
  summary features with the same trunk, 20 epochs of joint training in batches of 128 with Adam, the lookahead at every
  step or at every tenth; contestants alternate within a round, ratios are taken within a round.
* agreement: Spearman of the 21 pairs between runs with different seeds (mean over pairs of runs), and with the
  label-only control, for one-step heads (what Decoct uses) and TAG.
* null cohorts: 40 of 400 stays with six unrelated tasks of prevalence 5 % to 70 %: how many pass each check.

Seconds are the process's own CPU time on one thread: on a shared machine the wall clock measures the neighbours. No
gain of a grouping is measured here.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
import torch
from reference import machine, reference_split
from threadpoolctl import threadpool_limits

from pipeline.core.types import EncodedCohort, Split
from pipeline.grouping.affinity.samplewise import label_hamming, samplewise_multihead, summarise
from pipeline.grouping.checks import NOT_IDENTIFIABLE, note_on_halves, note_on_shuffles, rank_correlation
from pipeline.grouping.partition import exact_partition
from pipeline.grouping.run import group_tasks
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.embedded import read_embedded

TASKS = ("in_hospital_death", "los_gt_7d", "los_gt_14d", "sofa_ge_10", "saps1_ge_18", "death_30d", "death_365d")
N_STAYS, N_INITS, EPOCHS, BATCH = 2000, 3, 20, 128
BAR = 20  # times faster than TAG with its training


def training_stays() -> EncodedCohort:
    """The training stays of the reference split."""
    tables = read_embedded()
    split = reference_split(tables.stays.height)
    cohort, _ = build_cohort(
        tables, load_mapping("physionet2012"), step_hours=1.0, n_steps=48, tasks=TASKS, split=split
    )
    return prepare(cohort).part(Split.TRAIN)


def tag(features: np.ndarray, labels: np.ndarray, *, every: int, seed: int) -> np.ndarray:
    """TAG: Z[i, j] = 1 - L_j(trunk after a step on L_i) / L_j(trunk), averaged over one joint training run.

    Returned as a distance, minus the mean of Z[i, j] and Z[j, i], so that smaller = more alike.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inputs = torch.tensor(summarise(features), dtype=torch.float32)
        targets = torch.tensor(labels, dtype=torch.float32)
        trunk = torch.nn.Sequential(
            torch.nn.Linear(inputs.shape[1], 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh()
        )
        head = torch.nn.Linear(64, labels.shape[1])
        names, weights = zip(*trunk.named_parameters(), strict=True)
        optimiser = torch.optim.Adam([*weights, *head.parameters()], lr=1e-3)

        def losses(batch: torch.Tensor, moved: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
            hidden = trunk(inputs[batch]) if moved is None else torch.func.functional_call(trunk, moved, inputs[batch])
            known = torch.isfinite(targets[batch])
            each = torch.nn.functional.binary_cross_entropy_with_logits(
                head(hidden), torch.nan_to_num(targets[batch]), reduction="none"
            )
            return (each * known).sum(0) / known.sum(0)

        seen: list[np.ndarray] = []
        step = 0
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(inputs)).split(BATCH):
                now = losses(batch)
                if step % every == 0:
                    row = []
                    for task in range(labels.shape[1]):
                        slopes = torch.autograd.grad(now[task], weights, retain_graph=True)
                        with torch.no_grad():
                            moved = {n: w - 1e-3 * g for n, w, g in zip(names, weights, slopes, strict=True)}
                            row.append((1 - losses(batch, moved) / now).numpy())
                    seen.append(np.stack(row))
                optimiser.zero_grad()
                now.sum().backward()
                optimiser.step()
                step += 1
    gain = np.mean(seen, axis=0)
    return -(gain + gain.T) / 2


def agreement(run: Callable[[int], np.ndarray], control: np.ndarray, n_seeds: int) -> dict[str, Any]:
    """Between seeds, and with the label control."""
    runs = [run(seed) for seed in range(n_seeds)]
    between = [rank_correlation(one, other) for one, other in combinations(runs, 2)]
    against = [rank_correlation(one, control) for one in runs]
    return {"n_seeds": n_seeds, "between_seeds": spread(between), "with_label_control": spread(against)}


def null_cohorts(n_cohorts: int = 40, n_stays: int = 400) -> dict[str, int]:
    """Cohorts where no task has to do with a feature or another task: how many pass the checks."""
    passed = {"cohorts": n_cohorts, "pass_halves": 0, "pass_shuffles": 0, "pass_both": 0}
    prevalence = np.array([0.05, 0.1, 0.2, 0.3, 0.5, 0.7])
    for seed in range(n_cohorts):
        rng = np.random.default_rng(seed)
        inputs = rng.standard_normal((n_stays, 20))
        labels = (rng.random((n_stays, len(prevalence))) < prevalence).astype(np.float64)

        def one(rows: np.ndarray, part: np.ndarray, inputs: np.ndarray = inputs) -> np.ndarray:
            return samplewise_multihead(inputs[rows], part, n_inits=2, seed=0)

        halves = NOT_IDENTIFIABLE not in note_on_halves(one, labels, np.arange(n_stays), 3, seed)
        shuffles = NOT_IDENTIFIABLE not in note_on_shuffles(one, labels, 3, seed)
        passed["pass_halves"] += halves
        passed["pass_shuffles"] += shuffles
        passed["pass_both"] += halves and shuffles
    return passed


def spread(values: list[float]) -> dict[str, float]:
    """Mean and range, four digits."""
    return {
        "mean": round(float(np.mean(values)), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
        "n": len(values),
    }


def seconds(call: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "grouping.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        result = measure(arguments.rounds)
    text = json.dumps(result, indent=2) + "\n"
    arguments.out.write_text(text, encoding="utf-8")
    print(text, end="")


def measure(rounds: int) -> dict[str, Any]:
    """Everything the result file holds."""
    train = training_stays()
    rows = np.sort(np.random.default_rng(0).permutation(len(train.labels))[:N_STAYS])
    features, labels = train.features[rows], train.labels[rows]
    control = label_hamming(labels)

    def affinity(seed: int) -> np.ndarray:
        return samplewise_multihead(features, labels, n_inits=N_INITS, seed=seed)

    contestants: dict[str, Callable[[], object]] = {
        "samplewise_multihead": lambda: affinity(0),
        "tag_every_step": lambda: tag(features, labels, every=1, seed=0),
        "tag_every_tenth_step": lambda: tag(features, labels, every=10, seed=0),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            times[name].append(seconds(call))
    ours = times["samplewise_multihead"]
    ratios = {
        name: spread([peer / own for peer, own in zip(times[name], ours, strict=True)])
        for name in contestants
        if name.startswith("tag")
    }
    fifteen = np.random.default_rng(0).random((15, 15))
    grouping = group_tasks(train, affinity="samplewise_multihead", max_groups=3, n_inits=N_INITS, seed=0)
    return {
        "benchmark": "grouping",
        "machine": {**machine(np, scipy, torch, sklearn), "threads_used": 1},
        "data": {"stays": N_STAYS, "training_stays": len(train.labels), "tasks": list(TASKS), "seed_of_rows": 0},
        "seconds": {name: spread(values) for name, values in times.items()},
        "times_faster": ratios,
        "bars": {f"{name} >= {BAR}": {"met": ratio["mean"] >= BAR} for name, ratio in ratios.items()},
        "seconds_exact_partition_15_tasks": round(
            seconds(lambda: exact_partition(fifteen + fifteen.T, max_groups=4)), 3
        ),
        "seconds_group_stage_on_all_training_stays": round(
            seconds(lambda: group_tasks(train, affinity="samplewise_multihead", max_groups=3, n_inits=N_INITS, seed=0)),
            2,
        ),
        "agreement": {
            "one_step_heads": agreement(affinity, control, 8),
            "tag_every_tenth_step": agreement(lambda seed: tag(features, labels, every=10, seed=seed), control, 4),
        },
        "spearman_one_step_with_tag": round(rank_correlation(affinity(0), tag(features, labels, every=1, seed=0)), 4),
        "null_cohorts": null_cohorts(),
        "affinity": np.round(grouping.affinity, 4).tolist(),
        "control": np.round(grouping.control, 4).tolist(),
        "groups": grouping.groups,
        "control_groups": grouping.control_groups,
        "notes": grouping.notes,
    }


if __name__ == "__main__":
    main()
