"""T6 by subgroup: an average over everybody hides who is exposed. Sex, age band, unit, and the tenth nobody is like.

Groups come from the channels that hold one value for the whole stay: each value of those with two, thirds of the others
(borders from the holdout); and the tenth of the records that lie farthest from the population, who are the first to be
recognised. In each the AUROC of members against others, with one of `density_membership`'s scores, chosen on one half
of the subjects over all groups and reported on the other; intervals are simultaneous (Bonferroni over groups). Shown
and not deciding; a group whose interval is too wide is said to be inconclusive, one of fewer than ten is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, final

import numpy as np
from scipy import stats

from pipeline.audit.once import Piece
from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import MIN_SUBJECTS, CondensedScene
from pipeline.audit.sets.distances import channel_scale
from pipeline.audit.sets.membership import MEMBERS_THEMSELVES, OTHER_PEOPLE, Parts, halves
from pipeline.audit.sets.population import (
    REFERENCE_SHARE,
    Asked,
    by_subject,
    flattened,
    population_of,
    reduced,
    scores,
)
from pipeline.audit.sets.reached import POWERED_HALF_WIDTH
from pipeline.audit.statistics import LEVEL, Interval, auroc
from pipeline.core.codec import from_plain, to_plain
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, AuditPiece, ThreatModel

STATISTIC: Final = "worst_group_auroc"
ISOLATED: Final = "the tenth farthest from everybody"
MAX_GROUPS: Final = 40
FOUND: Final = 0.9
PLANTED: Final = 2000  # members in the planted leak, which costs as the square: ten of every group are among them

Masks = dict[str, np.ndarray]


@final
@dataclass(frozen=True)
class _People:
    """One arm, by subject: each score `(subject,)`, each group's members `(subject,)` bool."""

    scores: dict[str, np.ndarray]
    groups: Masks


@final
@dataclass(frozen=True)
class SubgroupMembership:
    """Membership within subgroups."""

    name: ClassVar[str] = "subgroup_membership"
    threat_model: ClassVar[ThreatModel] = "T6"
    scene_type: ClassVar[type] = CondensedScene

    def unsupported(self, scene: CondensedScene) -> str | None:
        """Too few subjects on one side, or no sample."""
        return scene.lacks(subjects=10 * MIN_SUBJECTS)

    def run(self, scene: CondensedScene, seed: int) -> tuple[AttackResult, ...]:
        """One result: the group with the largest AUROC; all groups in the detail."""
        found = _divided(scene, seed).reached(flattened(scene.condensed.features, channel_scale(scene.holdout)))
        positive, negative = (
            from_plain(dict[str, Interval], scene.piece(self, seed, name).facts)
            for name in (MEMBERS_THEMSELVES, OTHER_PEOPLE)
        )
        return (_result(scene, found, positive, negative),)

    def pieces(self, scene: CondensedScene, seed: int) -> Mapping[str, Piece]:
        """Two controls: a set of the members themselves, and one of other people of the set's size."""

        def planted() -> AuditPiece:
            return AuditPiece(to_plain(_divided(scene, seed, PLANTED).reached(None)))

        def others() -> AuditPiece:
            parts = _divided(scene, seed)
            people = parts.inside[0].population.records
            rows = generator(seed, "audit", "subgroups", "strangers").permutation(len(people))
            return AuditPiece(to_plain(parts.reached(people[rows[:n]])))

        n = len(scene.condensed.features)
        return {
            MEMBERS_THEMSELVES: Piece(("source",), planted),
            OTHER_PEOPLE: Piece(("source",), others, {"samples": n}),
        }


@final
@dataclass(frozen=True, eq=False)
class _Divided:
    """Members and others, asked about, with their subjects, and which stays of either belong to which group."""

    inside: tuple[Asked, np.ndarray]
    outside: tuple[Asked, np.ndarray]
    masks: tuple[Masks, Masks]
    seed: int

    def reached(self, samples: np.ndarray | None) -> dict[str, Interval]:
        """What a set tells of each group; None = a set of the members themselves."""
        samples = self.inside[0].records if samples is None else samples
        rng = generator(self.seed, "audit", "subgroups", "halves")
        m, o = (halves(len(np.unique(who)), rng) for _, who in (self.inside, self.outside))
        pairs = zip((self.inside, self.outside), self.masks, strict=True)
        return _by_group(*(_arm(samples, *arm, mask) for arm, mask in pairs), m=m, o=o)


def _divided(scene: CondensedScene, seed: int, most: int | None = None) -> _Divided:
    """Of all members, or of `most` of them."""
    chosen = generator(seed, "audit", "subgroups", "members").permutation(np.unique(scene.member_subjects))[:most]
    rows = np.isin(scene.member_subjects, chosen)
    members, subjects = scene.members[rows], scene.member_subjects[rows]
    scale = channel_scale(scene.holdout)
    order = generator(seed, "audit", "subgroups", "population").permutation(np.unique(scene.holdout_subjects))
    aside = np.isin(scene.holdout_subjects, order[: int(REFERENCE_SHARE * len(order))])
    known = population_of(flattened(scene.holdout[aside], scale))
    inside = known.asked(flattened(members, scale))
    outside = known.asked(flattened(scene.holdout[~aside], scale))
    raw = members, scene.holdout[~aside]
    masks = _groups(scene.condensed.channels, *raw, *_isolated(known.records, inside.records, outside.records))
    return _Divided((inside, subjects), (outside, scene.holdout_subjects[~aside]), masks, seed)


