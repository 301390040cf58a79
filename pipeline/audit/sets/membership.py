"""T6: does the set tell who was in the training part? Scores are calibrated on the population, judged by subject.

Scores (larger = member): nearest sample against nearest records of the population (a reference part of the holdout); a
kernel density ratio of set to population in the population's principal components; the pairwise likelihood-ratio test
of RMIA (Zarifzadeh et al., ICML 2024) reduces to that ratio, because one set stands for the model. The score, its sign
and the thresholds are chosen on one half of the subjects and reported on the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
from scipy import stats
from scipy.special import logsumexp

from pipeline.audit.result import Controls, result
from pipeline.audit.scene import MIN_SUBJECTS, CondensedScene, Crowd
from pipeline.audit.sets.distances import channel_scale
from pipeline.audit.sets.reached import FPR, Reached
from pipeline.audit.statistics import (
    EXPECTED_FALSE_POSITIVES,
    Interval,
    auroc,
    clopper_pearson,
    epsilon_lower_bounds,
    smallest_fpr,
    threshold_at_fpr,
)
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, ThreatModel

SHARP_FPR = 0.001  # where about 3,000 non-members in the reporting half allow it
REFERENCE_SHARE = 0.3  # of the holdout's subjects: the attacker's population
COMPONENTS = 32
FOUND = 0.95
PLANTED = 200

Score = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Parts:
    """Rows of one group by what they serve for."""

    choose: np.ndarray
    report: np.ndarray


def flattened(series: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """`(stay, step * channel)` in the channels' scale, float32."""
    scaled: np.ndarray = (series / scale).reshape(len(series), -1).astype(np.float32)
    return scaled


