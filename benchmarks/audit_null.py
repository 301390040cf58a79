"""Does the audit accuse artefacts that leak nothing? 400 audits per statistic, the gate, and how its intervals cover.

Four parts, each a table of docs/benchmarks/audit.md:

1. Simulated scores without a leak, every statistic at its nominal level (vectorised; the statistics' own code).
2. Real stays (PhysioNet 2012): members, others and the set are disjoint random stays; the attacks that decide on
   a condensed set run as in an audit, and the shipped strict policy judges their figures as the gate does.
   `--attacks` names some of them (two_sample and model_membership cost more than the others together, and have rows of
   their own), `--first` is the first audit's seed, so that further audits can be run. Labels are deaths in hospital.
3. Coverage of every kind of interval over 1,000 or more truths drawn at random.
4. Sizes: the same attacks on invented people, series and tables (rounded to ties, with twins), at sets of 80, 400 and
   2,000 samples: does an audit cry wolf as sets grow? A part that was begun goes on where it was, by `--first`.

    python benchmarks/audit_null.py --audits 400 --out benchmarks/results/audit_null.json

A correct 5 % test gives at most 29 alarms in 400 audits 98 times in 100.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from one_run import empirical_epsilon
from reference import machine
from scipy import stats

from flows.stages.attacks.model import receivers_model
from pipeline.audit.advantage import other_people, same_people, shares
from pipeline.audit.encodings.missingness import auroc_interval
from pipeline.audit.excess import Arms, Hits, clustered_share, excess
from pipeline.audit.games.release_game import epsilon_of_rounds
from pipeline.audit.multiplicity import leaks_found, p_value
from pipeline.audit.scene import CondensedScene, LeakageAttack
from pipeline.audit.sets import two_sample
from pipeline.audit.sets.linkage_inference import Inference, Linkability
from pipeline.audit.sets.membership import Membership
from pipeline.audit.sets.model_membership import ModelMembership
from pipeline.audit.sets.near_copies import NearCopies
from pipeline.audit.sets.singling_out import SinglingOut
from pipeline.audit.statistics import (
    auroc,
    bootstrap_r2,
    clopper_pearson,
    epsilon_lower_bound,
    gaussian_mu,
    threshold_at_fpr,
)
from pipeline.core.config import UtilityConfig
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, CondensedSet, EncodedCohort, LeakageReport, Provenance, Task
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.embedded import read_embedded
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.policy.rules import attack_verdicts

ALLOWED = 29
ATTACKS: dict[str, LeakageAttack] = {
    attack.name: attack
    for attack in (
        NearCopies(),
        Membership(),
        SinglingOut(),
        Linkability(),
        Inference(),
        ModelMembership(),
        two_sample.TwoSample(),
    )
}
COSTLY = (ModelMembership.name, two_sample.TwoSample.name)  # more than all others together
MEMBERS, OTHERS, SAMPLES = 1200, 900, 80
SIZES = (80, 400, 2000)


# --- 1: simulated scores ----------------------------------------------------------------------------------------------


def simulated(audits: int) -> dict[str, Any]:
    """Alarms of each statistic where members and others have one law."""
    found: dict[str, list[bool]] = {}
    for number in range(audits):
        rng = generator(number, "null")
        for name, alarm in _one_null(rng).items():
            found.setdefault(name, []).append(bool(alarm))
    return {name: {"alarms": int(np.sum(rows)), "audits": len(rows)} for name, rows in found.items()}


def _one_null(rng: np.random.Generator) -> dict[str, bool]:
    n, m = int(rng.integers(100, 1000)), int(rng.integers(100, 1000))
    members, others = rng.normal(size=n), rng.normal(size=m)
    figure = auroc(members, others)
    threshold = threshold_at_fpr(others[: m // 2], 0.05)
    hits, alarms = int((members > threshold).sum()), int((others[m // 2 :] > threshold).sum())
    fisher = stats.fisher_exact([[hits, n - hits], [alarms, m - m // 2 - alarms]], alternative="greater").pvalue
    totals = rng.gamma(4, 1, 150)
    guess = bootstrap_r2(totals * rng.gamma(10, 0.1, 150), totals, rng, 500)  # an estimate no better than the mean
    claim, canaries = 1.0, 2000
    right = int(rng.binomial(400, 1 / (1 + np.exp(-claim))))  # randomised response, exactly at its claim
    group = 5
    bound = gaussian_mu(claim, 1e-6) * group
    won = int((rng.normal(bound, 1, 200) > rng.normal(0, 1, 200)).sum())  # a Gaussian release, exactly at its claim
    return {
        "AUROC, p <= .05": stats.norm.sf((figure.value - 0.5) / figure.standard_error) <= 0.05,
        "AUROC, interval above .5": figure.low > 0.5,
        "TPR at a threshold of another half, Fisher p <= .05": fisher <= 0.05,
        "epsilon of two arms above 0": epsilon_lower_bound(hits, n, alarms, m - m // 2) > 0,
        "R2, interval above 0": guess.low > 0,
        "one-run canaries above their claim (95 %)": empirical_epsilon(right, 400, canaries, 0.0) > claim,
        "groups of canaries above their claim (99 %)": epsilon_of_rounds(won, 200, group, 1e-6, 0.99) > claim,
    }


# --- 2: real stays ----------------------------------------------------------------------------------------------------


def real_stays(population: EncodedCohort, audits: int, attacks: Sequence[str], first: int = 0) -> dict[str, Any]:
    """Independent sets of real stays, audited and judged.

    A figure that would decide if there were more people counts as an alarm of its statistic, too.
    """
    return _nulls(
        lambda number: _independent(population, generator(number, "real stays")), range(first, first + audits), attacks
    )


def _nulls(
    scene_of: Callable[[int], CondensedScene], numbers: Iterable[int], attacks: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Alarms and audits of every statistic and of the gate; nobody is in any of the sets."""
    policy = load_policy("strict")
    alarms: dict[str, list[bool]] = {}
    for number in numbers:
        scene = scene_of(number)
        results = [result for name in attacks for result in ATTACKS[name].run(scene, number)]
        deciding = [result for result in results if result.gates]
        for result in (result for result in results if result.gates or result.held_back):
            p = p_value(result)
            name = f"{result.attack}: {result.statistic}"
            alarms.setdefault(name, []).append(p is not None and p <= 0.05)
        verdicts = {item.verdict for item in attack_verdicts(policy, [_report(deciding)])}
        alarms.setdefault("the gate says INCONCLUSIVE", []).append("INCONCLUSIVE" in verdicts)
        alarms.setdefault("family-wise (Holm 5 %)", []).append(bool(leaks_found(results)))
        alarms.setdefault("the gate says FAIL", []).append("FAIL" in verdicts)
        alarms.setdefault("a control did not hold", []).append(not all(r.controls_held for r in deciding))
    return {name: {"alarms": int(np.sum(rows)), "audits": len(rows)} for name, rows in alarms.items()}


