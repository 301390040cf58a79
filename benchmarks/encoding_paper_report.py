"""From the journal of `encoding_paper.py` to its JSON and figures: means, spreads, paired intervals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import scipy
import sklearn
import torch
from encoding_paper_figures import draw_differences, draw_probes
from encoding_paper_information import gaussian_ladder
from encoding_paper_inputs import INPUTS, RAW, SEED, SETTINGS, SEX, load, repeated_split
from encoding_paper_models import CLASSICAL, MAX_EPOCHS, NETWORKS, PATIENCE
from encoding_paper_tables import fill_file
from reference import machine
from scipy.stats import rankdata
from scipy.stats import t as student

from pipeline.core.seeds import generator
from pipeline.core.types import Split

Row = Mapping[str, Any]
MARGIN: Final = 0.02
MIN_SPLITS: Final = 3  # of two, a t interval says nothing
RESAMPLES: Final = 1000
TEST_TO_TRAIN: Final = 1600 / 5120
MEAN: Final = "mean of the four networks"


def interval_over_splits(differences: Sequence[float]) -> dict[str, Any]:
    """Mean of one paired difference per split, t interval, and the interval corrected for splits that share stays.

    The plain interval takes splits as independent, which they are not; the corrected one widens the variance by
    n_test / n_train (Nadeau & Bengio, Machine Learning 52:239, 2003). `within` = corrected interval inside the margin.
    """
    d, n = np.asarray(differences, dtype=np.float64), len(differences)
    found: dict[str, Any] = {"mean": _r(d.mean()), "n_splits": n}
    if n >= MIN_SPLITS:
        sd, quantile = d.std(ddof=1), float(student.ppf(0.975, n - 1))
        plain, corrected = (quantile * sd * np.sqrt(1 / n + extra) for extra in (0.0, TEST_TO_TRAIN))
        found |= {
            "sd": _r(sd),
            "t_interval": [_r(d.mean() - plain), _r(d.mean() + plain)],
            "corrected_interval": [_r(d.mean() - corrected), _r(d.mean() + corrected)],
            "t_within_margin": bool(abs(d.mean()) + plain <= MARGIN),
            "corrected_within_margin": bool(abs(d.mean()) + corrected <= MARGIN),
        }
    return found


def paired_bootstrap(labels: np.ndarray, one: np.ndarray, other: np.ndarray, seed_name: str) -> dict[str, Any]:
    """Difference of mean AUROC, `one` - `other`, both `(training, stay)` of the same stays; stays are resampled."""
    random = generator(SEED, "paired bootstrap", seed_name)
    drawn = []
    for _ in range(RESAMPLES):
        rows = random.integers(len(labels), size=len(labels))
        if 0 < labels[rows].sum() < len(rows):
            drawn.append(_mean_auroc(labels[rows], one[:, rows]) - _mean_auroc(labels[rows], other[:, rows]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {
        "difference": _r(_mean_auroc(labels, one) - _mean_auroc(labels, other)),
        "interval": [_r(low), _r(high)],
        "within_margin": bool(low >= -MARGIN and high <= MARGIN),
        "n_stays": len(labels),
        "n_trainings": len(one),
    }


def _mean_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    positive = labels == 1
    n_positive = int(positive.sum())
    ranks = rankdata(scores, axis=1)[:, positive].sum(axis=1) - n_positive * (n_positive + 1) / 2
    return float(np.mean(ranks / n_positive / (len(labels) - n_positive)))


def spread(rows: Iterable[Row], value: Callable[[Row], float]) -> dict[str, Any]:
    """Mean over splits of the mean over seeds; deviation over seeds (pooled within splits) and over splits."""
    by_split: dict[int, list[float]] = {}
    for row in rows:
        by_split.setdefault(row["split"], []).append(value(row))
    means = [float(np.mean(values)) for values in by_split.values()]
    repeated = [values for values in by_split.values() if len(values) > 1]
    within = [float(np.var(values, ddof=1)) for values in repeated]
    return {
        "mean": _r(np.mean(means)),
        "split_sd": _r(np.std(means, ddof=1)) if len(means) > 1 else None,
        "seed_sd": _r(np.sqrt(np.mean(within))) if within else None,
        "n_splits": len(means),
        "n_trainings": sum(map(len, by_split.values())),
    }


def paired(rows: Sequence[Row], model: str, name: str, value: Callable[[Row], float]) -> dict[int, float]:
    """Split -> mean over shared seeds of encoded - raw; an encoding's key is 0."""
    found: dict[int, list[float]] = {}
    raw = {(r["split"], r["seed"]): value(r) for r in rows if r["model"] == model and r["input"] == RAW}
    for row in rows:
        place = (row["split"], row["seed"])
        if row["model"] == model and row["input"] == name and row["key"] == 0 and place in raw:
            found.setdefault(row["split"], []).append(value(row) - raw[place])
    return {split: float(np.mean(values)) for split, values in sorted(found.items())}


