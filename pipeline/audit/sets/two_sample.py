"""T6, the last line: does the set stand nearer to its members than to strangers, in whatever way one looks at it?

No kind of leak is assumed. If the set does not depend on who was a member, members and holdout subjects are
exchangeable given the set, so any figure that compares them can be judged by giving the labels out again at random
(Lehmann and Romano 2005, chapter 15; for two samples Lopez-Paz and Oquab, ICLR 2017). The records are looked at in
several views (`pipeline.audit.sets.views`); in each, these figures compare members and others:

- the rank sum of how near the set comes to each record, against how near strangers usually come to it (either sign);
- members among the records that the set comes nearest to (an aggregate hides that a few leaked);
- over the samples, log distance to the nearest other minus that to the nearest member, also for each part of the
  series by itself, because one channel may have leaked and no other;
- mean log distance to the set against that to strangers: the cross term of an energy test (Szekely and Rizzo 2013).

All are standardised by the same relabellings, and a view tells members when its largest figure is above the 99 %
quantile of the largest over *all* views (Westfall and Young 1993): however many views, one audit in a hundred errs.
A single copied record cannot be told this way, because who was copied may as well have been a stranger; that is what
`near_copies` is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, final

import numpy as np

from pipeline.audit.foreseen import Crowd
from pipeline.audit.once import Piece
from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import MIN_SUBJECTS, CondensedScene
from pipeline.audit.sets.distances import channel_scale, k_nearest
from pipeline.audit.sets.population import BLOCK_NUMBERS, by_subject, squares
from pipeline.audit.sets.views import VIEWS, seen
from pipeline.audit.statistics import auroc
from pipeline.core.codec import from_plain, to_plain
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, AuditPiece, ThreatModel

RELABELLINGS: Final = 999
SMALLEST_P: Final = 2 / (RELABELLINGS + 1)  # two families at half the level each
LEVEL: Final = 0.01  # of the whole family of views and figures
REFERENCE_SHARE: Final = 0.3  # of the holdout's subjects: what strangers usually look like
MAX_MEMBERS: Final = 4000
NEIGHBOURS: Final = 24
TOPS: Final = (10, 30, 100)
PLANTED: Final = 240  # of 4,000 members and 1,116 others 80 copies go untold in 3 splits of 10, 160 in none
PLAINEST: Final = "noisy copies"  # the planted leak that must be found, or the attack itself is broken
CONTROLS: Final = "controls"
STRANGERS: Final = "strangers"
TINY: Final = 1e-4  # of a squared distance, in squares of the numbers' spread
SAMPLES: Final = 400  # more samples are drawn down: distances to all of them are kept
FIGURES: Final = ("rank sum", "nearest 10", "nearest 30", "nearest 100", "energy", "samples")
PART: Final = "samples, one part"


@final
@dataclass(frozen=True)
class Evidence:
    """What the relabellings say: adjusted p-values of each view, `(view,)`, and each view's most telling figure."""

    views: tuple[str, ...]
    p_values: tuple[float, ...]
    figures: tuple[str, ...]
    best_score: np.ndarray  # of the most telling view: `(subject,)`, larger = nearer to the set

    @property
    def p_value(self) -> float:
        """Of the whole family."""
        return min(self.p_values)

    @property
    def telling(self) -> tuple[str, ...]:
        """Views that tell members at the family's level."""
        return tuple(name for name, p in zip(self.views, self.p_values, strict=True) if p <= LEVEL)


@final
@dataclass(frozen=True)
class Control:
    """What counts of a control's evidence."""

    p_value: float
    telling: int  # views


@final
@dataclass(frozen=True, eq=False)
class People:
    """Records to be told apart, their subjects' codes 0.. and who is a member; strangers set what is usual."""

    records: np.ndarray
    subjects: np.ndarray
    member: np.ndarray  # `(subject,)`
    strangers: np.ndarray