def _arm(samples: np.ndarray, asked: Asked, subjects: np.ndarray, masks: Masks) -> _People:
    return _People(
        {name: by_subject(score, subjects) for name, score in scores(samples, asked).items()},
        {name: by_subject(mask.astype(np.float64), subjects) > 0 for name, mask in masks.items()},
    )


def _isolated(population: np.ndarray, members: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest record of the population, but for the record itself: `(stay,)` each."""
    found = [reduced(rows, population, lambda square: square.min(axis=1)) for rows in (members, others)]
    return found[0], found[1]


def _groups(
    channels: tuple[str, ...], members: np.ndarray, others: np.ndarray, far_in: np.ndarray, far_out: np.ndarray
) -> tuple[Masks, Masks]:
    """Which stays of the two arms belong to which group."""
    border = float(np.quantile(far_out, 0.9))
    found: tuple[Masks, Masks] = ({ISOLATED: far_in > border}, {ISOLATED: far_out > border})
    for index, channel in enumerate(channels):
        both = members[:, :, index], others[:, :, index]
        if any(bool((np.ptp(values, axis=1) > 1e-6).any()) for values in both):
            continue
        values = [array[:, 0] for array in both]
        kinds = np.unique(np.round(values[1], 4))
        if len(kinds) < 2 or len(found[0]) + 3 > MAX_GROUPS:
            continue
        edges = [float(kinds.mean())] if len(kinds) == 2 else np.quantile(values[1], [1 / 3, 2 / 3]).tolist()
        names = ("low", "high") if len(edges) == 1 else ("lower third", "middle third", "upper third")
        for masks, arm in zip(found, values, strict=True):
            place = np.digitize(arm, edges)
            masks.update({f"{channel}: {name}": place == k for k, name in enumerate(names)})
    return found


def _by_group(inside: _People, outside: _People, *, m: Parts, o: Parts) -> dict[str, Interval]:
    """AUROC of each group with ten subjects in each arm, with simultaneous intervals."""
    pairs = {
        name: (m.report[inside.groups[name][m.report]], o.report[outside.groups[name][o.report]])
        for name in inside.groups
    }
    pairs = {name: pair for name, pair in pairs.items() if min(map(len, pair)) >= MIN_SUBJECTS}
    chosen = max(inside.scores, key=lambda name: _choosing(inside, outside, m, o, name))
    widen = float(stats.norm.ppf(1 - (1 - LEVEL) / 2 / max(len(pairs), 1)) / stats.norm.ppf(0.5 + LEVEL / 2))
    found = {}
    for name, (a, b) in pairs.items():
        figure = auroc(inside.scores[chosen][a], outside.scores[chosen][b])
        low, high = (figure.value + widen * (edge - figure.value) for edge in (figure.low, figure.high))
        found[name] = Interval(figure.value, max(0.0, low), min(1.0, high))
    return found


def _choosing(inside: _People, outside: _People, m: Parts, o: Parts, score: str) -> float:
    """The largest AUROC of a score over the groups, on the choosing half."""
    best = 0.0
    for name in inside.groups:
        a, b = (m.choose[inside.groups[name][m.choose]], o.choose[outside.groups[name][o.choose]])
        if min(len(a), len(b)) >= MIN_SUBJECTS:
            best = max(best, auroc(inside.scores[score][a], outside.scores[score][b]).value)
    return best


def _result(
    scene: CondensedScene, found: dict[str, Interval], positive: dict[str, Interval], negative: dict[str, Interval]
) -> AttackResult:
    nothing = Interval(0.5, 0.0, 1.0)
    worst = max(found, key=lambda name: found[name].value, default="no group of ten")
    figure = found.get(worst, nothing)
    unclear = [name for name, item in found.items() if (item.high - item.low) / 2 > POWERED_HALF_WIDTH]
    planted = min((item.value for item in positive.values()), default=0.0)
    loud = [name for name, item in negative.items() if item.low > 0.55]
    return result(
        scene,
        SubgroupMembership,
        Figure(
            STATISTIC,
            found.get(worst, nothing),
            n=len(np.unique(scene.member_subjects)) + len(np.unique(scene.holdout_subjects)),
            powered=bool(found) and not unclear,
            gates=False,
        ),
        Controls(max((item.value for item in negative.values()), default=None), planted, planted >= FOUND and not loud),
        summary=f"Of {len(found)} groups of people, {scene.artefact} tells most of who is a member in "
        f'"{worst}": AUROC {figure}; {len(unclear)} groups are too small to say (inconclusive).',
        detail={
            "groups": {name: [round(x, 3) for x in (item.value, item.low, item.high)] for name, item in found.items()},
            "inconclusive": unclear,
            "interval": "simultaneous over the groups",
        },
    )
