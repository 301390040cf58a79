"""Exact choices in seconds: `python benchmarks/grouping_solvers.py`.

The most tasks that the group stage takes, 15: the partition of least cost, and the best cover by 64 candidate groups
beside every task alone, for every number of groups from 1 to 15. Values are a task's own level plus what its group is
worth (partners with a planted affinity, noise). One candidate holds all tasks, so that one group has a solution.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import scipy
from reference import machine

from pipeline.grouping.cover import best_cover
from pipeline.grouping.partition import MAX_TASKS, exact_partition

N_GROUPS, SECONDS = 64, 5


def instance(seed: int) -> np.ndarray:
    """Values `(group, task)`; NaN outside a group."""
    rng = np.random.default_rng(seed)
    groups = np.zeros((N_GROUPS, MAX_TASKS), dtype=bool)
    for row in range(N_GROUPS):
        groups[row, rng.choice(MAX_TASKS, size=rng.integers(2, 14), replace=False)] = True
    groups = np.concatenate([groups, np.eye(MAX_TASKS, dtype=bool), np.ones((1, MAX_TASKS), dtype=bool)])
    partner = rng.normal(0, 0.01, (MAX_TASKS, MAX_TASKS))
    size = groups.sum(axis=1, keepdims=True)
    worth = (groups @ partner) / np.sqrt(size) + rng.normal(0, 0.005, groups.shape)
    return np.where(groups, rng.random(MAX_TASKS) + worth, np.nan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "grouping_solvers.json")
    options = parser.parse_args()
    values, seconds = instance(0), []
    for most in range(1, MAX_TASKS + 1):
        begun = time.process_time()
        best_cover(values, max_groups=most)
        seconds.append(round(time.process_time() - begun, 2))
    fifteen = np.random.default_rng(0).random((MAX_TASKS, MAX_TASKS))
    begun = time.process_time()
    exact_partition(fifteen + fifteen.T, max_groups=4)
    partition = round(time.process_time() - begun, 2)
    result = {
        "benchmark": "grouping_solvers",
        "machine": machine(np, scipy),
        "tasks": MAX_TASKS,
        "candidates": len(values),
        "cover_cpu_seconds_by_groups": seconds,
        "partition_cpu_seconds": partition,
        "bars": {f"each in <= {SECONDS} s": {"met": max(*seconds, partition) <= SECONDS}},
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["bars"]))


if __name__ == "__main__":
    main()
