"""When pooling helps, and when it hurts: `python benchmarks/pool_institutions.py [--draws 3] [--models NAME ...]`.

Real data: PhysioNet 2012, in-hospital death, 48 hourly steps x 44 channels, published fixed split. Two ways to cut it
into institutions:

* sets A and B as two hospitals: alike, about 2,550 training stays each;
* the four kinds of intensive-care unit (coronary, cardiac surgery, medical, surgical) as four hospitals: other
  patients, other measuring, another death rate.

Every institution condenses its own training stays to 80 samples: by private moments (epsilon 1, delta 1e-6 per stay)
and by centroids (no guarantee). One institution receives the sets of the others and tests on its own held-out stays:
its own real stays alone; its own set alone; the sets of all pooled; the sets of the others alone (it had no data); its
own real stays and the others' sets together; all real stays in one place (which nobody may do). `small_site`: the same
institution with a random hundred of its training stays, alone and together with the others' sets. Fixed training
lengths (`pipeline.probes.training`), no checkpoint. Each row is the mean over independent draws (noise secret or seed),
one training each; the interval is a bootstrap over held-out stays and draws. `difference` is against the institution's
own real stays (or its hundred), paired: same stays, same draw numbers, same initial weights. A repeated draw costs a
real site its budget again: a site releases once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from condensing import DELTA, SEED, TASK, benchmark_noise, load
from reference import machine

from condensation.coresets import Centroids
from condensation.private.condenser import PrivateMoments, samples_from_moments
from condensation.private.moments import release_moments
from condensation.private.pooling import pooled
from pipeline.core.seeds import child_seed, generator
from pipeline.core.types import EncodedCohort, Split
from pipeline.ingest.sources.readers import read_source
from pipeline.probes.panel import fit_predict
from pipeline.validation.metrics import auroc

MODELS = ("logistic_regression", "tcn")
METHODS = {"private": PrivateMoments(epsilon=1.0, delta=DELTA), "centroids": Centroids()}
N_PER_CLASS, EPOCHS, N_BOOTSTRAP = 40, 30, 500
ICU = {"CCU": "coronary", "CSRU": "cardiac surgery", "MICU": "medical", "SICU": "surgical"}
REFERENCE, FEW = "own real stays", "100 own real stays"
N_FEW = 100
Arrays = tuple[np.ndarray, np.ndarray]
Draws = list[Arrays]


def institutions_by_icu(stays: EncodedCohort) -> dict[str, np.ndarray]:
    """Name -> which stays: the one-hot channel of the unit's kind, a constant of the stay."""
    return {words: stays.features[:, 0, stays.channels.index(f"icu_type:{code}")] > 0.5 for code, words in ICU.items()}


def condense(stays: EncodedCohort, method: str, draw: int) -> Arrays:
    made = METHODS[method].condense(
        stays,
        n_per_class=N_PER_CLASS,
        seed=SEED + draw,
        noise=benchmark_noise(draw),
        device="cpu",
        on_step=lambda *_: None,
    )
    return made.features, made.labels


def together(parts: list[Draws]) -> Draws:
    """Draw by draw, one after the other."""
    return [(np.concatenate([x for x, _ in draw]), np.concatenate([y for _, y in draw])) for draw in zip(*parts)]  # noqa: B905


def added_moments(parts: list[EncodedCohort], draws: int) -> Draws:
    """The sites' noisy sums added, then condensed as one."""
    made = []
    for draw in range(draws):
        # another secret at each site, as in reality: one secret would repeat the same noise
        sums = [
            release_moments(part, epsilon=1.0, delta=DELTA, noise=benchmark_noise(100 * site + draw))
            for site, part in enumerate(parts)
        ]
        one = samples_from_moments(pooled(sums), n_per_class=N_PER_CLASS, seed=SEED + draw)
        made.append((one.features, one.labels))
    return made


