"""The gradient bank against TAG, in one run: `python benchmarks/grouping_bank.py truth-800.npz`.

Eight tasks of PhysioNet 2012 (first 24 hours), the first 800 training stays, on summaries.

* time: filling the bank, its short training included, and reading `samplewise`, against TAG (Fifty et al. 2021) with
  the same trunk: 20 epochs of joint training in batches of 128 with the lookahead at every step, or at every tenth; the
  contestants alternate within a round and ratios are taken within a round.
* agreement with what training shows: Spearman of the 28 pairs with the gains of trained pairs (mean of both directions,
  8 seeds, dense networks, in the truth file), over seeds of the affinity; the difference to TAG with a 95 % interval
  from drawing pairs again.

Seconds are the process's own CPU time on one thread.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from grouping import seconds, spread
from grouping_intervals import population
from grouping_truth import eight_tasks
from reference import machine
from scipy.stats import spearmanr

from pipeline.core.types import Split
from pipeline.grouping.affinity.bank import BATCH, HIDDEN, LEARNING_RATE, Trunk, fill_bank, samplewise
from pipeline.grouping.affinity.samplewise import label_hamming
from pipeline.grouping.batched_trainer import task_losses
from pipeline.grouping.gains import gains, values
from pipeline.grouping.reliability import table_of_pairs
from pipeline.grouping.validated import trainer_inputs

N_STAYS, EPOCHS, BAR, STEP = 800, 20, 20, 1e-3


def tag(inputs: np.ndarray, labels: np.ndarray, *, every: int, seed: int) -> np.ndarray:
    """TAG as a distance: minus the mean of Z[i, j] and Z[j, i] over the lookaheads of one joint training."""
    draws = torch.Generator().manual_seed(seed)
    x, y = torch.tensor(inputs, dtype=torch.float32), torch.tensor(labels, dtype=torch.float32)
    known, y = y.isfinite().float(), y.nan_to_num(0.0)
    network = Trunk(x.shape[-1], draws)
    heads = ((torch.rand(HIDDEN[-1], y.shape[1], generator=draws) * 2 - 1) / HIDDEN[-1] ** 0.5).requires_grad_()
    bias = torch.zeros(y.shape[1], requires_grad=True)
    optimiser = torch.optim.Adam([*network.parameters, heads, bias], lr=LEARNING_RATE, fused=True)
    seen, step = [], 0

    def losses(rows: torch.Tensor) -> torch.Tensor:
        return task_losses((network.run(x[rows])[0] @ heads + bias)[None], y[rows], known[rows])[0]

    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(x), generator=draws), BATCH):
            now = losses(rows)
            if step % every == 0:
                seen.append(torch.stack([_ahead(network, now, task, rows, losses) for task in range(y.shape[1])]))
            optimiser.zero_grad()
            now.sum().backward()
            optimiser.step()
            step += 1
    gain = torch.stack(seen).mean(dim=0).numpy()
    return np.asarray(-(gain + gain.T) / 2)


def _ahead(
    network: Trunk, now: torch.Tensor, task: int, rows: torch.Tensor, losses: Callable[[torch.Tensor], Any]
) -> torch.Tensor:
    """1 - loss after a step on one task / loss before, for every task; the trunk is put back."""
    slopes = torch.autograd.grad(now[task], network.parameters, retain_graph=True)
    with torch.no_grad():
        kept = [one.clone() for one in network.parameters]
        for one, slope in zip(network.parameters, slopes, strict=True):
            one.data.sub_(slope, alpha=STEP)
        ratio = 1 - losses(rows) / now
        for one, old in zip(network.parameters, kept, strict=True):
            one.data.copy_(old)
    return ratio.detach()


def agreement(distance: np.ndarray, truth: np.ndarray, pairs: np.ndarray | None = None) -> float:
    """Spearman of pairs; `pairs`: some of them."""
    upper = np.triu_indices(len(distance), 1)
    near, gain = -distance[upper], truth[upper]
    chosen = np.arange(len(near)) if pairs is None else pairs
    return float(spearmanr(near[chosen], gain[chosen]).statistic)


def compared(inputs: np.ndarray, labels: np.ndarray, truth: np.ndarray, *, rounds: int, seeds: int) -> dict[str, Any]:
    """Times and agreements."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("samplewise", "tag_every_step", "tag_every_tenth_step")}
    times: dict[str, list[float]] = {name: [] for name in ("bank", "tag_every_step", "tag_every_tenth_step")}

    def banked(seed: int) -> None:
        bank = fill_bank(inputs, labels, seed=seed)
        found["samplewise"].append(samplewise(bank, np.ones(len(bank.stays))))

    def peer(every: int, seed: int, name: str) -> None:
        found[name].append(tag(inputs, labels, every=every, seed=seed))

    fill_bank(inputs, labels, seed=0)  # the first call of a process loads things
    for seed in range(rounds):
        times["bank"].append(seconds(lambda seed=seed: banked(seed)))
        times["tag_every_step"].append(seconds(lambda seed=seed: peer(1, seed, "tag_every_step")))
        times["tag_every_tenth_step"].append(seconds(lambda seed=seed: peer(10, seed, "tag_every_tenth_step")))
        print(seed, {name: round(value[-1], 3) for name, value in times.items()}, flush=True)
    for seed in range(rounds, seeds):
        banked(seed)
    agreements = {name: spread([agreement(one, truth) for one in runs]) for name, runs in found.items()}
    rng, n_pairs = np.random.default_rng(0), len(labels[0]) * (len(labels[0]) - 1) // 2
    ours, theirs = (np.mean(found[name], axis=0) for name in ("samplewise", "tag_every_step"))
    draws = []
    for _ in range(1000):
        pairs = rng.integers(n_pairs, size=n_pairs)
        draws.append(agreement(ours, truth, pairs) - agreement(theirs, truth, pairs))
    return {
        "seconds": {name: spread(runs) for name, runs in times.items()},
        "times_faster": {
            name: spread([one / own for one, own in zip(times[name], times["bank"], strict=True)])
            for name in times
            if name != "bank"
        },
        "agreement_with_trained_pairs": agreements,
        "samplewise_less_tag": {
            "difference": round(agreement(ours, truth) - agreement(theirs, truth), 3),
            "interval_95": [round(float(value), 3) for value in np.quantile(draws, (0.025, 0.975))],
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth", type=Path, help="file of grouping_truth.py with the same number of training stays")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "grouping_bank.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    whole = population(options.truth)
    truth = table_of_pairs(gains(values(whole)[0], whole.groups), whole.groups)
    truth = (truth + truth.T) / 2
    train = eight_tasks().part(Split.TRAIN).take(np.arange(N_STAYS))
    row = compared(trainer_inputs(train.features), train.labels, truth, rounds=options.rounds, seeds=options.seeds)
    result = {
        "benchmark": "grouping_bank",
        "machine": {**machine(np, scipy, torch), "threads_used": 1},
        "data": {
            "stays": N_STAYS,
            "tasks": train.labels.shape[1],
            "label_hamming": round(agreement(label_hamming(train.labels), truth), 4),
        },
        **row,
        "bars": {
            f">= {BAR} x faster than TAG at every step": {"met": row["times_faster"]["tag_every_step"]["mean"] >= BAR},
            "agreement not lower than TAG's": {
                "met": row["samplewise_less_tag"]["difference"] >= 0,
                "shown": row["samplewise_less_tag"]["interval_95"][0] >= 0,
            },
        },
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["bars"]))


if __name__ == "__main__":
    main()
