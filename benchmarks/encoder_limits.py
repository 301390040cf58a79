"""What the encoders' structure costs and gives away, on real stays: `python benchmarks/encoder_limits.py [--quick]`.

Three claims of docs/encoders.md, default options, PhysioNet 2012 set A as `prepare` makes it (public ranges):

* identification: how well k windows, known both plain and encoded, give the quantum encoder's map to one who has no key
  but knows the circuit (R2 of the predicted encoding on other windows, mean of the four outputs; control: k windows
  whose encodings are those of other windows);
* spread over keys: the encoded values' standard deviation, as some keys shrink everything;
* what is left to learn from: AUROC of in-hospital death, logistic regression on summaries of the series as they are,
  projected, and quantum encoded; random splits with another key each, differences paired.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from encoders.circuits.gates import circuit_gates
from encoders.circuits.pauli import expectation_words, observables
from encoders.projection import RandomProjectionEncoder
from encoders.quantum import QuantumEncoder
from pipeline.core.keys.secrets import Secret
from pipeline.core.seeds import generator
from pipeline.core.types import EncodedCohort, Split
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.readers import read_source

SEED = 0
WIDTH = 4
LADDER = (1, 2, 4, 8, 16, 32)
EXACT = 1 - 1e-6
TURN = np.pi * np.ptp(QuantumEncoder().embedding_range)  # angle of the value 1; the range starts at 0


def real_stays() -> EncodedCohort:
    """Set A, prepared; the split is not used."""
    tables = read_source("embedded", sets=("a",))
    split = np.full(tables.stays.height, Split.TRAIN, np.int8)
    return prepare(build_cohort(tables, load_mapping("physionet2012"), step_hours=1.0, n_steps=48, split=split)[0])


def key(index: int) -> Secret:
    """A benchmark's key is no secret."""
    return Secret(index.to_bytes(32, "little"), "encoder")


def windows_of(features: np.ndarray) -> np.ndarray:
    """`(window, 4)` of all stays and channels."""
    stays, steps, channels = features.shape
    cut = features.reshape(stays, steps // WIDTH, WIDTH, channels).transpose(0, 1, 3, 2)
    return np.ascontiguousarray(cut, np.float64).reshape(-1, WIDTH)


def monomials(windows: np.ndarray, words: tuple[str, ...]) -> np.ndarray:
    """The circuit's few products of sines and cosines; which ones is public."""
    basis = {"1": np.ones_like(windows), "c": np.cos(TURN * windows), "s": np.sin(TURN * windows)}
    return np.stack([np.prod([basis[s][:, j] for j, s in enumerate(word)], axis=0) for word in words], axis=1)


def identification(cohort: EncodedCohort, n_keys: int) -> dict[str, Any]:
    """R2 over keys for each k; the windows are drawn at random from real stays."""
    pool = windows_of(cohort.features[:300])
    encoder = QuantumEncoder()
    gates = circuit_gates(encoder.template, WIDTH, encoder.parameters(key(n_keys)))  # words are the same for every key
    polynomials = expectation_words(gates, WIDTH, observables(WIDTH, False), encoder.embedding, 3**WIDTH)
    assert polynomials is not None
    outputs = [tuple(terms) for terms in polynomials]
    found: dict[str, list[float]] = {f"{k}{arm}": [] for k in LADDER for arm in ("", " mismatched")}
    for index in range(n_keys):
        random = generator(SEED, "windows", index)
        fitted = QuantumEncoder().fit(cohort, key(index))
        unseen = pool[random.permutation(len(pool))[:2000]]
        truth = fitted.encode_array(unseen[:, :, None])[:, :, 0]
        for k in LADDER:
            plain, others = (pool[random.permutation(len(pool))[:k]] for _ in range(2))
            for arm, shown in (("", plain), (" mismatched", others)):
                encoded = fitted.encode_array(shown[:, :, None])[:, :, 0]
                r2 = []
                for output, words in enumerate(outputs):
                    solved = np.linalg.lstsq(monomials(plain, words), encoded[:, output], rcond=1e-10)[0]
                    error = monomials(unseen, words) @ solved - truth[:, output]
                    r2.append(1 - float(np.mean(error**2)) / float(np.var(truth[:, output])))
                found[f"{k}{arm}"].append(float(np.mean(r2)))
    return {
        name: {"median_r2": round(float(np.median(r2)), 4), "share_exact": float(np.mean(np.array(r2) > EXACT))}
        for name, r2 in found.items()
    }


def spread_over_keys(cohort: EncodedCohort, n_keys: int) -> dict[str, float]:
    """Quantiles over keys of the encoded values' standard deviation."""
    features = cohort.features[:200]
    spread = [float(QuantumEncoder().fit(cohort, key(i)).encode_array(features).std()) for i in range(n_keys)]
    names = {"smallest": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "largest": 1.0}
    return {"input": round(float(features.std()), 3)} | {
        name: round(float(np.quantile(spread, q)), 3) for name, q in names.items()
    }


def auroc(features: np.ndarray, death: np.ndarray, train: np.ndarray) -> float:
    """Logistic regression on mean, deviation and last value, over windows, of each position in the window."""
    windows = features.reshape(len(features), -1, WIDTH * features.shape[2])
    summary = np.concatenate([windows.mean(axis=1), windows.std(axis=1), windows[:, -1]], axis=1)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500)).fit(summary[train], death[train])
    return float(roc_auc_score(death[~train], model.predict_proba(summary[~train])[:, 1]))


