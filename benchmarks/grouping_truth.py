"""Every group of eight tasks, trained: `python benchmarks/grouping_truth.py --stays 800 --out truth-800.npz`.

T8: the first 24 hours of PhysioNet 2012 (sets A and B) as summaries, eight labels from hours 24 to 48 or the outcome.
All 255 groups are trained with every seed on the first `--stays` training stays of the published split, stopped early
on the tuning stays. Kept: each task's log-loss per stay, averaged over the even and over the odd seeds, on the tuning
stays (from which groups may be chosen) and on the held-out stays (from which nothing is chosen, ever).
`grouping_regret.py` reads the file.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from reference import reference_split

from pipeline.core.types import EncodedCohort, Split
from pipeline.grouping.batched_trainer import log_losses, train_groups
from pipeline.grouping.validated import trainer_inputs
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.embedded import read_embedded

N_TASKS = 8


def eight_tasks() -> EncodedCohort:
    """All 8,000 stays, 24 hours, the published split."""
    tables, mapping = read_embedded(), load_mapping("physionet2012_24h")
    tasks = tuple(rule.name for rule in mapping.tasks)[:N_TASKS]
    split = reference_split(tables.stays.height)
    cohort, _ = build_cohort(tables, mapping, step_hours=1.0, n_steps=24, tasks=tasks, split=split)
    return prepare(cohort)


def all_groups(n_tasks: int) -> np.ndarray:
    """Every non-empty group: `(group, task)`; row g holds the bits of g + 1."""
    return (np.arange(1, 1 << n_tasks)[:, None] >> np.arange(n_tasks) & 1).astype(bool)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stays", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="npz; per-stay losses, so it stays with the site")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    encoded = eight_tasks()
    inputs = trainer_inputs(encoded.features)
    train, tuning, held_out = (np.flatnonzero(encoded.split == int(part)) for part in Split)
    groups = all_groups(N_TASKS)
    sums = np.zeros((2, len(groups), len(tuning) + len(held_out), N_TASKS))
    limit = []
    begun, wall = time.process_time(), time.monotonic()
    for seed in range(options.seeds):
        trained = train_groups(
            inputs,
            encoded.labels,
            train=train[: options.stays],
            stopping=tuning,
            scored=np.concatenate([tuning, held_out]),
            groups=groups,
            seeds=(seed,),
            device=options.device,
        )
        rows = encoded.labels[np.concatenate([tuning, held_out])]
        sums[seed % 2] += log_losses(trained.logits[:, 0], rows)
        limit.append(trained.at_limit.mean())
        print(f"seed {seed}: {time.process_time() - begun:.0f} CPU s, {np.mean(limit):.3f} at the limit", flush=True)
    halves = np.array([len(range(0, options.seeds, 2)), len(range(1, options.seeds, 2))])
    np.savez(
        options.out,
        loss=(sums / np.maximum(halves, 1)[:, None, None, None]).astype(np.float32),
        n_tuning=len(tuning),
        seeds=options.seeds,
        stays=options.stays,
        train_labels=encoded.labels[train[: options.stays]],
        at_limit=np.mean(limit),
        cpu_seconds=time.process_time() - begun,
        wall_seconds=time.monotonic() - wall,
    )


if __name__ == "__main__":
    main()