def squared_distances(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """`(query, reference)`, never negative."""
    square = (queries**2).sum(axis=1)[:, None] + (references**2).sum(axis=1)[None] - 2 * (queries @ references.T)
    return np.asarray(np.maximum(square, 0), np.float64)


def scores(samples: np.ndarray, population: np.ndarray) -> dict[str, Score]:
    """The attacks' scores of records, from the set's samples and the population's records (both flattened)."""
    centre = population.mean(axis=0)
    n_components = min(COMPONENTS, len(population) - 1, population.shape[1])
    axes = np.linalg.svd(population - centre, full_matrices=False)[2][:n_components]
    low_samples, low_population = (samples - centre) @ axes.T, (population - centre) @ axes.T
    between = squared_distances(low_population, low_population)
    bandwidth = float(np.median(between[between > 0])) / max(n_components, 1) if (between > 0).any() else 1.0

    def nearest_sample(records: np.ndarray) -> np.ndarray:
        return np.asarray(-np.sqrt(squared_distances(records, samples).min(axis=1)))

    def nearest_calibrated(records: np.ndarray) -> np.ndarray:
        usual = _nearest_others(squared_distances(records, population))
        return np.asarray(np.log(usual + 1e-9) - np.log(squared_distances(records, samples).min(axis=1) + 1e-9))

    def density_ratio(records: np.ndarray) -> np.ndarray:
        low = (records - centre) @ axes.T
        inside = logsumexp(-squared_distances(low, low_samples) / (2 * bandwidth), axis=1) - np.log(len(samples))
        usual = logsumexp(-squared_distances(low, low_population) / (2 * bandwidth), axis=1)
        return np.asarray(inside - usual + np.log(len(population)))

    return {"nearest sample": nearest_sample, "calibrated nearest": nearest_calibrated, "density ratio": density_ratio}


def _nearest_others(square: np.ndarray) -> np.ndarray:
    """Mean squared distance to the three nearest population records."""
    k = min(3, square.shape[1])
    mean: np.ndarray = np.partition(square, k - 1, axis=1)[:, :k].mean(axis=1)
    return mean


def by_subject(values: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """The largest score of each subject's stays: `(subject,)`."""
    _, index = np.unique(subjects, return_inverse=True)
    best = np.full(index.max() + 1, -np.inf)
    np.maximum.at(best, index, values)
    return best


def judge(
    members: dict[str, np.ndarray], others: dict[str, np.ndarray], m: Parts, o: Parts, at: float = FPR
) -> Reached:
    """Choose score, sign and threshold on `choose` for each figure, report on `report`; scores are per subject."""
    signed = {name: (members[name], others[name]) for name in members}
    signed |= {f"{name}, reversed": (-members[name], -others[name]) for name in members}
    fpr = max(at, smallest_fpr(len(o.report)))

    def tpr_at(name: str) -> float:
        inside, outside = signed[name]
        return float((inside[m.choose] > threshold_at_fpr(outside[o.choose], fpr)).mean())

    ranked = max(signed, key=lambda name: auroc(signed[name][0][m.choose], signed[name][1][o.choose]).value)
    figure = auroc(signed[ranked][0][m.report], signed[ranked][1][o.report])
    sharp = max(signed, key=tpr_at)
    inside, outside = signed[sharp]
    threshold = threshold_at_fpr(outside[o.choose], fpr)
    hits, alarms = int((inside[m.report] > threshold).sum()), int((outside[o.report] > threshold).sum())
    return Reached(
        auroc_score=ranked,
        auroc=figure,
        p_value=_p_value(figure),
        tpr_score=sharp,
        fpr=fpr,
        tpr=clopper_pearson(hits, len(m.report)),
        realised_fpr=clopper_pearson(alarms, len(o.report)),
        members=len(m.report),
        others=len(o.report),
        epsilon=_epsilon(signed, m, o),
        roc=roc(inside[m.report], outside[o.report]),
    )


def roc(members: np.ndarray, others: np.ndarray) -> tuple[tuple[float, float], ...]:
    """(FPR, TPR) at about 30 thresholds, evenly on a log axis; none at which fewer than ten others are above.

    Such a point would be about few people.
    """
    counts = np.unique(np.geomspace(MIN_SUBJECTS, max(MIN_SUBJECTS, len(others)), 30).round().astype(int))
    ranked = np.sort(others)[::-1]
    thresholds = [ranked[count - 1] for count in counts if count <= len(others)]
    points = (((others >= edge).mean(), (members >= edge).mean()) for edge in thresholds)
    return tuple(dict.fromkeys((round(float(fpr), 5), round(float(tpr), 5)) for fpr, tpr in points))


def _p_value(figure: Interval) -> float:
    """One-sided: AUROC above one half, from the interval's width."""
    spread = figure.standard_error
    return float(stats.norm.sf((figure.value - 0.5) / spread)) if spread > 0 else float(figure.value <= 0.5)


def _epsilon(signed: dict[str, tuple[np.ndarray, np.ndarray]], m: Parts, o: Parts) -> float:
    """Epsilon lower bound at the score and threshold that give the largest one on the choosing half."""

    best, chosen = -1.0, 0.0
    for inside, outside in signed.values():
        levels = [0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995]
        candidates = np.concatenate([np.quantile(side, levels) for side in (inside[m.choose], outside[o.choose])])
        top = outside[o.choose].max()  # where records stand out, the best threshold lies between them and all others
        candidates = np.concatenate([candidates, [top, (top + max(top, inside[m.choose].max())) / 2]])
        bounds = _bounds(candidates, inside[m.choose], outside[o.choose])
        if bounds.max() > best:
            best = float(bounds.max())
            chosen = float(_bounds(candidates[[bounds.argmax()]], inside[m.report], outside[o.report])[0])
    return chosen


def _bounds(thresholds: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    hits, alarms = ((side[None] > thresholds[:, None]).sum(axis=1) for side in (inside, outside))
    return epsilon_lower_bounds(hits, len(inside), alarms, len(outside), delta=0.0)


def halves(n: int, rng: np.random.Generator) -> Parts:
    """Subjects divided at random."""
    order = rng.permutation(n)
    return Parts(np.sort(order[: n // 2]), np.sort(order[n // 2 :]))


def attack(
    samples: np.ndarray,
    population: np.ndarray,
    members: tuple[np.ndarray, np.ndarray],
    others: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
    at: float = FPR,
) -> Reached:
    """Members against others, each (flattened records, subjects), from samples and population; TPR at FPR `at`."""
    table = scores(samples, population)
    inside = {name: by_subject(score(members[0]), members[1]) for name, score in table.items()}
    outside = {name: by_subject(score(others[0]), others[1]) for name, score in table.items()}
    n, m = len(np.unique(members[1])), len(np.unique(others[1]))
    return judge(inside, outside, halves(n, rng), halves(m, rng), at)


def foreseen_of_halves(inside: int, outside: int, sharp: Mapping[str, float]) -> dict[str, int]:
    """Statistic -> n of what `judge` gives of so many members and others, with the `sharp` shares, name -> rate."""
    inside, outside = inside - inside // 2, outside - outside // 2
    found = ["auroc", *(name for name, rate in sharp.items() if smallest_fpr(outside) <= rate)]
    found += [] if smallest_fpr(outside) <= FPR else ["tpr_at_smallest_fpr"]
    return dict.fromkeys(found, inside + outside)


@final
@dataclass(frozen=True)
class Membership:
    """Membership of training subjects against holdout subjects."""

    name: ClassVar[str] = "density_membership"
    threat_model: ClassVar[ThreatModel] = "T6"
    scene_type: ClassVar[type] = CondensedScene
    holds_back: ClassVar[bool] = False

    def foreseen(self, crowd: Crowd) -> Mapping[str, int]:
        """An AUROC, and the shares that so many held-out subjects can show."""
        if not crowd.each(4 * MIN_SUBJECTS):
            return {}
        left = crowd.others - int(REFERENCE_SHARE * crowd.others)
        return foreseen_of_halves(crowd.members, left, {"tpr_at_1pct_fpr": FPR, "tpr_at_01pct_fpr": SHARP_FPR})

    def unsupported(self, scene: CondensedScene) -> str | None:
        """Too few subjects on one side, or no sample."""
        return scene.lacks(subjects=4 * MIN_SUBJECTS)

    def run(self, scene: CondensedScene, seed: int) -> tuple[AttackResult, ...]:
        """AUROC; TPR at 1 % FPR (at the smallest that n supports: under-powered); at 0.1 % too where n allows."""
        scale = channel_scale(scene.holdout)
        samples = flattened(scene.condensed.features, scale)
        members, holdout = flattened(scene.members, scale), flattened(scene.holdout, scale)
        subjects = generator(seed, "audit", "membership", "population").permutation(np.unique(scene.holdout_subjects))
        reference = np.isin(scene.holdout_subjects, subjects[: int(REFERENCE_SHARE * len(subjects))])
        population = holdout[reference]
        inside = (members, scene.member_subjects)
        outside = (holdout[~reference], scene.holdout_subjects[~reference])
        rows = generator(seed, "audit", "membership", "strangers").permutation(len(population))[: len(samples)]

        def arms(at: float) -> tuple[Reached, Reached, Reached]:
            """The set, a set of its members, a set of strangers."""
            return (
                attack(samples, population, inside, outside, generator(seed, "audit", "membership"), at),
                _planted_members(inside, outside, population, seed, at),
                attack(population[rows], population, inside, outside, generator(seed, "audit", "membership"), at),
            )

        usual = arms(FPR)
        results = (_auroc_result(scene, *usual), _tpr_result(scene, *usual, FPR))
        if smallest_fpr(usual[0].others) > SHARP_FPR:
            return results
        return (*results, _tpr_result(scene, *arms(SHARP_FPR), SHARP_FPR))


def _planted_members(
    inside: tuple[np.ndarray, np.ndarray],
    outside: tuple[np.ndarray, np.ndarray],
    population: np.ndarray,
    seed: int,
    at: float,
) -> Reached:
    """A set that holds its members verbatim: the attack must name them."""
    rng = generator(seed, "audit", "membership", "planted")
    subjects = rng.permutation(np.unique(inside[1]))[:PLANTED]
    rows = np.isin(inside[1], subjects)
    return attack(inside[0][rows], population, (inside[0][rows], inside[1][rows]), outside, rng, at)


def _facts(scene: CondensedScene, found: Reached, positive: Reached, negative: Reached) -> dict[str, Any]:
    return {
        **found.facts(),
        "auroc_p_value": found.p_value,
        "realised_fpr_high": round(found.realised_fpr.high, 4),
        "positive_control_score": positive.auroc_score,
        "negative_control_auroc": [round(negative.auroc.low, 4), round(negative.auroc.high, 4)],
        "n_samples": len(scene.condensed.features),
        "smallest_supportable_fpr": round(smallest_fpr(found.others), 5),
    }


def _auroc_result(scene: CondensedScene, found: Reached, positive: Reached, negative: Reached) -> AttackResult:
    held = negative.auroc.at_most_a_coin and positive.auroc.value >= FOUND
    return result(
        scene,
        Membership,
        found.ranked(found.p_value),
        Controls(negative.auroc.value, positive.auroc.value, held),
        summary=f"From {scene.artefact} an attacker tells training subjects from others with AUROC {found.auroc} "
        f"(0.5 = a coin; n = {found.members} + {found.others} subjects); a set of other people gives "
        f"{negative.auroc.value:.2f}, a set of the members themselves {positive.auroc.value:.2f}.",
        detail=_facts(scene, found, positive, negative),
    )


def _tpr_result(scene: CondensedScene, found: Reached, positive: Reached, negative: Reached, at: float) -> AttackResult:
    detail = _facts(scene, found, positive, negative) | found.curve()
    refuted = f"this refutes epsilon below {found.epsilon:.2f}" if found.epsilon > 0 else "this refutes no epsilon"
    smallest = smallest_fpr(found.others)
    missing = [rate for rate in (FPR, SHARP_FPR) if smallest > rate]
    if missing:
        needed = round(EXPECTED_FALSE_POSITIVES / missing[0])
        detail["not_measurable"] = (
            f"{missing[0]:.1%} FPR needs {needed} non-members, {found.others} were there: the smallest supportable FPR "
            f"is {smallest:.2%}"
        )
    return result(
        scene,
        Membership,
        found.named(at, gates=True),
        Controls(negative.tpr.value, positive.tpr.value, negative.names_nobody and positive.tpr.value >= FOUND),
        summary=f"At a false-positive rate of {found.fpr:.1%} an attacker names {found.tpr.value:.1%} "
        f"[{found.tpr.low:.1%}, {found.tpr.high:.1%}] of the training subjects from {scene.artefact}; {refuted}; at "
        f"this n no more than {detail['epsilon_ceiling']:.2f} could be refuted.",
        detail=detail,
    )