class Trainings:
    """Predictions for all held-out stays, trained once per set, model and draw."""

    def __init__(self, test: EncodedCohort, draws: int) -> None:
        self.test, self.draws = test, draws
        self._known: dict[tuple[str, str], np.ndarray] = {}

    def of(self, name: str, model: str, sets: Draws) -> np.ndarray:
        """`(draw, stay)` probabilities."""
        if (name, model) not in self._known:
            started = time.monotonic()
            rows = [
                fit_predict(
                    model, x, y, self.test.features, epochs=EPOCHS, seed=child_seed(SEED, model, str(k)), device="cpu"
                )[:, 0]
                for k, (x, y) in enumerate(sets[: self.draws])
            ]
            self._known[name, model] = np.stack(rows).astype(np.float64)
            print(f"  {name:<44} {model:<20} {time.monotonic() - started:6.1f} s", flush=True)
        return self._known[name, model]


def scored(
    predictions: Mapping[str, np.ndarray], truth: np.ndarray, reference: str, target: str
) -> dict[str, dict[str, Any]]:
    """AUROC of every row on the same resampled stays and draws, and its difference from the reference row."""
    draw = generator(SEED, "bootstrap", target)
    weights = draw.multinomial(len(truth), np.full(len(truth), 1 / len(truth)), size=N_BOOTSTRAP).astype(np.float64)
    n_draws = len(predictions[reference])
    chosen = draw.integers(n_draws, size=(N_BOOTSTRAP, n_draws))
    means, replicates = {}, {}
    for name, rows in predictions.items():
        single = np.array([auroc(row, truth, np.ones((1, len(truth))))[0] for row in rows])
        by_stays = np.stack([auroc(row, truth, weights) for row in rows], axis=1)
        means[name], replicates[name] = single, np.take_along_axis(by_stays, chosen, axis=1).mean(axis=1)
    found = {}
    for name in predictions:
        low, high = np.nanquantile(replicates[name], (0.025, 0.975))
        difference = replicates[name] - replicates[reference]
        d_low, d_high = np.nanquantile(difference, (0.025, 0.975))
        found[name] = {
            "auroc": round(float(means[name].mean()), 4),
            "interval": [round(float(low), 4), round(float(high), 4)],
            "draw_sd": round(float(means[name].std(ddof=1)), 4) if n_draws > 1 else None,
            "difference": round(float(means[name].mean() - means[reference].mean()), 4),
            "difference_interval": [round(float(d_low), 4), round(float(d_high), 4)],
        }
    return found


@dataclasses.dataclass(frozen=True)
class Study:
    """One way to cut the stays into institutions: real training stays and condensed sets of each."""

    test: EncodedCohort
    here: dict[str, np.ndarray]  # institution -> which held-out stays are its own
    real: dict[str, Draws]
    sets: dict[str, dict[str, Draws]]  # method -> institution -> draws
    added: Draws


def prepare_study(stays: EncodedCohort, sites: Mapping[str, np.ndarray], draws: int) -> Study:
    training, held_out = stays.split == int(Split.TRAIN), stays.split == int(Split.HELD_OUT)
    parts = {name: stays.take(np.flatnonzero(training & mask)) for name, mask in sites.items()}
    sets: dict[str, dict[str, Draws]] = {}
    for method in METHODS:
        started = time.monotonic()
        sets[method] = {name: [condense(part, method, k) for k in range(draws)] for name, part in parts.items()}
        print(f"  condensed by {method}: {time.monotonic() - started:.1f} s", flush=True)
    return Study(
        test=stays.take(np.flatnonzero(held_out)),
        here={name: mask[held_out] for name, mask in sites.items()},
        real={name: [(part.features, part.labels)] * draws for name, part in parts.items()},
        sets=sets,
        added=added_moments(list(parts.values()), draws),
    )


