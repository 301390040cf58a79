"""The two private condensers side by side: `python benchmarks/private_teacher.py [--draws N] [--models ...]`.

PhysioNet 2012 sets A and B, in-hospital death, the published split's 1,600 held-out stays; epsilon 1 and 4 at delta
1e-6 per stay, everything that touches stays inside the account. Each draw is another secret (a site releases once),
another seed, and one training of each receiver, without real data, 30 epochs but 90 to 400 steps; draw and receiver's
seed are shared by all rows. `private_moments` has the 80 samples that were its default, and 320; `private_teacher` has
the 320 that are its own, and 80. "teacher" is the score that the set brings, as its receiver computes it. Paired
differences resample stays and draws together. The calibration error is of ten equally large groups of stays, after the
correction for balanced labels that a receiver's `risk` makes; "before" is without it.

`--labels` asks the same of four further labels at epsilon 1, whose scores have no list in the mapping: the default set
against the old default's, a network, trees and logistic regression.

Nothing is chosen here: the constants are in `condensation.private.teacher.release.public_constants`, and their digest
is in the result. The recipe behind them was worked out on stays of these very sets.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import sklearn
import torch
from condensing import DELTA, TASK, benchmark_noise, load
from reference import machine
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score

from condensation.private.condenser import PrivateMoments
from condensation.private.teacher.condenser import PrivateTeacher
from condensation.private.teacher.release import public_constants
from pipeline.core.digest import digest_json
from pipeline.core.risk import shifted, teacher_risks
from pipeline.core.seeds import child_seed, generator
from pipeline.core.types import EncodedCohort, Split
from pipeline.probes.panel import fit_predict

MODELS: Final = ("tcn-b", "rnn-b", "gradient_boosting", "logistic_regression")
ROWS: Final = (("private_moments", 80), ("private_moments", 320), ("private_teacher", 80), ("private_teacher", 320))
EPSILONS: Final = (1.0, 4.0)
LABELS: Final = (  # mapping, hours of input, task
    ("physionet2012", 48, "los_gt_7d"),
    ("physionet2012", 48, "sofa_ge_10"),
    ("physionet2012_24h", 24, "map_lt_65"),
    ("physionet2012_24h", 24, "creatinine_ge_2"),
)
EPOCHS, SEED, REPLICATES = 30, 0, 1000
RESULTS: Final = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--labels", action="store_true", help="four further labels in place of in-hospital death")
    parser.add_argument("--out", type=Path, default=None, help="default: under results/")
    options = parser.parse_args()
    options.out = options.out or RESULTS / f"private_{'labels' if options.labels else 'teacher'}.json"
    torch.set_num_threads(1)
    if options.labels:
        further_labels(options)
        return
    begun = time.process_time()
    encoded = load((TASK,))
    train, test = encoded.part(Split.TRAIN), encoded.part(Split.HELD_OUT)
    truth = test.labels[:, 0].astype(int)
    rows: dict[str, Any] = {}
    for epsilon in EPSILONS:
        told: dict[str, dict[str, np.ndarray]] = {}
        raw: dict[str, dict[str, np.ndarray]] = {}
        for name, n in ROWS:
            found = measured(name, epsilon, n, train, test, options.models, options.draws)
            raw[f"{name}, {n}"], told[f"{name}, {n}"] = found
        told["teacher"] = {"score": told["private_teacher, 320"].pop("teacher")}
        told["private_teacher, 80"].pop("teacher")
        rows[f"epsilon {epsilon:g}"] = {
            **{
                row: {model: summary(truth, scores[model], raw.get(row, {}).get(model)) for model in scores}
                for row, scores in told.items()
            },
            "private_teacher, 320, less private_moments, 80": differences(
                truth, told["private_teacher, 320"], told["private_moments, 80"]
            ),
            "private_teacher, 320, less private_moments, 320": differences(
                truth, told["private_teacher, 320"], told["private_moments, 320"]
            ),
        }
        for row, cells in rows[f"epsilon {epsilon:g}"].items():
            print(f"epsilon {epsilon:g} {row}: " + ", ".join(f"{m} {_told(c)}" for m, c in cells.items()), flush=True)
    result = {
        "benchmark": "private_teacher",
        "machine": {**machine(np, torch, sklearn), "threads_used": 1},
        "data": "PhysioNet 2012 sets A and B, published fixed split, held-out stays",
        "n": {"train": len(train.labels), "evaluated": len(truth), "events": int(truth.sum())},
        "task": TASK,
        "delta": DELTA,
        "draws": options.draws,
        "constants": digest_json(public_constants()),
        "rows": rows,
        "cpu_seconds": round(time.process_time() - begun),
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def further_labels(options: argparse.Namespace) -> None:
    """Both condensers on `LABELS`; held-out stays without the label are left out."""
    begun, rows = time.process_time(), {}
    for mapping, hours, task in LABELS:
        encoded = load((task,), mapping, hours)
        train, test = encoded.part(Split.TRAIN), encoded.part(Split.HELD_OUT)
        test = test.take(np.flatnonzero(np.isfinite(test.labels[:, 0])))
        truth = test.labels[:, 0].astype(int)
        scores = {
            name: measured(name, 1.0, n, train, test, options.models, options.draws)[1]
            for name, n in (("private_moments", 80), ("private_teacher", 320))
        }
        teacher = {"score": scores["private_teacher"].pop("teacher")}
        rows[task] = {
            "n": {"evaluated": len(truth), "events": int(truth.sum())},
            "teacher": {"score": summary(truth, teacher["score"])},
            **{name: {model: summary(truth, found[model]) for model in found} for name, found in scores.items()},
            "difference": differences(truth, scores["private_teacher"], scores["private_moments"]),
        }
        told = ", ".join(f"{model} {_told(cell)}" for model, cell in rows[task]["difference"].items())
        print(f"{task}: {told}", flush=True)
    result = {
        "benchmark": "private_labels",
        "machine": {**machine(np, torch, sklearn), "threads_used": 1},
        "data": "PhysioNet 2012 sets A and B, published fixed split, held-out stays with the label",
        "epsilon": 1.0,
        "delta": DELTA,
        "draws": options.draws,
        "constants": digest_json(public_constants()),
        "rows": rows,
        "cpu_seconds": round(time.process_time() - begun),
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


Scores = dict[str, np.ndarray]


def measured(
    name: str, epsilon: float, n: int, train: EncodedCohort, test: EncodedCohort, models: list[str], draws: int
) -> tuple[Scores, Scores]:
    """Model -> its predictions for the test stays, `(draw, stay)`: as they are, and corrected for balanced labels."""
    method = (PrivateTeacher if name == "private_teacher" else PrivateMoments)(epsilon=epsilon, delta=DELTA)
    raw: dict[str, list[np.ndarray]] = {model: [] for model in models}
    corrected: dict[str, list[np.ndarray]] = {model: [] for model in models}
    for draw in range(draws):
        made = method.condense(train, n_per_class=n // 2, seed=SEED + draw, noise=benchmark_noise(draw))
        assert made.label_shift is not None
        for model in models:
            seed = child_seed(SEED, "utility", model, draw)
            args = (model, made.features, made.labels, test.features)
            raw[model].append(fit_predict(*args, epochs=EPOCHS, seed=seed, device="cpu")[:, 0])
            corrected[model].append(shifted(raw[model][-1], made.label_shift[0]))
        if made.teacher is not None and made.teacher_features is not None:
            risks = teacher_risks(test.features, made.teacher, made.teacher_features, made.channels)
            corrected.setdefault("teacher", []).append(risks[:, 0])
    return tuple({model: np.stack(scores) for model, scores in kind.items()} for kind in (raw, corrected))  # type: ignore[return-value]


def summary(truth: np.ndarray, scores: np.ndarray, before: np.ndarray | None = None) -> dict[str, float]:
    """AUROC, AUPRC and calibration error: mean and standard deviation over the draws, and AUROC's 95 % interval."""
    aurocs = np.array([roc_auc_score(truth, one) for one in scores])
    low, high = np.quantile([_resampled(truth, k, scores) for k in range(REPLICATES)], [0.025, 0.975])
    return {
        "auroc": round(float(aurocs.mean()), 4),
        "auroc_sd_over_draws": round(float(aurocs.std(ddof=1)), 4),
        "auroc_low": round(float(low), 4),
        "auroc_high": round(float(high), 4),
        "auprc": round(float(np.mean([average_precision_score(truth, one) for one in scores])), 4),
        **{
            name: round(float(np.mean([_calibration_error(truth, one) for one in of])), 4)
            for name, of in (("calibration_error", scores), ("calibration_error_before", before))
            if of is not None
        },
    }