def _report(results: list[AttackResult]) -> LeakageReport:
    return LeakageReport("set", "0" * 64, tuple(results), (), True, Provenance("audit"))


def _independent(population: EncodedCohort, rng: np.random.Generator) -> CondensedScene:
    series, labels = population.features, population.labels
    order = rng.permutation(len(series))
    members, others, samples, _ = np.split(order, np.cumsum([MEMBERS, OTHERS, SAMPLES]))
    condensed = CondensedSet(
        features=series[samples],
        labels=labels[samples],
        channels=population.channels,
        tasks=population.tasks,
        step_hours=6.0,
        transforms=(),
        method="strangers",
        starts_from_records=False,
        guarantee=None,
        provenance=Provenance("benchmark"),
    )
    return CondensedScene(
        "set",
        "0" * 64,
        condensed,
        series[members],
        series[others],
        members,
        10**6 + others,
        member_labels=labels[members],
        holdout_labels=labels[others],
        receiver=receivers_model(UtilityConfig(), "cpu"),
    )


def stays() -> EncodedCohort:
    """Sets A and B as the default configuration prepares them, every sixth hour: `(stay, 8, channel)`."""
    tables = read_embedded()
    cohort, _ = build_cohort(
        tables,
        load_mapping("physionet2012"),
        step_hours=1.0,
        n_steps=48,
        tasks=("in_hospital_death",),
        split=np.zeros(tables.stays.height, np.int8),
    )
    prepared = prepare(cohort)
    return dataclasses.replace(prepared, features=np.ascontiguousarray(prepared.features[:, ::6]))


# --- 4: sizes ---------------------------------------------------------------------------------------------------------


def sizes(audits: int, attacks: Sequence[str], first: int, before: dict[str, Any]) -> dict[str, Any]:
    """Audits of invented people at each size, added to those of before."""
    found = dict(before)
    for kind in ("series", "table"):
        for n in SIZES:
            numbers = range(first, first + audits)
            now = _nulls(lambda number, kind=kind, n=n: _invented(kind, n, number), numbers, attacks)
            row = found.setdefault(f"{kind}, {n} samples", {})
            for name, told in now.items():
                known = row.get(name, {"alarms": 0, "audits": 0})
                row[name] = {key: known[key] + told[key] for key in told}
    return found


