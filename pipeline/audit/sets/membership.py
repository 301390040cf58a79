"""T6: does the set tell who was in the training part? Scores are calibrated on the population, judged by subject.

Scores (larger = member) are those of `pipeline.audit.sets.population`, a reference part of the holdout; the pairwise
likelihood-ratio test of RMIA (Zarifzadeh et al., ICML 2024) reduces to its density ratio, because one set stands for
the model. The score, its sign and the thresholds are chosen on one half of the subjects and reported on the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

import numpy as np
from scipy import stats

from pipeline.audit.foreseen import Crowd
from pipeline.audit.once import Piece
from pipeline.audit.result import Controls, result
from pipeline.audit.scene import MIN_SUBJECTS, CondensedScene
from pipeline.audit.sets.distances import channel_scale
from pipeline.audit.sets.population import (
    REFERENCE_SHARE,
    Asked,
    Population,
    by_subject,
    flattened,
    population_of,
    scores,
)
from pipeline.audit.sets.reached import FPR, Reached
from pipeline.audit.statistics import (
    Interval,
    auroc,
    clopper_pearson,
    epsilon_lower_bounds,
    smallest_fpr,
    threshold_at_fpr,
)
from pipeline.core.codec import from_plain, to_plain
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, AuditPiece, ThreatModel

SHARP_FPR = 0.001  # where about 3,000 non-members in the reporting half allow it
FOUND = 0.95
PLANTED = 200
MEMBERS_THEMSELVES: Final = "the members themselves"
OTHER_PEOPLE: Final = "other people"


@dataclass(frozen=True)
class Parts:
    """Rows of one group by what they serve for."""

    choose: np.ndarray
    report: np.ndarray


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


def _scored(samples: np.ndarray, asked: Asked, subjects: np.ndarray) -> dict[str, np.ndarray]:
    return {name: by_subject(score, subjects) for name, score in scores(samples, asked).items()}


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
        parts = _parts_of(scene, seed)
        samples = flattened(scene.condensed.features, channel_scale(scene.holdout))
        found = parts.reached(samples)
        positive, negative = (
            [from_plain(Reached, one) for one in scene.piece(self, seed, name).facts["reached"]]
            for name in (MEMBERS_THEMSELVES, OTHER_PEOPLE)
        )
        first = found[0], positive[0], negative[0]
        results = (_auroc_result(scene, *first), _tpr_result(scene, *first, FPR))
        if len(found) == 1:
            return results
        return (*results, _tpr_result(scene, found[1], positive[1], negative[1], SHARP_FPR))

    def pieces(self, scene: CondensedScene, seed: int) -> Mapping[str, Piece]:
        """Two controls: a set that holds members verbatim, and one of other people of the set's size."""

        def planted() -> AuditPiece:
            return AuditPiece({"reached": to_plain(_parts_of(scene, seed).planted())})

        def others() -> AuditPiece:
            parts = _parts_of(scene, seed)
            rows = generator(seed, "audit", "membership", "strangers").permutation(len(parts.population.records))
            return AuditPiece({"reached": to_plain(parts.reached(parts.population.records[rows[:n]]))})

        n = len(scene.condensed.features)
        return {
            MEMBERS_THEMSELVES: Piece(("source",), planted),
            OTHER_PEOPLE: Piece(("source",), others, {"samples": n}),
        }


@final
@dataclass(frozen=True, eq=False)
class _Arms:
    """Members and others, asked about, with their subjects."""

    population: Population
    inside: tuple[Asked, np.ndarray]
    outside: tuple[Asked, np.ndarray]
    seed: int

    @property
    def rates(self) -> tuple[float, ...]:
        """False-alarm rates at which people are named: the sharp one where there are enough others."""
        others = len(np.unique(self.outside[1]))
        return (FPR, SHARP_FPR) if smallest_fpr(others - others // 2) <= SHARP_FPR else (FPR,)

    def reached(self, samples: np.ndarray) -> list[Reached]:
        """What a set tells, at each of the rates."""
        inside, outside = (_scored(samples, asked, who) for asked, who in (self.inside, self.outside))
        return self._judged(inside, outside, len(np.unique(self.inside[1])))

    def planted(self) -> list[Reached]:
        """A set that holds its members verbatim: the attack must name them, but for those who have twins outside."""
        (asked, who), (others, whose) = self.inside, self.outside
        known = {record.tobytes() for record in others.records}
        twins = who[np.array([record.tobytes() in known for record in asked.records])]
        alone = np.setdiff1d(who, twins) if len(np.unique(twins)) < len(np.unique(who)) else np.unique(who)
        order = generator(self.seed, "audit", "membership", "planted").permutation(alone)[:PLANTED]
        rows = np.isin(who, order)
        told = self.population.asked(asked.records[rows])
        inside, outside = _scored(told.records, told, who[rows]), _scored(told.records, others, whose)
        return self._judged(inside, outside, len(order))

    def _judged(self, inside: dict[str, np.ndarray], outside: dict[str, np.ndarray], members: int) -> list[Reached]:
        found = []
        for at in self.rates:
            rng = generator(self.seed, "audit", "membership", "halves")
            m, o = halves(members, rng), halves(len(np.unique(self.outside[1])), rng)
            found.append(judge(inside, outside, m, o, at))
        return found


def _parts_of(scene: CondensedScene, seed: int) -> _Arms:
    scale = channel_scale(scene.holdout)
    holdout = flattened(scene.holdout, scale)
    subjects = generator(seed, "audit", "membership", "population").permutation(np.unique(scene.holdout_subjects))
    reference = np.isin(scene.holdout_subjects, subjects[: int(REFERENCE_SHARE * len(subjects))])
    known = population_of(holdout[reference])
    inside = known.asked(flattened(scene.members, scale)), scene.member_subjects
    return _Arms(known, inside, (known.asked(holdout[~reference]), scene.holdout_subjects[~reference]), seed)


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
    detail = _facts(scene, found, positive, negative) | found.curve() | found.not_measurable(FPR, SHARP_FPR)
    refuted = f"this refutes epsilon below {found.epsilon:.2f}" if found.epsilon > 0 else "this refutes no epsilon"
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