def differences(truth: np.ndarray, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, Any]:
    """Paired differences of AUROC with 95 % intervals; of each model, and of the two networks' mean."""
    found = {}
    groups = {model: [model] for model in ours} | {"networks": [model for model in ("tcn-b", "rnn-b") if model in ours]}
    for name, models in groups.items():
        pairs = [(ours[model], theirs[model]) for model in models]
        if not pairs:
            continue
        replicates = [
            np.mean([_resampled(truth, k, one) - _resampled(truth, k, two) for one, two in pairs])
            for k in range(REPLICATES)
        ]
        low, high = np.quantile(replicates, [0.025, 0.975])
        mean = np.mean([_mean_auroc(truth, one) - _mean_auroc(truth, two) for one, two in pairs])
        found[name] = {key: round(float(value), 4) for key, value in (("auroc", mean), ("low", low), ("high", high))}
    return found


def _resampled(truth: np.ndarray, replicate: int, scores: np.ndarray) -> float:
    """Mean AUROC of one replicate: stays and draws with replacement, the same for every row."""
    draws = generator(SEED, "private-teacher-bootstrap", replicate)
    stays, chosen = draws.integers(0, len(truth), len(truth)), draws.integers(0, len(scores), len(scores))
    return _mean_auroc(truth[stays], scores[chosen][:, stays])


def _mean_auroc(truth: np.ndarray, scores: np.ndarray) -> float:
    """By ranks; ties count half."""
    events, ranks = truth == 1, rankdata(scores, axis=1)
    positives, negatives = events.sum(), (~events).sum()
    return float(((ranks[:, events].sum(axis=1) - positives * (positives + 1) / 2) / (positives * negatives)).mean())


def _calibration_error(truth: np.ndarray, scores: np.ndarray) -> float:
    """Mean gap between predicted and observed risk over tenths of the prediction."""
    parts = np.array_split(np.argsort(scores), 10)
    return float(np.mean([abs(scores[part].mean() - truth[part].mean()) for part in parts]))


def _told(cell: dict[str, float]) -> str:
    if "auprc" not in cell:
        return f"{cell['auroc']:+.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"
    told = f"{cell['auroc']:.3f} +- {cell['auroc_sd_over_draws']:.3f}/{cell['auprc']:.3f}"
    before = f", {cell['calibration_error_before']:.3f} before" if "calibration_error_before" in cell else ""
    return f"{told} (calibration {cell['calibration_error']:.3f}{before})"


if __name__ == "__main__":
    main()
