"""Do 80 % intervals of a gain cover, and how much of a gain is luck? `python benchmarks/grouping_intervals.py FILE`.

The population: the tuning and held-out stays of P12 (24 hours, eight tasks) with the log-losses of all 255 groups in
`grouping_truth.py`'s file, trained on other stays. A resample draws stays from it with replacement and 64 candidate
groups; half of the stays select a cover of at most three of these, the other half tell its gain with an interval, as
`decoct group` does. The truth of that cover is its gain over the whole population.

* coverage: share of resamples whose 80 % interval holds the truth.
* selection optimism: the gain on the selecting half less the truth; and what is left of it in the gain that is told,
  which comes from the other half.
* seeds: the population's networks are means over four seeds each; in a second table, simulated, networks of every seed
  differ, truths are the gains that were planted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from grouping_regret import load
from reference import machine
from scipy.stats import beta

from pipeline.core.seeds import generator
from pipeline.grouping.choose import choose
from pipeline.grouping.gains import GroupLosses, alone, gain_of

GROUPS, N_TRAINED, LOWEST, HIGHEST, LARGEST_OPTIMISM = 3, 64, 0.75, 0.85, 0.2


def population(path: Path) -> GroupLosses:
    """Tuning and held-out stays together; every stay a subject of its own."""
    parts = load(path)[:2]
    loss = np.concatenate([part.loss for part in parts], axis=2)
    null = np.concatenate([part.null for part in parts])
    return GroupLosses(parts[0].groups, loss, null, np.arange(len(null), dtype=np.int32))


def some_candidates(whole: GroupLosses, draw: int) -> GroupLosses:
    """Every task alone, all together and random groups: as many as `decoct group` trains."""
    others = generator(draw, "candidates").permutation(len(whole.groups))[: N_TRAINED - whole.groups.shape[1] - 1]
    kept = np.unique(np.concatenate([alone(whole.groups), [len(whole.groups) - 1], others]))
    return GroupLosses(whole.groups[kept], whole.loss[kept], whole.null, whole.subjects)


def resampled(everything: GroupLosses, n_stays: int, draw: int) -> dict[str, float]:
    """One resample: half selects, half tells."""
    whole = some_candidates(everything, draw)
    rows = generator(draw, "resample").integers(len(whole.subjects), size=n_stays)
    first, second = (whole.take(part) for part in np.array_split(rows, 2))
    first, second = (
        GroupLosses(part.groups, part.loss, part.null, np.arange(len(part.null), dtype=np.int32))
        for part in (first, second)
    )
    serves = choose(first, max_groups=GROUPS, seed=draw, n_replicates=1).cover.serves
    truth, told, seen = (gain_of(part, serves) for part in (whole, second, first))
    return {
        "truth": truth.mean,
        "told": told.mean,
        "selecting": seen.mean,
        "covered": float(told.low <= truth.mean <= told.high),
        "width": told.high - told.low,
    }


def simulated(draw: int, *, n_stays: int, n_seeds: int) -> dict[str, float]:
    """Planted gains: per task a gain, per network a deviation of its own, per stay noise that seeds share in part."""
    rng = generator(draw, "planted")
    n_tasks = 8
    gain = rng.normal(0.02, 0.02, n_tasks)
    base = rng.gamma(1.0, 0.4, (n_stays, n_tasks))
    null = np.full((n_stays, n_tasks), 0.5)
    shared = rng.normal(0, 0.15, (n_stays, n_tasks))
    network = rng.normal(0, 0.01, (2, n_seeds, 1, n_tasks))
    own = rng.normal(0, 0.05, (2, n_seeds, n_stays, n_tasks))
    alone = base + 0.5 * network[0] + own[0]
    together = base - 0.5 * gain + shared + 0.5 * network[1] + own[1]
    groups = np.concatenate([np.eye(n_tasks, dtype=bool), np.ones((1, n_tasks), dtype=bool)])
    loss = np.concatenate([np.broadcast_to(alone, (n_tasks, *alone.shape)), together[None]]).astype(np.float32)
    found = gain_of(GroupLosses(groups, loss, null, np.arange(n_stays, dtype=np.int32)), (n_tasks,) * n_tasks)
    return {
        "covered": float(found.low <= gain.mean() <= found.high),
        "told": found.mean,
        "truth": float(gain.mean()),
        "width": found.high - found.low,
    }


def summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Means; for the coverage also the 95 % interval of a share (Clopper and Pearson)."""
    mean = {key: round(float(np.mean([row[key] for row in rows])), 5) for key in rows[0]}
    hits, n = round(mean["covered"] * len(rows)), len(rows)
    limits = [beta.ppf(0.025, hits, n - hits + 1), beta.ppf(0.975, hits + 1, n - hits)]
    found = {**mean, "resamples": n, "covered_95": [round(float(value), 3) for value in limits]}
    if "selecting" in mean:
        found["optimism_of_selecting_half"] = round(1 - mean["truth"] / mean["selecting"], 3)
        found["optimism_of_told_gain"] = round(1 - mean["truth"] / mean["told"], 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth", type=Path, help="file of grouping_truth.py")
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "grouping_intervals.json")
    options = parser.parse_args()
    whole = population(options.truth)
    real = summary([resampled(whole, 1280, draw) for draw in range(options.resamples)])
    print(json.dumps(real), flush=True)
    planted = {
        f"{n_seeds} seeds": summary([simulated(draw, n_stays=640, n_seeds=n_seeds) for draw in range(2000)])
        for n_seeds in (2, 4)
    }
    result = {
        "benchmark": "grouping_intervals",
        "machine": machine(np, scipy),
        "real_stays": {"stays_of_a_resample": 1280, "groups": GROUPS, **real},
        "planted": planted,
        "bars": {
            "80 % intervals cover 75 to 85 %": {"met": LOWEST <= real["covered"] <= HIGHEST},
            "optimism of the told gain < 20 %": {"met": abs(real["optimism_of_told_gain"]) < LARGEST_OPTIMISM},
        },
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["planted"]))


if __name__ == "__main__":
    main()