def _invented(kind: str, n: int, number: int) -> CondensedScene:
    """Members, others and a set, all of one law: walks about a level, or rows of numbers of which many are equal."""
    rng = generator(number, "sizes", kind, n)
    everybody = np.arange(MEMBERS + OTHERS + n)
    if kind == "series":
        level = rng.uniform(0.2, 0.8, (len(everybody), 1, 4))
        series = np.clip(level + rng.normal(0, 0.04, (len(everybody), 8, 4)).cumsum(axis=1), 0, 1)
    else:
        series = np.round(rng.normal(size=(len(everybody), 1, 6)) @ rng.normal(size=(6, 6)), 1)
        series[:, :, 5] = series[:, :, 5] > 0
        twins, others = np.split(rng.permutation(len(everybody)), [len(everybody) // 20])
        series[twins] = series[others[: len(twins)]]
    labels = (series[:, :1].mean(axis=(1, 2))[:, None] > np.median(series[:, :1])).astype(np.float32)
    series = series.astype(np.float32)
    names = tuple(f"c{number}" for number in range(series.shape[2]))
    members, others, samples = np.split(everybody, np.cumsum([MEMBERS, OTHERS]))
    condensed = CondensedSet(
        features=series[samples],
        labels=labels[samples],
        channels=names,
        tasks=(Task("event"),),
        step_hours=6.0,
        transforms=(),
        method="strangers",
        starts_from_records=False,
        guarantee=None,
        provenance=Provenance("benchmark"),
    )
    return CondensedScene(
        "set",
        "0" * 64,
        condensed,
        series[members],
        series[others],
        members,
        10**6 + others,
        member_labels=labels[members],
        holdout_labels=labels[others],
        receiver=receivers_model(UtilityConfig(), "cpu"),
    )


# --- 3: coverage ------------------------------------------------------------------------------------------------------


def coverage(truths: int) -> dict[str, Any]:
    """Share of 95 % intervals that hold the truth, over random truths and sizes."""
    held: dict[str, list[bool]] = {}
    for number in range(truths):
        for name, inside in _one_truth(generator(number, "coverage")).items():
            held.setdefault(name, []).append(bool(inside))
    return {name: {"share": round(float(np.mean(rows)), 4), "truths": len(rows)} for name, rows in held.items()}


def _one_truth(rng: np.random.Generator) -> dict[str, bool]:
    n, p = int(rng.integers(100, 2000)), float(rng.uniform(0.02, 0.98))
    share = clopper_pearson(int(rng.binomial(n, p)), n)
    shift = float(rng.uniform(0, 2))
    size, other = int(rng.integers(60, 600)), int(rng.integers(60, 600))
    figure = auroc(rng.normal(shift, 1, size), rng.normal(0, 1, other))
    subjects = int(rng.integers(40, 400))
    r2 = float(rng.uniform(0.05, 0.98))
    totals = rng.gamma(4, 1, subjects)
    errors = totals * (1 - r2) * rng.gamma(3, 1 / 3, subjects)
    recovered = bootstrap_r2(errors, totals, rng, 500)
    tries, inner, q = 60, 5, float(rng.uniform(0.1, 0.9))
    subject_rate = rng.beta(4 * q, 4 * (1 - q), tries)
    hits = Hits(rng.uniform(size=tries * inner) < np.repeat(subject_rate, inner), np.repeat(np.arange(tries), inner))
    clustered = clustered_share(hits)
    return {
        **_compared(rng),
        **_pooled_over_cells(rng),
        "Clopper-Pearson (shares, TPR, FPR)": share.low <= p <= share.high,
        "DeLong (AUROC)": figure.low <= stats.norm.cdf(shift / np.sqrt(2)) <= figure.high,
        "subjects, ratio of sums (R2)": recovered.low <= r2 <= recovered.high,
        "Korn-Graubard by cluster (shares)": clustered.low <= q <= clustered.high,
    }


def _compared(rng: np.random.Generator) -> dict[str, bool]:
    """Differences and ratios of two arms: AUROC of the same or of other people, and the excess risk of both kinds."""
    sizes = rng.integers(40, 600, 4)
    truth = np.repeat([True, False], sizes[:2]), np.repeat([True, False], sizes[2:])
    shifts, alike = rng.uniform(0, 2, 2), float(rng.uniform(0, 0.95))
    common = rng.normal(size=len(truth[0]))
    one, other = (
        shift * truth[0] + np.sqrt(alike) * common + np.sqrt(1 - alike) * rng.normal(size=len(common))
        for shift in shifts
    )
    apart = shifts[1] * truth[1] + rng.normal(size=len(truth[1]))
    gain = float(np.diff(stats.norm.cdf(shifts[::-1] / np.sqrt(2)))[0])
    paired = same_people(shares(one, truth[0]), shares(other, truth[0]))
    unpaired = other_people(shares(one, truth[0]), shares(apart, truth[1]))
    people, others = (int(n) for n in rng.integers(150, 1500, 2))
    c = float(rng.uniform(0.01, 0.6))
    r = float(rng.uniform(max(0.0, c - 0.1), 0.95))
    nobody = Hits(np.zeros(2, bool), np.arange(2))
    risk = excess(Arms(_alike(r, people, rng), _alike(c, others, rng), nobody))[0]
    small = float(rng.uniform(0.02, 0.3))  # of a description that fits one person, who is a member or is not
    fits = rng.uniform(size=(int(rng.integers(60, 200)), 12))
    scale, most = float(rng.uniform(0.8, 3)), float(rng.uniform(small, 0.6))
    rows = np.repeat(np.arange(len(fits)), fits.shape[1])
    either = [Hits(hit.ravel(), rows) for hit in (fits < most, fits > 1 - small / scale)]
    singled = excess(Arms(either[0], either[1], nobody, scale))[0]
    return {
        "DeLong, difference, same people (AUROC gained)": paired.low <= gain <= paired.high,
        "DeLong, difference, other people (AUROC over strangers)": unpaired.low <= gain <= unpaired.high,
        "MOVER, two groups (excess risk)": risk.low <= (r - c) / (1 - c) <= risk.high,
        "MOVER, one try for either arm (singling out)": singled.low <= (most - small) / (1 - small) <= singled.high,
    }


def _alike(p: float, subjects: int, rng: np.random.Generator) -> Hits:
    """One try of each subject, or three that are alike half of the time."""
    tries = int(rng.choice([1, 3]))
    own = rng.random((subjects, tries)) < p
    hit = np.where(rng.random((subjects, 1)) < 0.5, own[:, :1], own)
    return Hits(hit.ravel(), np.repeat(np.arange(subjects), tries))


def _pooled_over_cells(rng: np.random.Generator) -> dict[str, bool]:
    """AUROC over cells of which a subject has many, with a level of its own and much or little measured."""
    subjects, cells = int(rng.integers(60, 300)), (3, 2)
    shift, own = float(rng.uniform(0, 2)), float(rng.uniform(0, 1.5))
    usual = rng.uniform(0.2, 0.8, cells)
    truth = rng.uniform(size=(subjects, *cells)) < np.clip(usual + 0.3 * rng.normal(size=(subjects, 1, 1)), 0.02, 0.98)
    scores = shift * truth + own * rng.normal(size=(subjects, 1, 1)) + rng.normal(size=(subjects, *cells))
    figure = auroc_interval(scores, truth, np.arange(subjects), rng, 300)
    value = stats.norm.cdf(shift / np.sqrt(2 * (1 + own**2)))
    return {"subjects, pairs within cells (AUROC of a pattern)": figure.low <= value <= figure.high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audits", type=int, default=400)
    parser.add_argument("--truths", type=int, default=2000)
    parser.add_argument("--parts", default="simulated,coverage,real", help="which parts to run")
    parser.add_argument(
        "--attacks",
        default=",".join(name for name in ATTACKS if name not in COSTLY),
        help="of the real part: which attacks",
    )
    parser.add_argument("--first", type=int, default=0, help="of the real part: the first audit's seed")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/audit_null.json"))
    options = parser.parse_args()
    began, parts = time.perf_counter(), options.parts.split(",")
    result: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    result |= {
        "machine": machine(np, scipy),
        "allowed_alarms_in_400": ALLOWED,
    }
    if "simulated" in parts:
        result["simulated"] = simulated(options.audits)
    if "coverage" in parts:
        result["coverage"] = coverage(options.truths)
    if "real" in parts:
        run = options.attacks.split(",")
        row = f"real_stays_{run[0]}" if len(run) == 1 else "real_stays"
        result[row] = real_stays(stays(), options.audits, run, options.first)
        result.setdefault("seeds", {})[row] = [options.first, options.first + options.audits - 1]
        result["sizes"] = {"members": MEMBERS, "others": OTHERS, "samples": SAMPLES}
    if "sizes" in parts:
        run, told = options.attacks.split(","), result.setdefault("by_size", {})
        told |= sizes(options.audits, run, options.first, told)
        ranges = result.setdefault("seeds", {}).setdefault("by_size", [])
        ranges.append([",".join(run), options.first, options.first + options.audits - 1])
    result["seconds"] = round(time.perf_counter() - began, 1)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
