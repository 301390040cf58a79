"""Who finds the groups that help? `python benchmarks/grouping_regret.py truth-800.npz truth-2400.npz`.

Every row names at most `GROUPS` groups that cover the eight tasks; its gain is what they earn over learning each task
alone, as a share of the null model's log-loss, on the held-out stays, from which nothing was chosen. Regret is the
share of the oracle's gain that is missing. The oracle picks the best cover on the very stays that score it, so it is
out of reach; `honest oracle` picks on one half of the held-out stays and of the seeds and is scored on the other: what
a perfect method could show at this size. Rows that train (HOA: 28 pairs; the 64 trained groups: singles, all tasks
together, what the affinities propose, random ones) choose on the tuning stays.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
import torch
from grouping import tag
from grouping_truth import all_groups, eight_tasks
from reference import machine
from scipy.stats import spearmanr

from pipeline.core.seeds import generator
from pipeline.core.types import Split
from pipeline.grouping.affinity.samplewise import label_hamming, samplewise_multihead
from pipeline.grouping.choose import choose
from pipeline.grouping.cover import best_cover
from pipeline.grouping.gains import GroupLosses, alone, gain_of, gains, null_log_losses, values
from pipeline.grouping.partition import exact_partition
from pipeline.grouping.reliability import table_of_pairs

GROUPS, N_TRAINED, DRAWS, SPLITS = 3, 64, 20, 40


def load(path: Path) -> tuple[GroupLosses, GroupLosses, dict[str, Any]]:
    """Losses on the tuning stays and on the held-out stays, and what the file says of itself."""
    stored = np.load(path)
    encoded = eight_tasks()
    groups, loss = all_groups(encoded.labels.shape[1]), stored["loss"].transpose(1, 0, 2, 3)
    mean = np.nanmean(stored["train_labels"].astype(np.float64), axis=0)
    parts = []
    n_tuning = int(stored["n_tuning"])
    for split, stays in ((Split.TUNING, slice(0, n_tuning)), (Split.HELD_OUT, slice(n_tuning, None))):
        part = encoded.part(split)
        parts.append(GroupLosses(groups, loss[:, :, stays], null_log_losses(part.labels, mean), part.subject_index))
    told = {key: round(float(stored[key]), 3) for key in ("seeds", "stays", "at_limit", "cpu_seconds")}
    return parts[0], parts[1], told


def phi(labels: np.ndarray) -> np.ndarray:
    """1 - |correlation| of two label columns, over the stays where both are known."""
    n_tasks = labels.shape[1]
    found = np.zeros((n_tasks, n_tasks))
    for first in range(n_tasks):
        for second in range(first):
            both = np.isfinite(labels[:, first]) & np.isfinite(labels[:, second])
            found[first, second] = 1 - abs(np.corrcoef(labels[both, first], labels[both, second])[0, 1])
    return found + found.T


def partition_rows(distance: np.ndarray, groups: np.ndarray) -> tuple[int, ...]:
    """The candidate that serves each task in the exact partition of a distance."""
    parts, _ = exact_partition(distance - min(0.0, float(distance.min())), max_groups=GROUPS)
    serves = [0] * groups.shape[1]
    for part in parts:
        for task in part:
            serves[task] = sum(1 << one for one in part) - 1
    return tuple(serves)


def from_pairs(table: np.ndarray, groups: np.ndarray) -> tuple[int, ...]:
    """HOA: a group's gain for a task is the mean of its pairs' (Standley et al. 2020)."""
    worth = np.full(groups.shape, np.nan)
    for row, members in enumerate(groups):
        inside = np.flatnonzero(members)
        part = table[np.ix_(inside, inside)]
        worth[row, inside] = np.nan_to_num(np.nanmean(part, axis=0)) if len(inside) > 1 else 0.0
    return best_cover(worth, max_groups=GROUPS).serves


def random_cover(groups: np.ndarray, rng: np.random.Generator) -> tuple[int, ...]:
    """A random partition into `GROUPS` parts."""
    part = rng.integers(GROUPS, size=groups.shape[1])
    return tuple(int(sum(1 << int(other) for other in np.flatnonzero(part == mine))) - 1 for mine in part)


def trained(tuning: GroupLosses, proposals: list[tuple[int, ...]], seed: int) -> tuple[int, ...]:
    """Validation among `N_TRAINED` groups."""
    n_groups = len(tuning.groups)
    rows = {*alone(tuning.groups).tolist(), n_groups - 1, *(row for one in proposals for row in one)}
    others = generator(seed, "candidates").permutation(n_groups)
    rows |= set([int(row) for row in others if int(row) not in rows][: max(0, N_TRAINED - len(rows))])
    kept = np.array(sorted(rows))
    part = GroupLosses(tuning.groups[kept], tuning.loss[kept], tuning.null, tuning.subjects)
    chosen = choose(part, max_groups=GROUPS, seed=seed)
    return tuple(int(kept[row]) for row in chosen.cover.serves)


def honest_oracle(held_out: GroupLosses) -> tuple[float, float]:
    """Gain of the best cover of one half of stays and seeds, scored on the other; correlation of the two's gains."""
    found, alike = [], []
    for split in range(SPLITS):
        stays = generator(split, "halves").permutation(len(held_out.subjects))
        halves = [held_out.take(part, np.array([half])) for half, part in enumerate(np.array_split(stays, 2))]
        worth = [values(half)[0] for half in halves]
        serves = best_cover(worth[0], max_groups=GROUPS).serves
        found.append(gain_of(halves[1], serves).mean)
        gained = [gains(one, half.groups) for one, half in zip(worth, halves, strict=True)]
        both = np.isfinite(gained[0]) & (held_out.groups.sum(axis=1) > 1)[:, None]
        alike.append(np.corrcoef(gained[0][both], gained[1][both])[0, 1])
    return float(np.mean(found)), float(np.mean(alike))