@final
@dataclass(frozen=True)
class TwoSample:
    """Exchangeability of members and holdout, given the set."""

    name: ClassVar[str] = "two_sample"
    threat_model: ClassVar[ThreatModel] = "T6"
    scene_type: ClassVar[type] = CondensedScene
    holds_back: ClassVar[bool] = False

    def foreseen(self, crowd: Crowd) -> Mapping[str, int]:
        """A count of views, from the subjects that are no reference."""
        left = crowd.others - int(REFERENCE_SHARE * crowd.others)
        n = min(crowd.members, MAX_MEMBERS) + left
        return {"telling_views": n} if crowd.each(10 * MIN_SUBJECTS) else {}

    def unsupported(self, scene: CondensedScene) -> str | None:
        """Too few subjects on one side, or no sample."""
        return scene.lacks(subjects=10 * MIN_SUBJECTS)

    def run(self, scene: CondensedScene, seed: int) -> tuple[AttackResult, ...]:
        """One result: how many views tell members."""
        people = gathered(scene, seed)
        known = scene.piece(self, seed, CONTROLS)
        samples = scene.condensed.features / channel_scale(scene.holdout)
        if len(samples) > SAMPLES:
            rows = generator(seed, "audit", "two_sample", "samples").permutation(len(samples))[:SAMPLES]
            samples = samples[np.sort(rows)]
        found = examine(people, {"set": samples}, _relabelled(seed), known.numbers)[0]["set"]
        controls = from_plain(dict[str, Control], known.facts)
        negative = controls.pop(STRANGERS)
        return (_result(scene, people, found, controls, negative),)

    def pieces(self, scene: CondensedScene, seed: int) -> Mapping[str, Piece]:
        """The controls; and, by view, how near strangers usually come."""

        def controls() -> AuditPiece:
            people = gathered(scene, seed)
            rng = generator(seed, "audit", "two_sample", "strangers")
            strangers = people.strangers[rng.permutation(len(people.strangers))[:PLANTED]]
            planted = planted_sets(people, generator(seed, "audit", "two_sample", "planted"))
            found, usual = examine(people, {STRANGERS: strangers, **planted}, _relabelled(seed))
            return AuditPiece(
                {name: to_plain(Control(one.p_value, len(one.telling))) for name, one in found.items()}, usual
            )

        return {CONTROLS: Piece(("source",), controls)}


def _relabelled(seed: int) -> np.random.Generator:
    """Draws relabellings and projections: the same ones for the set as for its controls."""
    return generator(seed, "audit", "two_sample", "relabellings")


def gathered(scene: CondensedScene, seed: int) -> People:
    """Members (at most `MAX_MEMBERS` subjects) and holdout subjects that are no reference, in the channels' scale."""
    rng = generator(seed, "audit", "two_sample")
    scale = channel_scale(scene.holdout)
    shuffled = rng.permutation(np.unique(scene.holdout_subjects))
    aside = np.isin(scene.holdout_subjects, shuffled[: int(REFERENCE_SHARE * len(shuffled))])
    chosen = rng.permutation(np.unique(scene.member_subjects))[:MAX_MEMBERS]
    inside = np.isin(scene.member_subjects, chosen)
    records = np.concatenate([scene.members[inside], scene.holdout[~aside]]) / scale
    is_member = np.repeat([True, False], [int(inside.sum()), int((~aside).sum())])
    names = np.concatenate([scene.member_subjects[inside], scene.holdout_subjects[~aside]])
    _, codes = np.unique(names, return_inverse=True)
    subjects = rng.permutation(codes.max() + 1)[codes]  # ties are broken by place, which must not tell who is a member
    member = np.zeros(subjects.max() + 1, bool)
    member[subjects[is_member]] = True
    order = rng.permutation(len(records))
    return People(records[order], subjects[order], member, scene.holdout[aside] / scale)


def examine(
    people: People, sets: Mapping[str, np.ndarray], rng: np.random.Generator, usual: np.ndarray | None = None
) -> tuple[dict[str, Evidence], np.ndarray]:
    """All views, all figures, one family of relabellings; each set `(sample, step, channel)` by itself.

    Args:
        usual: what this gave beside the evidence for the same people: how near strangers usually come to each record,
            `(2, block of any view, record)`; None = it is to be computed.
    """
    labels = np.stack([people.member, *(rng.permutation(people.member) for _ in range(RELABELLINGS))])
    figures: dict[str, list[np.ndarray]] = {name: [] for name in sets}
    scores: dict[str, list[np.ndarray]] = {name: [] for name in sets}
    given = np.ascontiguousarray(labels.T)
    common: list[np.ndarray] = []
    for view in VIEWS.values():
        (records, strangers), shown = seen(view, (people.records, people.strangers), sets, rng)
        done = sum(part.shape[1] for part in common)
        common.append(_usual(records, strangers) if usual is None else usual[:, done : done + len(records)])
        for name in sets:
            score, found = _look(people, (labels, given), records, shown[name], common[-1])
            scores[name].append(score)
            figures[name].append(found)
    return {name: _evidence(figures[name], scores[name]) for name in sets}, np.concatenate(common, axis=1)