def what_is_left(cohort: EncodedCohort, n_splits: int) -> dict[str, Any]:
    """AUROC as it is, and paired differences."""
    task = [t.name for t in cohort.tasks].index("in_hospital_death")
    known = np.isfinite(cohort.labels[:, task])
    features, death = cohort.features[known], cohort.labels[known, task]
    rows: dict[str, list[float]] = {"as it is": [], "random projection": [], "quantum": []}
    for index in range(n_splits):
        train = generator(SEED, "split", index).random(len(death)) < 0.7
        rows["as it is"].append(auroc(features, death, train))
        for name, encoder in (("random projection", RandomProjectionEncoder()), ("quantum", QuantumEncoder())):
            encoded = encoder.fit(cohort, key(index)).encode_array(features)
            rows[name].append(auroc(encoded, death, train) - rows["as it is"][-1])
    return {
        name if name == "as it is" else f"{name} minus as it is": {
            "mean": round(float(np.mean(values)), 4),
            "sd": round(float(np.std(values, ddof=1)), 4),
            "n": len(values),
        }
        for name, values in rows.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10 keys, 3 splits")
    parser.add_argument("--out", type=Path, help="file for the JSON (default: benchmarks/results, unless quick)")
    arguments = parser.parse_args()
    threadpool_limits(1)
    n_keys, n_splits = (10, 3) if arguments.quick else (100, 10)
    cohort = real_stays()
    result = {
        "benchmark": "encoder_limits",
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "sklearn": sklearn.__version__},
        "seed": SEED,
        "data": {"source": "PhysioNet 2012, set A", "stays": len(cohort.features), "channels": len(cohort.channels)},
        "n_keys": n_keys,
        "share_of_constant_windows": round(float(np.mean(np.ptp(windows_of(cohort.features), axis=1) == 0)), 3),
        "identification_from_k_random_real_windows": identification(cohort, n_keys),
        "sd_of_encoded_values_over_keys": spread_over_keys(cohort, n_keys),
        "auroc_in_hospital_death": what_is_left(cohort, n_splits),
    }
    text = json.dumps(result, indent=2) + "\n"
    if arguments.out or not arguments.quick:
        (arguments.out or Path(__file__).parent / "results" / "encoder_limits.json").write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