def measured(path: Path) -> dict[str, Any]:
    """All rows of one truth file."""
    tuning, held_out, told = load(path)
    groups, n_tasks = held_out.groups, held_out.groups.shape[1]
    train = eight_tasks().part(Split.TRAIN).take(np.arange(int(told["stays"])))
    worth = values(held_out)[0]
    gained = gains(worth, groups)
    oracle = gain_of(held_out, best_cover(worth, max_groups=GROUPS).serves).mean
    ceiling, reliability = honest_oracle(held_out)
    tuned = table_of_pairs(gains(values(tuning)[0], groups), groups)
    truth = table_of_pairs(gained, groups)
    off = ~np.eye(n_tasks, dtype=bool)
    distances: dict[str, Callable[[int], np.ndarray]] = {
        "labels: Hamming": lambda _: label_hamming(train.labels),
        "labels: phi": lambda _: phi(train.labels),
        "sample-wise convergence, multi-head": lambda seed: samplewise_multihead(
            train.features, train.labels, n_inits=3, seed=seed
        ),
        "TAG, lookahead each tenth step": lambda seed: tag(train.features, train.labels, every=10, seed=seed),
    }
    rows: dict[str, Any] = {}

    def add(name: str, covers: list[tuple[int, ...]], n_trained: int, table: np.ndarray | None = None) -> None:
        found = [gain_of(held_out, serves) for serves in covers]
        mean = float(np.mean([one.mean for one in found]))
        rank = None if table is None else round(float(spearmanr(-(table + table.T)[off], (truth + truth.T)[off])[0]), 3)
        rows[name] = {
            "gain": round(mean, 5),
            "regret": round(1 - mean / oracle, 3),
            "range": [round(min(one.mean for one in found), 5), round(max(one.mean for one in found), 5)],
            "trained_groups": n_trained,
            "rank_correlation_with_true_pair_gains": rank,
        }
        print(f"{told['stays']:.0f} stays  {name:<40} {json.dumps(rows[name])}", flush=True)

    add("oracle", [best_cover(worth, max_groups=GROUPS).serves], 255)
    add("all tasks together", [(len(groups) - 1,) * n_tasks], 1)
    add("random partitions", [random_cover(groups, generator(draw, "random")) for draw in range(10 * DRAWS)], 0)
    proposals = []
    for name, distance in distances.items():
        runs = [distance(seed) for seed in range(1 if name.startswith("labels") else 4)]
        covers = [partition_rows(run, groups) for run in runs]
        proposals.append(covers[0])
        add(name, covers, 0, np.mean(runs, axis=0))
    add("HOA: pairs trained", [from_pairs(tuned, groups)], 36, -tuned)
    add(f"validation among {N_TRAINED}", [trained(tuning, proposals, draw) for draw in range(DRAWS)], N_TRAINED)
    add("validation among all", [choose(tuning, max_groups=GROUPS, seed=0).cover.serves], 255)
    return {
        **told,
        "groups": GROUPS,
        "oracle_gain": round(oracle, 5),
        "honest_oracle_gain": round(ceiling, 5),
        "honest_oracle_regret": round(1 - ceiling / oracle, 3),
        "reliability_of_gains": round(reliability, 3),
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth", type=Path, nargs="+", help="files of grouping_truth.py")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "grouping_regret.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "benchmark": "grouping_regret",
        "machine": machine(np, scipy, sklearn, torch),
        "sizes": [measured(path) for path in options.truth],
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