def utility(rows: Sequence[Row], death: np.ndarray) -> dict[str, Any]:
    """Table and paired differences for every model and input at hand (key 0)."""
    tested = [row for row in rows if row["part"] == "held_out" and "auroc" in row and row["key"] == 0]
    table: dict[str, Any] = {}
    for name in INPUTS:
        for model in (*NETWORKS, *CLASSICAL):
            mine = [row for row in tested if (row["model"], row["input"]) == (model, name)]
            if not mine:
                continue
            entry: dict[str, Any] = {
                metric: spread(mine, lambda row, metric=metric: row[metric]) for metric in ("auroc", "auprc")
            }
            if name != RAW:
                entry["minus_raw"] = {
                    metric: interval_over_splits(list(differences.values()))
                    for metric in ("auroc", "auprc")
                    if (differences := paired(tested, model, name, lambda row, metric=metric: row[metric]))
                }
                entry["minus_raw"]["auroc_published_split"] = _bootstrap(tested, [model], name, death)
            table.setdefault(name, {})[model] = entry
        if name != RAW and all(model in table.get(name, {}) for model in NETWORKS):
            table[name][MEAN] = {"minus_raw": _over_networks(tested, name, death)}
    return table


def _over_networks(tested: Sequence[Row], name: str, death: np.ndarray) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for metric in ("auroc", "auprc"):
        each = [paired(tested, model, name, lambda row, metric=metric: row[metric]) for model in NETWORKS]
        shared = sorted(set.intersection(*(set(differences) for differences in each)))
        if shared:
            found[metric] = interval_over_splits([float(np.mean([d[split] for d in each])) for split in shared])
    found["auroc_published_split"] = _bootstrap(tested, list(NETWORKS), name, death)
    return found


def _bootstrap(tested: Sequence[Row], models: list[str], name: str, death: np.ndarray) -> dict[str, Any] | None:
    """Paired bootstrap on the published split over the trainings that both inputs have."""
    scores = {
        (row["input"], row["model"], row["seed"]): row["scores"]
        for row in tested
        if row["split"] == 0 and row["model"] in models and row["input"] in (RAW, name)
    }
    shared = sorted({key[1:] for key in scores if key[0] == name} & {key[1:] for key in scores if key[0] == RAW})
    if not shared or {model for model, _ in shared} != set(models):
        return None
    labels = death[repeated_split(len(death), 0) == Split.HELD_OUT]
    labels = labels[np.isfinite(labels)]
    one, other = (np.array([scores[(which, *key)] for key in shared]) for which in (name, RAW))
    return paired_bootstrap(labels, one, other, f"{name}/{'+'.join(models)}") if one.shape[1] == len(labels) else None


def keys(rows: Sequence[Row]) -> dict[str, Any]:
    """AUROC on the published split under several keys, minus raw."""
    mine = [row for row in rows if row["part"] == "held_out" and "auroc" in row and row["split"] == row["seed"] == 0]
    raw = {row["model"]: row["auroc"] for row in mine if row["input"] == RAW}
    found: dict[str, Any] = {}
    for name in INPUTS:
        for model in (*NETWORKS, *CLASSICAL):
            each = [row["auroc"] - raw[model] for row in mine if (row["input"], row["model"]) == (name, model)]
            if len(each) > 1 and name != RAW:
                found.setdefault(name, {})[model] = {
                    "mean": _r(np.mean(each)), "sd": _r(np.std(each, ddof=1)), "smallest": _r(min(each)),
                    "largest": _r(max(each)), "n_keys": len(each),
                }  # fmt: skip
    return found


def settings(rows: Sequence[Row]) -> dict[str, Any]:
    """The exploration on tuning stays: encoded - raw, another key for every split."""
    mine = [row for row in rows if row["part"] == "tuning"]
    raw = {(row["model"], row["split"]): row["auroc"] for row in mine if row["input"] == RAW}
    found: dict[str, Any] = {}
    for name in SETTINGS:
        for model in CLASSICAL:
            each = [row for row in mine if (row["input"], row["model"]) == (name, model)]
            if not each:
                continue
            entry: dict[str, Any] = {"auroc": _r(np.mean([row["auroc"] for row in each])), "n": len(each)}
            if name != RAW:
                d = [row["auroc"] - raw[model, row["split"]] for row in each]
                entry |= {"minus_raw": _r(np.mean(d)), "sd": _r(np.std(d)), "worst": _r(min(d))}
            found.setdefault(name, {})[model] = entry
    return found


