"""What noise on an encoding buys and costs: `python benchmarks/encoder_noise.py [--quick]`.

Default quantum encoder (Gaussian noise; finite shots) and random projection (Gaussian noise), PhysioNet 2012 set A as
`prepare` makes it, ten levels each from none to useless:

* inversion: R2 and RMSE of the best of six attackers who hold the key, the law of the noise and 1,500 patients of their
  own, on 150 other stays (best chosen on the targets: in the attacker's favour);
* the van Trees bound and the Bayes-optimal attack it speaks of, on three priors: windows and constant series from the
  stated prior, and real constant series moved by a known dither;
* AUROC of in-hospital death: logistic regression and gradient boosting on summaries of the noisy encoding; random
  splits with another key each; differences against no noise paired;
* and the same where `calibrate` was asked for a bound.

Writes benchmarks/results/encoder_noise.json and docs/figures/encoder_noise.svg; takes some five minutes on one core.
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
from encoder_calibrate import calibrate
from encoder_limits import key, real_stays
from encoder_noise_attacks import DITHER, WIDTH, dithered_levels, inversion, prior_levels, prior_windows, with_noise
from encoder_noise_figure import draw
from reference import machine
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from encoders.leakage import bayes_rmse, exposure
from encoders.projection import RandomProjectionEncoder
from encoders.quantum import QuantumEncoder
from encoders.randomise import OutputNoise
from pipeline.core.errors import ConfigError
from pipeline.core.seeds import generator
from pipeline.core.types import EncodedCohort

Make = Callable[[], QuantumEncoder | RandomProjectionEncoder]
SEED = 0
SIGMAS = 4
SDS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SHOTS = (None, 10_000, 1_000, 300, 100, 30, 10, 5, 2, 1)
TARGETS = (0.02, 0.05, 0.10, 0.15)
CURVES: dict[str, tuple[Make, list[OutputNoise]]] = {
    "quantum, Gaussian noise": (QuantumEncoder, [OutputNoise(sd) for sd in SDS]),
    "quantum, finite shots": (QuantumEncoder, [OutputNoise(shots=shots) for shots in SHOTS]),
    "random projection, Gaussian noise": (RandomProjectionEncoder, [OutputNoise(sd) for sd in SDS]),
}


def bounds(cohort: EncodedCohort, make: Make, how: OutputNoise, n_keys: int) -> dict[str, Any]:
    """Bound and Bayes-optimal attack on the three priors: root of the mean over keys of squared errors."""
    n_windows = cohort.features.shape[1] // WIDTH
    constant = np.ptp(cohort.features, axis=1) == 0
    levels = [cohort.features[rows, 0, c].astype(np.float64)[:300] for c, rows in enumerate(constant.T)]
    levels = [own for own in levels if len(own) >= 30]
    found: dict[str, list[tuple[float, float, float]]] = {}
    for index in range(n_keys):
        encode = make().fit(cohort, key(index)).window_map
        dithered, dithered_bound = dithered_levels(encode, how, n_windows, levels, index)
        rows = {
            "independent values": (prior_windows(encode, how, index), _bound(encode, how, n_windows, constant=False)),
            "constant series": (
                prior_levels(encode, how, n_windows, index),
                _bound(encode, how, n_windows, constant=True),
            ),
            "dithered real constant series": (dithered, dithered_bound),
        }
        for name, (attack, bound) in rows.items():
            found.setdefault(name, []).append((attack.mse, attack.error, bound))
    return {name: _over_keys(np.array(each)) for name, each in found.items()}


def _bound(encode: Callable[[np.ndarray], np.ndarray], how: OutputNoise, n_windows: int, *, constant: bool) -> float:
    case = "constant_series" if constant else "independent_values"
    return bayes_rmse(exposure(encode, WIDTH, n_windows, case), how)  # type: ignore[arg-type]


def _over_keys(each: np.ndarray) -> dict[str, Any]:
    mse, error, bound = each.T
    return {
        "bound_rmse": float(f"{np.sqrt(np.mean(bound**2)):.3g}"),
        "attack_rmse": float(f"{np.sqrt(mse.mean()):.3g}"),
        "attack_standard_error": float(f"{np.sqrt((error**2).sum()) / len(each) / 2 / np.sqrt(mse.mean()):.2g}"),
        "keys_whose_bound_is_beaten": int(np.sum(mse + SIGMAS * error < bound**2)),
    }


def summaries(features: np.ndarray) -> np.ndarray:
    """Mean, deviation and last value, over windows, of each position in the window."""
    windows = features.reshape(len(features), -1, WIDTH * features.shape[2])
    return np.concatenate([windows.mean(axis=1), windows.std(axis=1), windows[:, -1]], axis=1)


def auroc(features: np.ndarray, death: np.ndarray, train: np.ndarray, index: int) -> dict[str, float]:
    """Of both models on the held-out stays."""
    summary = summaries(features)
    models = {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300)),
        "gradient boosting": HistGradientBoostingClassifier(
            max_iter=60, max_leaf_nodes=8, max_bins=63, random_state=index
        ),
    }
    scores = {}
    for name, model in models.items():
        model.fit(summary[train], death[train])
        scores[name] = float(roc_auc_score(death[~train], model.predict_proba(summary[~train])[:, 1]))
    return scores


def utility(cohort: EncodedCohort, make: Make, how: OutputNoise, n_splits: int) -> list[dict[str, float]]:
    """AUROC per split (and key)."""
    task = [t.name for t in cohort.tasks].index("in_hospital_death")
    known = np.isfinite(cohort.labels[:, task])
    features, death = cohort.features[known], cohort.labels[known, task]
    rows = []
    for index in range(n_splits):
        train = generator(SEED, "split", index).random(len(death)) < 0.7
        encoded = make().fit(cohort, key(index)).encode_array(features)
        rows.append(auroc(with_noise(encoded, how, generator(SEED, "noise", index)), death, train, index))
    return rows


def told(rows: list[dict[str, float]], reference: list[dict[str, float]]) -> dict[str, Any]:
    """Mean and spread over splits, as it is and against no noise."""
    return {
        model: {
            "auroc": round(float(np.mean([row[model] for row in rows])), 4),
            "sd": round(float(np.std([row[model] for row in rows], ddof=1)), 4),
            "minus_no_noise": round(
                float(np.mean([a[model] - b[model] for a, b in zip(rows, reference, strict=True)])), 4
            ),
            "minus_no_noise_sd": round(
                float(np.std([a[model] - b[model] for a, b in zip(rows, reference, strict=True)], ddof=1)), 4
            ),
            "n": len(rows),
        }
        for model in rows[0]
    }


def curve(cohort: EncodedCohort, name: str, *, n_splits: int, n_targets: int, n_own: int) -> list[dict[str, Any]]:
    """One row per level of noise."""
    make, hows = CURVES[name]
    targets, own = cohort.features[:n_targets], cohort.features[500 : 500 + n_own]
    encode = make().fit(cohort, key(0)).window_map
    reference = utility(cohort, make, hows[0], n_splits)
    rows = []
    for how in hows:
        attacks = inversion(targets, own, encode, how, SEED)
        best = max(attacks, key=lambda attack: attacks[attack][0])
        rows.append(
            {
                "noise": dict(how.public_spec()),
                "inversion_of_real_series": {
                    "best_attack": best,
                    "r2": round(attacks[best][0], 3),
                    "rmse": round(attacks[best][1], 4),
                    "r2_by_attack": {attack: round(r2, 3) for attack, (r2, _) in attacks.items()},
                },
                "bounds": bounds(cohort, make, how, n_splits),
                "auroc_in_hospital_death": told(
                    reference if how is hows[0] else utility(cohort, make, how, n_splits), reference
                ),
            }
        )
        print(name, how, rows[-1]["inversion_of_real_series"]["r2"], flush=True)
    return rows


def calibrated(cohort: EncodedCohort, *, n_splits: int) -> list[dict[str, Any]]:
    """What a wanted bound on constant series costs: every key gets the noise that it needs."""
    n_windows = cohort.features.shape[1] // WIDTH
    rows = []
    for name, make in (("quantum", QuantumEncoder), ("random projection", RandomProjectionEncoder)):
        task = [t.name for t in cohort.tasks].index("in_hospital_death")
        known = np.isfinite(cohort.labels[:, task])
        features, death = cohort.features[known], cohort.labels[known, task]
        reference = utility(cohort, make, OutputNoise(), n_splits)
        for target in TARGETS:
            scores, sds, shots = [], [], []
            for index in range(n_splits):
                fitted = make().fit(cohort, key(index))
                how = calibrate(target, fitted.window_map, WIDTH, n_windows)
                sds.append(how.noise_sd)
                if name == "quantum":
                    shots.append(_most_shots(target, fitted.window_map, n_windows))
                train = generator(SEED, "split", index).random(len(death)) < 0.7
                noisy = with_noise(fitted.encode_array(features), how, generator(SEED, "noise", index))
                scores.append(auroc(noisy, death, train, index))
            row = {"encoder": name, "target_rmse_constant_series": target, "noise_sd_by_key": sds}
            rows.append(row | ({"or_shots_by_key": shots} if shots else {}) | {"auroc": told(scores, reference)})
    return rows


def _most_shots(target: float, encode: Callable[[np.ndarray], np.ndarray], n_windows: int) -> int | None:
    """None where a single shot already tells more."""
    try:
        return calibrate(target, encode, WIDTH, n_windows, vary="shots").shots
    except ConfigError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 splits, 40 targets, 200 own patients")
    parser.add_argument("--out", type=Path, help="folder for JSON and figure (default: the repository's, unless quick)")
    arguments = parser.parse_args()
    threadpool_limits(1)
    n_splits, n_targets, n_own = (2, 40, 200) if arguments.quick else (3, 150, 1500)
    cohort = real_stays()
    result = {
        "benchmark": "encoder_noise",
        "machine": machine(np, scipy, sklearn),
        "seed": SEED,
        "data": {"source": "PhysioNet 2012, set A", "stays": len(cohort.features), "channels": len(cohort.channels)},
        "targets": n_targets,
        "own_patients": n_own,
        "keys_and_splits": n_splits,
        "inversion_key": 0,
        "dither": DITHER,
        "beaten_means": f"measured mean squared error more than {SIGMAS} standard errors below the bound's square",
        "curves": {name: curve(cohort, name, n_splits=n_splits, n_targets=n_targets, n_own=n_own) for name in CURVES},
        "calibrated": calibrated(cohort, n_splits=n_splits),
    }
    root = Path(__file__).parent
    if arguments.out or not arguments.quick:
        text = json.dumps(result, indent=2) + "\n"
        (arguments.out or root / "results").joinpath("encoder_noise.json").write_text(text, encoding="utf-8")
        draw(result, (arguments.out or root.parent / "docs" / "figures") / "encoder_noise.svg")
    else:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