def rows_for(study: Study, target: str) -> dict[str, tuple[str, Draws]]:
    """Row -> (name of the set, so that each is trained on once, and the set)."""
    others = [name for name in study.real if name != target]
    rows: dict[str, tuple[str, Draws]] = {
        REFERENCE: (f"real {target}", study.real[target]),
        "all real stays in one place": ("real all", together(list(study.real.values()))),
        "private: moments added": ("private moments added", study.added),
    }
    for method, of in study.sets.items():
        without = together([of[name] for name in others])
        rows |= {
            f"{method}: own set": (f"{method} {target}", of[target]),
            f"{method}: sets of all": (f"{method} all", together(list(of.values()))),
            f"{method}: sets of the others": (f"{method} without {target}", without),
            f"{method}: own real stays + sets of the others": (
                f"{method} real {target} + others",
                together([study.real[target], without]),
            ),
        }
    return rows


def rows_of_a_small_site(study: Study, target: str) -> dict[str, tuple[str, Draws]]:
    """The same institution, had it only a hundred patients (another hundred in each draw)."""
    features, labels = study.real[target][0]
    few: Draws = []
    for draw in range(len(study.added)):
        chosen = generator(SEED, "few", target, str(draw)).permutation(len(labels))[:N_FEW]
        few.append((features[chosen], labels[chosen]))
    rows = {FEW: (f"few {target}", few)}
    for method, of in study.sets.items():
        without = together([made for name, made in of.items() if name != target])
        rows[f"{method}: {FEW} + sets of the others"] = (f"{method} few {target} + others", together([few, without]))
    return rows


def measure(study: Study, target: str, model: str, trainings: Trainings) -> dict[str, Any]:
    """All rows of one target and model."""
    here = study.here[target] & np.isfinite(study.test.labels[:, 0])
    truth = study.test.labels[here, 0].astype(np.float64)

    def score(rows: Mapping[str, tuple[str, Draws]], reference: str) -> dict[str, dict[str, Any]]:
        predicted = {name: trainings.of(key, model, made)[:, here] for name, (key, made) in rows.items()}
        return scored(predicted, truth, reference, target)

    return {
        "n_train": len(study.real[target][0][0]),
        "n_held_out": int(here.sum()),
        "events_held_out": int(truth.sum()),
        "rows": score(rows_for(study, target), REFERENCE),
        "small_site": score(rows_of_a_small_site(study, target), FEW),
    }


def show(target: str, model: str, result: Mapping[str, Any]) -> None:
    print(f"{target}, {model}: n = {result['n_held_out']}, {result['events_held_out']} deaths", flush=True)
    for name, row in (*result["rows"].items(), *result["small_site"].items()):
        low, high = row["difference_interval"]
        print(f"  {name:<48} {row['auroc']:.3f} ({row['difference']:+.3f} [{low:+.3f}, {high:+.3f}])", flush=True)


TARGETS = {"two alike": ("B",), "four kinds of unit": tuple(ICU.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--cuts", nargs="+", default=list(TARGETS), choices=list(TARGETS), help="only these")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pool_institutions.json")
    options = parser.parse_args()
    started = time.monotonic()
    stays = load((TASK,))
    in_a = np.arange(len(stays.labels)) < read_source("embedded", sets=("a",)).stays.height
    cuts = {"two alike": {"A": in_a, "B": ~in_a}, "four kinds of unit": institutions_by_icu(stays)}
    studies = {name: prepare_study(stays, cuts[name], options.draws) for name in options.cuts}
    result: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    result |= {
        "benchmark": "pool_institutions",
        "machine": machine(np, sklearn, torch),
        "data": "PhysioNet 2012, sets A and B, published fixed split, in-hospital death",
        "n_samples_per_set": 2 * N_PER_CLASS,
        "draws": options.draws,
        "interval": f"95 %, {N_BOOTSTRAP} bootstrap replicates over held-out stays and draws; differences paired",
    }
    trainings = {name: Trainings(study.test, options.draws) for name, study in studies.items()}
    for model in options.models:
        for name, study in studies.items():
            for target in TARGETS[name]:
                found = measure(study, target, model, trainings[name])
                result.setdefault(name, {}).setdefault(target, {})[model] = found
                result["wall_seconds"] = round(time.monotonic() - started)
                options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")  # as far as it got
                show(target, model, found)


if __name__ == "__main__":
    main()