def _look(
    people: People,
    labels: tuple[np.ndarray, np.ndarray],
    records: np.ndarray,
    samples: np.ndarray,
    usual: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """One set in one view: how near it comes to each subject, `(subject,)`, and `(relabelling, figure)`.

    `records`, `samples` are `(block, stay, number)`; `usual` is `_usual` of them; `labels` are given by relabelling and
    once more by subject. The mean over the blocks lets parts of one record in different samples add up.
    """
    near = np.zeros(records.shape[1])
    between = np.zeros((samples.shape[1], records.shape[1]), np.float32)
    by_part = []
    for block, own, common in zip(records, samples, usual[0], strict=True):
        distance = _logs(squares(own, block))
        near += (common - distance.min(axis=0)) / len(records)
        if len(records) > 1:
            by_part.append(_by_samples(labels[1], distance, people.subjects))
        distance /= len(records)
        between += distance
    score = by_subject(near, people.subjects)
    further = np.bincount(people.subjects, between.mean(axis=0) - usual[1].mean(axis=0)) / np.bincount(people.subjects)
    whole = [*_figures(labels[0], score, further), _by_samples(labels[1], between, people.subjects)]
    return score, np.stack([*whole, *by_part], axis=1)


def _evidence(figures: list[np.ndarray], scores: list[np.ndarray]) -> Evidence:
    """From a `(relabelling, figure)` for each view; relabelling 0 is the truth.

    Figures of the whole series and of its parts are two families at half the level each: the parts are many, and their
    figures' tails are long.
    """
    whole = _adjusted([found[:, : len(FIGURES)] for found in figures])
    parts = _adjusted([found[:, len(FIGURES) :] for found in figures])
    p_values = tuple(min(1.0, 2 * min(pair)) for pair in zip(whole[0], parts[0], strict=True))
    told_by = tuple(
        FIGURES[of_whole] if p <= of_parts else PART
        for p, of_parts, of_whole in zip(whole[0], parts[0], whole[1], strict=True)
    )
    return Evidence(tuple(VIEWS), p_values, told_by, scores[int(np.argmin(p_values))])


def _adjusted(figures: list[np.ndarray]) -> tuple[list[float], list[int]]:
    """Each view's p-value, adjusted for all views and figures, and which figure is its largest."""
    largest, which = [], []
    for found in figures:
        spread = found.std(axis=0)
        standard = np.divide(found - found.mean(axis=0), spread, out=np.zeros_like(found), where=spread > 0)
        largest.append(standard.max(axis=1, initial=-np.inf))
        which.append(int(standard[0].argmax()) if standard.shape[1] else 0)
    family = np.max(largest, axis=0)
    return [float((family >= item[0]).mean()) for item in largest], which


def _usual(records: np.ndarray, strangers: np.ndarray) -> np.ndarray:
    """Log distance to the three nearest strangers and mean log distance to all: `(2, block, record)`."""
    found: list[list[np.ndarray]] = [[], []]
    for block, others in zip(records, strangers, strict=True):
        rows = max(1, BLOCK_NUMBERS // len(others))
        parts = [squares(block[at : at + rows], others) for at in range(0, len(block), rows)]
        nearest = [np.partition(part, min(2, len(others) - 1), axis=1)[:, :3].mean(axis=1) for part in parts]
        found[0].append(_logs(np.concatenate(nearest)))
        found[1].append(np.concatenate([_logs(part).mean(axis=1) for part in parts]))
    return np.array(found, np.float64)


def _logs(square: np.ndarray) -> np.ndarray:
    """Log of the distances, in place of their squares."""
    square += TINY
    np.log(square, out=square)
    square *= 0.5
    return square


def _figures(labels: np.ndarray, score: np.ndarray, further: np.ndarray) -> list[np.ndarray]:
    """`(relabelling,)` each, larger = members are told; `labels` is `(relabelling, subject)`."""
    as_numbers = labels.astype(np.float32)
    ranks = np.argsort(np.argsort(score, kind="stable"), kind="stable").astype(np.float32)
    order = np.argsort(-score, kind="stable")
    tops = [as_numbers[:, order[: min(top, len(order))]].sum(axis=1) for top in TOPS]
    rank_sum = np.abs(as_numbers @ (ranks - ranks.mean()))
    energy = np.abs(as_numbers @ (further - further.mean()).astype(np.float32))
    return [figure.astype(np.float64) for figure in (rank_sum, *tops, energy)]


def _by_samples(given: np.ndarray, distance: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """Mean over samples of the gap between the nearest other and the nearest member, `(relabelling,)`.

    Gaps in log distance are bounded: a sample that is a copy says no more than one that is e times as near.

    Args:
        given: `(subject, relabelling)` who is called a member; distance: `(sample, record)`.
    """
    near, who = k_nearest(distance, min(NEIGHBOURS, distance.shape[1]))
    who = subjects[who]
    gaps = np.zeros(given.shape[1])
    by_place = np.tanh(near - near[:, :1])
    by_place[:, 0] = by_place[:, -1]  # the first of the other kind is at no later place than the last one
    for own, gap in zip(who, by_place, strict=True):
        inside = given[own]  # (neighbour, relabelling)
        other = (inside != inside[0]).argmax(axis=0)  # 0: all are of one kind
        gaps += np.where(inside[0], gap[other], -gap[other])
    return gaps / max(len(near), 1)


def planted_sets(people: People, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Three kinds of leak: members with noise; every channel from another member; members backwards and rescaled."""
    inside = people.records[people.member[people.subjects]]
    chosen = inside[rng.permutation(len(inside))[:PLANTED]]
    spread = inside.std(axis=(0, 1))
    mosaic = np.stack(
        [inside[rng.permutation(len(inside))[: len(chosen)], :, c] for c in range(inside.shape[2])], axis=2
    )
    return {
        PLAINEST: chosen + 0.05 * spread * rng.normal(size=chosen.shape),
        "mosaics": mosaic,
        "backwards and rescaled": 1.3 * chosen[:, ::-1] + 0.2 * spread,
    }


def _result(
    scene: CondensedScene, people: People, found: Evidence, positive: dict[str, Control], negative: Control
) -> AttackResult:
    n, members = len(people.member), int(people.member.sum())
    figure = auroc(found.best_score[people.member], found.best_score[~people.member])
    fewest = float(min(item.telling for item in positive.values()))
    missed = sorted(name for name, item in positive.items() if not item.telling)  # said, and no fault of the machinery
    return result(
        scene,
        TwoSample,
        Figure(
            "telling_views",
            float(len(found.telling)),
            n=n,
            powered=fewest > 0,
            gates=True,
            ceiling=float(len(VIEWS)),
            p_value=found.p_value,
        ),
        Controls(float(negative.telling), fewest, negative.p_value > SMALLEST_P and bool(positive[PLAINEST].telling)),
        summary=f"Looked at in {len(VIEWS)} ways, {scene.artefact} lies nearer to its {members} members than to the "
        f"{n - members} others in {len(found.telling)} of them (family-wise p = {found.p_value:.3f}); a set of "
        f"unrelated people in {negative.telling}, planted leaks in {fewest:.0f} or more"
        f"{' (too few people to see ' + ', '.join(missed) + ')' if missed else ''}.",
        detail={
            "p_by_view": dict(zip(found.views, found.p_values, strict=True)),
            "figure_by_view": dict(zip(found.views, found.figures, strict=True)),
            "auroc_of_the_most_telling_view": [round(x, 4) for x in (figure.low, figure.value, figure.high)],
            "planted_p_values": {name: item.p_value for name, item in positive.items()},
            "strangers_p_value": negative.p_value,
        },
    )
