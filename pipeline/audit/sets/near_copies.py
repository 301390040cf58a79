"""T6: is a sample a record, or nearly one? Nearest members against nearest holdout records, shifts in time forgiven.

One figure decides, `count`: samples whose distance to the nearest member, over that to the second nearest, is less
than half of what the closest hundredth of holdout records reaches. No distance is chosen, the holdout sets it; half a
quantile and not the minimum, because real records have twins (stays with hardly a measurement).

Two figures are shown and never decide. `member_excess`: how much more often than by their number members are among the
distinct records that are nearest to some sample, (s - p) / (1 - p) with p = members / (members + holdout). A record
counts once: in many dimensions a central record is the nearest of many samples (Radovanovic et al., JMLR 2010), and
counting samples would call mean-like noise a leak; and few samples leave a wide interval. `closest_record_ratio`: a
set with one verbatim copy of the rarest stay can have a perfect one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from scipy import stats

from pipeline.audit.multiplicity import p_of_hits
from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import MIN_SUBJECTS, CondensedScene
from pipeline.audit.sets.distances import MAX_LAG, Nearest, channel_scale, lag_distances, nearest
from pipeline.audit.statistics import CONTROL_LEVEL, Interval, clopper_pearson
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, ThreatModel

NULL_QUERIES = 600  # holdout records that set how close to one record a stranger gets
NULL_QUANTILE = 0.01
COPY_FACTOR = 0.5
EXACT = 1e-6  # scaled distances below this are float32 noise
PLANTED = 40
QUIET_SHARE = 0.05


@dataclass(frozen=True)
class _Reference:
    members: np.ndarray
    holdout: np.ndarray
    threshold: float  # ratio of first to second nearest member distance below which a sample is a near copy

    @property
    def member_share(self) -> float:
        return len(self.members) / (len(self.members) + len(self.holdout))


@dataclass(frozen=True)
class _Found:
    copied: np.ndarray  # (sample,) bool: stands closer to one member than strangers do
    nearest_members: int  # distinct members that are the nearest record of a sample
    nearest_records: int  # distinct records that are
    n: int
    to_member: np.ndarray
    to_holdout: np.ndarray

    @property
    def copies(self) -> int:
        return int(self.copied.sum())


@final
@dataclass(frozen=True)
class NearCopies:
    """Verbatim and near copies of members among the samples."""

    name: ClassVar[str] = "near_copies"
    threat_model: ClassVar[ThreatModel] = "T6"
    scene_type: ClassVar[type] = CondensedScene

    def unsupported(self, scene: CondensedScene) -> str | None:
        """Too few subjects on one side, or no sample."""
        return scene.lacks(subjects=2 * MIN_SUBJECTS)

    def run(self, scene: CondensedScene, seed: int) -> tuple[AttackResult, ...]:
        """Three results: near copies, excess of members among the nearest records, closest-record distance."""
        rng = generator(seed, "audit", "near_copies")
        scale = channel_scale(scene.holdout)
        members, holdout = scene.members / scale, scene.holdout / scale
        order = rng.permutation(len(holdout))
        apart = order[: min(PLANTED, len(holdout) // 4)]  # the negative control's samples, strangers to the reference
        holdout_rest = holdout[order[len(apart) :]]
        null = nearest(lag_distances(holdout_rest[:NULL_QUERIES], members))
        threshold = COPY_FACTOR * float(np.quantile(_ratio(null), NULL_QUANTILE))
        reference = _Reference(members, holdout_rest, threshold)
        found = _look(scene.condensed.features / scale, reference)
        positive = _look(members[rng.permutation(len(members))[: len(apart)]], reference)
        negative = _look(holdout[apart], reference)
        return (
            _copies(scene, found, positive, negative, _ratio(null) < threshold),
            _excess(scene, found, positive, negative, reference),
            _closest(scene, found),
        )


def _ratio(found: Nearest) -> np.ndarray:
    """First over second nearest distance; 1 where both are zero (twins among the records identify nobody)."""
    first = np.where(found.first < EXACT, 0.0, found.first)
    return np.asarray(np.divide(first, found.second, out=np.ones_like(first), where=found.second >= EXACT))


def _look(samples: np.ndarray, reference: _Reference) -> _Found:
    to_members = nearest(lag_distances(samples.astype(np.float32), reference.members))
    to_others = lag_distances(samples.astype(np.float32), reference.holdout)
    to_holdout = to_others.min(axis=1)
    inside = to_members.first < to_holdout
    members = len(np.unique(to_members.index[inside]))
    return _Found(
        copied=_ratio(to_members) < reference.threshold,
        nearest_members=members,
        nearest_records=members + len(np.unique(to_others.argmin(axis=1)[~inside])),
        n=len(samples),
        to_member=to_members.first,
        to_holdout=to_holdout,
    )


def _copies(
    scene: CondensedScene, found: _Found, positive: _Found, negative: _Found, strangers: np.ndarray
) -> AttackResult:
    planted, quiet = positive.copies / positive.n, negative.copies / negative.n
    held = planted >= 0.9 and clopper_pearson(negative.copies, negative.n, CONTROL_LEVEL).low <= QUIET_SHARE
    return result(
        scene,
        NearCopies,
        Figure(
            "count",
            float(found.copies),
            n=found.n,
            powered=True,
            gates=True,
            ceiling=float(found.n),
            p_value=_p_of_copies(found, strangers),
        ),
        Controls(float(negative.copies), planted, held),
        summary=f"{found.copies} of the {found.n} samples of {scene.artefact} stand closer to one member than "
        f"strangers do; of planted copies {planted:.0%} are found, of holdout records {quiet:.0%}.",
        detail={
            "max_lag_steps": MAX_LAG,
            "n_members": len(scene.members),
            "n_null_records": len(strangers),
            "null_records_flagged": int(strangers.sum()),
            "expected_by_chance": round(found.n * float(strangers.mean()), 4),
            "n_planted": positive.n,
            "n_negative": negative.n,
        },
    )


def _p_of_copies(found: _Found, strangers: np.ndarray) -> float:
    """Samples flagged against null records flagged (Fisher's exact test); a verbatim copy is no chance.

    Where no null record is flagged a single near copy is weak evidence, however strange it looks: p is the share of
    samples among all that were looked at.
    """
    if bool((found.copied & (found.to_member < EXACT) & (found.to_holdout >= EXACT)).any()):
        return 0.0
    return p_of_hits(found.copies, found.n, int(strangers.sum()), len(strangers))


def _excess(
    scene: CondensedScene, found: _Found, positive: _Found, negative: _Found, reference: _Reference
) -> AttackResult:
    p = reference.member_share

    def excess(of: _Found, level: float = 0.95) -> Interval:
        share = clopper_pearson(of.nearest_members, of.nearest_records, level)
        return Interval(*((edge - p) / (1 - p) for edge in (share.value, share.low, share.high)))

    figure, planted, quiet = excess(found), excess(positive).value, excess(negative)
    held = planted >= 0.9 and excess(negative, CONTROL_LEVEL).low <= 0
    return result(
        scene,
        NearCopies,
        Figure(
            "member_excess",
            figure,
            n=found.nearest_records,
            powered=True,
            gates=False,
            p_value=float(stats.binom.sf(found.nearest_members - 1, found.nearest_records, p)),
        ),
        Controls(quiet.value, planted, held),
        summary=f"Of the {found.nearest_records} records that are nearest to a sample of {scene.artefact}, "
        f"{found.nearest_members} are members where {p * found.nearest_records:.0f} are expected by their number "
        f"(excess {figure}; shown, never decisive).",
        detail={"expected_share": round(p, 4)},
    )


def _closest(scene: CondensedScene, found: _Found) -> AttackResult:
    ratios = found.to_holdout / np.maximum(found.to_member, EXACT)
    low, value, high = (float(edge) for edge in np.quantile(np.minimum(ratios, 1e6), [0.025, 0.5, 0.975]))
    return result(
        scene,
        NearCopies,
        Figure("closest_record_ratio", Interval(value, low, high), n=found.n, powered=True, gates=False, ceiling=None),
        Controls(None, None, True),
        summary=f"A sample of {scene.artefact} is {value:.2f} times as far from the nearest holdout record as from the "
        "nearest member (median; shown, never decisive).",
        detail={"interval": "central 95 % of samples"},
    )