def probes(rows: Sequence[Row]) -> dict[str, Any]:
    """The paper's leakage test and its controls: AUROC of linear probes, and encoded - raw paired by split."""
    mine = [row for row in rows if "probes" in row and row["key"] == 0]
    found: dict[str, Any] = {}
    for where, models in (("trained", NETWORKS), ("untrained", NETWORKS), ("input", ("probe of the input",))):
        for name in INPUTS:
            for model in models:
                these = [
                    row for row in mine if (row["input"], row["model"]) == (name, model) and where in row["probes"]
                ]
                if not these:
                    continue
                looked = [row for row in mine if where in row["probes"]]
                entry: dict[str, Any] = {}
                for what, value in _probe_values(where).items():
                    entry[what] = spread(these, value)
                    if name != RAW and (differences := paired(looked, model, name, value)):
                        entry[f"{what} minus raw"] = interval_over_splits(list(differences.values()))
                found.setdefault(where, {}).setdefault(name, {})[model] = entry
    return found


def _probe_values(where: str) -> dict[str, Callable[[Row], float]]:
    """What is read off a row's probes; deaths after discharge are nearly the trained task, so they are apart."""

    def task_mean(deaths: bool) -> Callable[[Row], float]:
        return lambda row: float(
            np.mean(
                [
                    v
                    for k, v in row["probes"][where].items()
                    if not k.startswith(SEX) and k.startswith("death_") == deaths
                ]
            )
        )

    values: dict[str, Callable[[Row], float]] = {
        SEX: lambda row: row["probes"][where][SEX],
        "macro of six tasks": lambda row: float(np.mean([v for k, v in row["probes"][where].items() if _is_task(k)])),
        "macro of the four that are no deaths": task_mean(False),
    }
    if where == "input":
        values["sex, its channel withheld"] = lambda row: row["probes"][where]["sex, its channel withheld"]
    return values


def _is_task(name: str) -> bool:
    return not name.startswith(SEX)


def write_report(journal: Path, out: Path, docs: Path) -> None:
    """The JSON, the figures and the page's tables, from whatever the journal holds."""
    rows = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    stays = load()
    death = stays.labels("in_hospital_death")
    trained = [row for row in rows if row["model"] in NETWORKS]
    result = {
        "benchmark": "encoding_paper",
        "machine": {**machine(np, scipy, sklearn, torch), "threads_used": 1},
        "seed": SEED,
        "data": {"source": "PhysioNet 2012, sets A and B", "stays": len(death), "split": "5,120 / 1,280 / 1,600"},
        "networks": dict(NETWORKS),
        "training": {
            "max_epochs": MAX_EPOCHS,
            "patience": PATIENCE,
            "selection": "AUROC of real tuning stays",
            "trainings": len(trained),
            "median_epochs_run": float(np.median([row["epochs_run"] for row in trained] or [0])),
        },
        "interval": {
            "margin": MARGIN,
            "over_splits": "mean of paired differences, t; corrected: variance x (1/n + n_test/n_train)",
            "published_split": f"paired bootstrap over stays, {RESAMPLES} resamples, percentiles",
        },
        "settings_on_tuning_stays": settings(rows),
        "utility": utility(rows, death),
        "keys": keys(rows),
        "probes": probes(rows),
        "information_plane": {
            "networks": {
                f"{row['model']} on {row['input']}": {
                    what: _r(value) if isinstance(value, float) else value for what, value in row["information"].items()
                }
                for row in trained
                if "information" in row
            },
            "ksg_where_the_truth_is_known": gaussian_ladder((0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0), 1600, 10, SEED),
        },
        "encodings": {f"{row['input']}, key {row['key']}": row["digest"] for row in rows},
        "cpu_seconds": round(sum(row["cpu_seconds"] for row in rows)),
    }
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    mpl.rcParams["svg.hashsalt"] = "encoding_paper"
    figures, page = docs / "figures", docs / "benchmarks" / "encoding-paper.md"
    figures.mkdir(parents=True, exist_ok=True)
    if page.exists():
        fill_file(page, result)
    draw_differences(result["utility"], figures / "encoding_paper_auroc.svg", MARGIN)
    draw_probes(result["probes"], figures / "encoding_paper_probes.svg")


def _r(value: float) -> float:
    return round(float(value), 4)
