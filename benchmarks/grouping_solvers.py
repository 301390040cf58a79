"""Exact choices in seconds: `python benchmarks/grouping_solvers.py`.

* p-median: 27 tasks, 3,000 random candidate groups of 1 to 13 tasks beside every task alone; values are a task's own
  level plus what its group is worth (partners with a planted affinity, noise): the best cover for every number of
  groups b from 1 to 27, with proof. One candidate holds all tasks, so that b = 1 has a solution.
* subset programme: the exact partition of 15 tasks.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from reference import machine

from pipeline.grouping.cover import best_cover
from pipeline.grouping.partition import exact_partition

N_TASKS, N_GROUPS, SECONDS, PARTITION_SECONDS = 27, 3000, 30, 5


def instance(seed: int) -> np.ndarray:
    """Values `(group, task)`; NaN outside a group."""
    rng = np.random.default_rng(seed)
    groups = np.zeros((N_GROUPS, N_TASKS), dtype=bool)
    for row in range(N_GROUPS):
        groups[row, rng.choice(N_TASKS, size=rng.integers(2, 14), replace=False)] = True
    groups = np.concatenate([groups, np.eye(N_TASKS, dtype=bool), np.ones((1, N_TASKS), dtype=bool)])
    partner = rng.normal(0, 0.01, (N_TASKS, N_TASKS))
    size = groups.sum(axis=1, keepdims=True)
    worth = (groups @ partner) / np.sqrt(size) + rng.normal(0, 0.005, groups.shape)
    return np.where(groups, rng.random(N_TASKS) + worth, np.nan)


def measured(seed: int) -> list[dict[str, Any]]:
    """Every b of one instance."""
    values, rows = instance(seed), []
    for b in range(1, N_TASKS + 1):
        begun, wall = time.process_time(), time.monotonic()
        cover = best_cover(values, max_groups=b, seconds=10 * SECONDS)
        seconds = {"cpu": round(time.process_time() - begun, 2), "wall": round(time.monotonic() - wall, 2)}
        rows.append({"b": b, "seconds": seconds, "gap": cover.gap, "objective": round(cover.objective, 6)})
        print(seed, json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "grouping_solvers.json")
    options = parser.parse_args()
    instances = [measured(seed) for seed in range(options.seeds)]
    slowest = max(row["seconds"]["cpu"] for rows in instances for row in rows)
    proven = all(row["gap"] < 1e-6 for rows in instances for row in rows)
    fifteen = np.random.default_rng(0).random((15, 15))
    begun = time.process_time()
    exact_partition(fifteen + fifteen.T, max_groups=4)
    partition = round(time.process_time() - begun, 2)
    result = {
        "benchmark": "grouping_solvers",
        "machine": machine(np, scipy),
        "p_median": {"tasks": N_TASKS, "candidates": N_GROUPS, "instances": instances},
        "slowest_cpu_seconds": slowest,
        "partition_of_15_cpu_seconds": partition,
        "bars": {
            f"every b proven in <= {SECONDS} s": {"met": proven and slowest <= SECONDS},
            f"15 tasks in <= {PARTITION_SECONDS} s": {"met": partition <= PARTITION_SECONDS},
        },
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["bars"]))


if __name__ == "__main__":
    main()
