"""T6: is a sample a record, or nearly one, or one in disguise? Nearest members against nearest strangers.

One figure decides, `count`: samples that stand closer to one member than strangers do, in any view. A sample is judged
by its distance to the nearest member over that to the second nearest, as it is (shifts in time forgiven) and in views
that do not see a disguise (`pipeline.audit.sets.disguises`): units, mirrors, order, half of it, one channel. No
distance is chosen: in each view holdout records set what is usual, and all views together accuse a set that depends on
nobody in one audit of fifty, however many samples it has (`pipeline.audit.sets.strangeness`). A verbatim copy counts
whatever the tail says, unless strangers are copies, too: real records have twins (stays with hardly a measurement).

Two figures are shown and never decide. `member_excess`: how much more often than by their number members are among the
distinct records that are nearest to some sample, (s - p) / (1 - p) with p = members / (members + holdout). A record
counts once: in many dimensions a central record is the nearest of many samples (Radovanovic et al., JMLR 2010), and
counting samples would call mean-like noise a leak; and few samples leave a wide interval. `closest_record_ratio`: a
set with one verbatim copy of the rarest stay can have a perfect one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, final

import numpy as np
from scipy import stats

from pipeline.audit.foreseen import Crowd
from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import MIN_SUBJECTS, CondensedScene
from pipeline.audit.sets.disguises.pairs import PAIRED, kept
from pipeline.audit.sets.disguises.planted import disguised
from pipeline.audit.sets.disguises.reference import PLAIN, Found, Reference, found_among, reference, share_found
from pipeline.audit.sets.disguises.views import ANY_STEPS, HALF, space_of
from pipeline.audit.sets.distances import EXACT, MAX_LAG, channel_scale
from pipeline.audit.statistics import CONTROL_LEVEL, Interval, clopper_pearson
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, ThreatModel

PLANTED: Final = 40
IN_DISGUISE: Final = 10  # of the planted, in each disguise
FOUND: Final = 0.9
FOUND_IN_DISGUISE: Final = 0.5
QUIET_SHARE: Final = 0.05
SOUGHT: Final = {HALF: "halves of records", ANY_STEPS: "reversed records", PAIRED: "records in units of their own"}


@final
@dataclass(frozen=True)
class NearCopies:
    """Verbatim and near copies of members among the samples."""

    name: ClassVar[str] = "near_copies"
    threat_model: ClassVar[ThreatModel] = "T6"
    scene_type: ClassVar[type] = CondensedScene
    holds_back: ClassVar[bool] = False

    def foreseen(self, crowd: Crowd) -> Mapping[str, int]:
        """A count of samples."""
        return {"count": crowd.samples} if crowd.each(2 * MIN_SUBJECTS) else {}

    def unsupported(self, scene: CondensedScene) -> str | None:
        """Too few subjects on one side, or no sample."""
        return scene.lacks(subjects=2 * MIN_SUBJECTS)

    def run(self, scene: CondensedScene, seed: int) -> tuple[AttackResult, ...]:
        """Three results: near copies, excess of members among the nearest records, closest-record distance."""
        rng = generator(seed, "audit", "near_copies")
        scale = channel_scale(scene.holdout)
        members, holdout = scene.members / scale, scene.holdout / scale
        samples = (scene.condensed.features / scale).astype(np.float32)
        order = rng.permutation(len(holdout))
        apart = order[: min(PLANTED, len(holdout) // 4)]  # the negative control's samples, strangers to the reference
        chosen = members[rng.permutation(len(members))[: len(apart)]]
        unit = scale if scene.unit is None else scale * scene.unit
        space = space_of(members, holdout, None if scene.zero is None else scene.zero / scale, unit)
        known, n = reference(members, holdout[order[len(apart) :]], space, len(samples)), len(samples)
        found, positive, negative = (found_among(rows, known, n) for rows in (samples, chosen, holdout[apart]))
        whole, other = chosen[positive.alone][:IN_DISGUISE], members[rng.permutation(kept(len(members)))[:IN_DISGUISE]]
        hidden = disguised(whole, holdout[apart], space, rng, known.told(n), other)
        seen = {name: share_found(rows, known, n) for name, rows in hidden.items()}
        return (
            _copies(scene, found, positive, negative, known, seen),
            _excess(scene, found, positive, negative, known),
            _closest(scene, found),
        )


def _copies(
    scene: CondensedScene,
    found: Found,
    positive: Found,
    negative: Found,
    known: Reference,
    seen: Mapping[str, float],
) -> AttackResult:
    planted, quiet = positive.share, negative.copies / negative.n
    held = planted >= FOUND and clopper_pearson(negative.copies, negative.n, CONTROL_LEVEL).low <= QUIET_SHARE
    by_view = {name: int(rows.sum()) for name, rows in found.flagged.items() if rows.any()}
    told = "".join(f"; seen by {name}: {rows}" for name, rows in by_view.items() if name != PLAIN)
    alarms, strangers = found.strangers(known)
    least = min(seen.values(), default=1.0)
    hidden = f" and in disguise {least:.0%} or more" if seen else ""
    too_coarse = known.too_coarse(found.n)
    coarse = f"; its columns are too coarse to seek {' and '.join(SOUGHT[name] for name in too_coarse)}"
    coarse = coarse if too_coarse else ""
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
            p_value=found.p_value(known),
        ),
        Controls(float(negative.copies), min(planted, least), held and least >= FOUND_IN_DISGUISE),
        summary=f"{found.copies} of the {found.n} samples of {scene.artefact} lie closer to one member than "
        f"unrelated people do{told}; of planted copies {planted:.0%} are found{hidden}, "
        f"of holdout records {quiet:.0%}{coarse}.",
        detail={
            "max_lag_steps": MAX_LAG,
            "n_members": len(scene.members),
            "n_null_records": strangers,
            "null_records_flagged": alarms,
            "views": list(known.looks),
            "too_coarse": list(too_coarse),
            "found_by_view": by_view,
            "planted_in_disguise": {name: round(share, 4) for name, share in seen.items()},
            "n_planted": int(positive.alone.sum()),
            "n_negative": negative.n,
        },
    )


def _excess(scene: CondensedScene, found: Found, positive: Found, negative: Found, known: Reference) -> AttackResult:
    p = known.member_share

    def excess(of: Found, level: float = 0.95) -> Interval:
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


def _closest(scene: CondensedScene, found: Found) -> AttackResult:
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
