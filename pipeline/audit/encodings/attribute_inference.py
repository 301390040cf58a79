"""T2, T4: what an encoding tells of a person beyond what the attacker knows already.

He knows half of the series of a patient, plain, and the patient's encoded row, and guesses sex, age above the median,
the unit, and whether much was measured. Under T4 he trains on patients of his own, encoded with the key; under T2 he
has no key and knows the attribute of `KNOWN` patients in the release. The figure is the AUROC that the encoded row adds
to the same guesser without it, for the attribute that is most exposed: chosen on half of the people, reported on the
other half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from pipeline.audit.advantage import Shares, can_be_judged, guesser, same_people, shares
from pipeline.audit.encodings.denoising import output_noise
from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import MASK, MIN_SUBJECTS, EncodingScene
from pipeline.audit.sets.membership import Parts, halves
from pipeline.audit.sets.summary_table import STILL, one_each, summarised
from pipeline.audit.statistics import CONTROL_LEVEL, Interval
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, ThreatModel

STATISTIC = "auroc_advantage"
KNOWN = 100  # patients in the release whose attribute the attacker without a key knows
MAX_PEOPLE = 1500  # targets, and patients of his own
POWERED_HALF_WIDTH = 0.10
FOUND = 0.95  # AUROC with the attribute itself among the features


@dataclass(frozen=True)
class Knowledge:
    """Of the same people, by row: what is known plain, what is encoded, and the attributes."""

    plain: np.ndarray
    encoded: np.ndarray
    attributes: Mapping[str, np.ndarray]

    def take(self, rows: np.ndarray) -> Knowledge:
        """The people at `rows`."""
        return Knowledge(
            self.plain[rows], self.encoded[rows], {name: truth[rows] for name, truth in self.attributes.items()}
        )


@dataclass(frozen=True)
class _Guessed:
    """One attribute's AUROC without the encoding, with it, with another's encoding, and with the attribute itself."""

    truth: np.ndarray
    without: np.ndarray
    with_it: np.ndarray
    with_another: np.ndarray
    planted: np.ndarray

    def on(self, rows: np.ndarray) -> tuple[Shares, Shares, Shares, Shares]:
        """The AUROCs over the people at `rows`."""
        every = (self.without, self.with_it, self.with_another, self.planted)
        without, with_it, with_another, planted = (shares(scores[rows], self.truth[rows]) for scores in every)
        return without, with_it, with_another, planted


def statics_of(own: np.ndarray, channels: tuple[str, ...]) -> np.ndarray:
    """Indices of the channels that hold one value for the whole stay, among the attacker's own patients."""
    still = np.ptp(own, axis=1).max(axis=0) <= STILL
    varied = own[:, 0].std(axis=0) > 1e-6
    named = np.array([not name.startswith(MASK) for name in channels])
    return np.flatnonzero(still & varied & named)


def attributes(
    series: np.ndarray, observed: np.ndarray | None, scene: EncodingScene, statics: np.ndarray
) -> dict[str, np.ndarray]:
    """`(stay,)` bool each: a static 0 / 1, or above the median of the attacker's own patients."""
    found = {}
    for channel in statics:
        middle = float(np.median(scene.own[:, 0, channel]))
        binary = bool(np.isin(np.round(scene.own[:, 0, channel], 6), (0.0, 1.0)).all())
        name = scene.channels[channel] if binary else f"{scene.channels[channel]} above the median"
        found[name] = series[:, 0, channel] > (0.5 if binary else middle)
    if observed is not None and scene.observed_own is not None:
        middle = float(np.median(scene.observed_own.mean(axis=(1, 2))))
        found["much was measured"] = observed.mean(axis=(1, 2)) > middle
    return found


def encoded_features(encoded: np.ndarray) -> np.ndarray:
    """Means and spreads of an encoded row over time, by encoded channel and place modulo four: `(stay, feature)`."""
    if encoded.shape[1] < 8:
        return np.asarray(encoded.reshape(len(encoded), -1), np.float64)
    parts = [encoded[:, place::4] for place in range(4)]
    found = [statistic for part in parts for statistic in (part.mean(axis=1), part.std(axis=1))]
    return np.concatenate(found, axis=1, dtype=np.float64)


def knowledge(scene: EncodingScene, seed: int) -> tuple[Knowledge, Knowledge, np.ndarray]:
    """The attacker's own patients with their encodings, the targets, and which channels are known plain."""
    rng = generator(seed, "audit", "attribute inference")
    statics = statics_of(scene.own, scene.channels)
    moving = np.setdiff1d(np.arange(len(scene.channels)), statics)
    known = np.sort(rng.permutation(moving)[: max(1, len(moving) // 2)])
    rows = one_each(scene.target_subjects, rng)[:MAX_PEOPLE]
    own = rng.permutation(len(scene.own))[:MAX_PEOPLE]
    encoded = scene.encode(scene.own[own])
    encoded = encoded + output_noise(scene, encoded) * rng.standard_normal(encoded.shape)
    masks = (scene.observed_own, scene.observed_targets)
    mine = Knowledge(
        summarised(scene.own[own][:, :, known]).astype(np.float64),
        encoded_features(encoded),
        attributes(scene.own[own], None if masks[0] is None else masks[0][own], scene, statics),
    )
    theirs = Knowledge(
        summarised(scene.targets[rows][:, :, known]).astype(np.float64),
        encoded_features(scene.encoded_targets[rows]),
        attributes(scene.targets[rows], None if masks[1] is None else masks[1][rows], scene, statics),
    )
    return mine, theirs, known


def guessed(mine: Knowledge, theirs: Knowledge, rng: np.random.Generator) -> dict[str, _Guessed]:
    """Every attribute with enough people of either kind on both sides."""
    swapped_mine, swapped = rng.permutation(len(mine.plain)), rng.permutation(len(theirs.plain))
    found = {}
    for name in sorted(set(mine.attributes) & set(theirs.attributes)):
        own, truth = mine.attributes[name], theirs.attributes[name]
        if not (can_be_judged(own) and can_be_judged(truth)):
            continue

        def scored(a: np.ndarray | None, b: np.ndarray | None, own: np.ndarray = own) -> np.ndarray:
            known = mine.plain if a is None else np.hstack([mine.plain, a])
            asked = theirs.plain if b is None else np.hstack([theirs.plain, b])
            return guesser(known, own, asked)

        found[name] = _Guessed(
            truth=truth,
            without=scored(None, None),
            with_it=scored(mine.encoded, theirs.encoded),
            with_another=scored(mine.encoded[swapped_mine], theirs.encoded[swapped]),
            planted=scored(own[:, None].astype(float), truth[:, None].astype(float)),
        )
    return found


def advantage(
    found: Mapping[str, _Guessed], parts: Parts
) -> tuple[str, Interval, tuple[Shares, Shares, Shares, Shares]]:
    """The attribute whose AUROC gains most on the choosing half, and its gain on the reporting half."""

    def gain(name: str) -> float:
        without, with_it, *_ = found[name].on(parts.choose)
        return with_it.value - without.value

    judged = [name for name, item in found.items() if _can_be_halved(item.truth, parts)]
    name = max(judged, key=gain)
    reached = found[name].on(parts.report)
    return name, same_people(reached[1], reached[0]), reached


def _can_be_halved(truth: np.ndarray, parts: Parts) -> bool:
    return can_be_judged(truth[parts.choose]) and can_be_judged(truth[parts.report])


@final
@dataclass(frozen=True)
class AttributeInference:
    """AUROC gained about a hidden attribute from a person's encoded row."""

    name: ClassVar[str] = "attribute_inference"
    threat_model: ClassVar[ThreatModel] = "T4"
    scene_type: ClassVar[type] = EncodingScene

    def unsupported(self, scene: Any) -> str | None:
        """Too few subjects, no attribute, or noise that the audit does not know."""
        least = min(len(np.unique(scene.target_subjects)) - KNOWN, len(scene.own))
        if least < 10 * MIN_SUBJECTS:
            return f"fewer than {10 * MIN_SUBJECTS} subjects on one side"
        if scene.not_understood is not None:
            return str(scene.not_understood)
        statics = statics_of(scene.own, scene.channels)
        own = attributes(scene.own, scene.observed_own, scene, statics)
        theirs = attributes(scene.targets, scene.observed_targets, scene, statics)
        if not any(_varies(own[name]) and _varies(truth) for name, truth in theirs.items() if name in own):
            return "no attribute of the stays is known, or nearly all stays are alike in it"
        if len(statics) == len(scene.channels):
            return "there is no series that the attacker could know"
        return None

    def run(self, scene: EncodingScene, seed: int) -> tuple[AttackResult, ...]:
        """Two results: with the key and own patients (T4), and with known patients of the release alone (T2)."""
        mine, theirs, known = knowledge(scene, seed)
        rng = generator(seed, "audit", "attribute inference", "people")
        order = rng.permutation(len(theirs.plain))
        few, rest = theirs.take(order[:KNOWN]), theirs.take(order[KNOWN:])
        share = len(known) / len(scene.channels)
        cases: tuple[tuple[ThreatModel, Knowledge, Knowledge], ...] = (("T4", mine, theirs), ("T2", few, rest))
        results = []
        for model, told, asked in cases:
            found, parts = guessed(told, asked, rng), halves(len(asked.plain), rng)
            if any(_can_be_halved(item.truth, parts) for item in found.values()):
                results.append(_result(scene, model, found, parts, share, len(told.plain)))
        return tuple(results)


def _varies(truth: np.ndarray) -> bool:
    """Whether so many people are of either kind that every part of them has enough."""
    rare = min(truth.mean(), 1 - truth.mean())
    return bool(rare * min(len(truth), MAX_PEOPLE) >= 8 * MIN_SUBJECTS)


def _result(
    scene: EncodingScene, model: ThreatModel, found: Mapping[str, _Guessed], parts: Parts, share: float, trained_on: int
) -> AttackResult:
    name, figure, (without, with_it, with_another, planted) = advantage(found, parts)
    quiet = same_people(with_another, without, CONTROL_LEVEL)
    means = "the key and patients of their own" if model == "T4" else f"no key and {KNOWN} patients whom they know"
    return result(
        scene,
        AttributeInference,
        Figure(
            STATISTIC,
            figure,
            n=len(parts.report),
            powered=figure.half_width <= POWERED_HALF_WIDTH,
            gates=False,
            ceiling=1 - without.value,
        ),
        Controls(quiet.value, planted.value, quiet.low <= 0 and planted.value >= FOUND),
        summary=f"An attacker with {means}, who knows part of a stay, tells '{name}' from its row in {scene.artefact} "
        f"with AUROC {with_it.value:.2f}, and without the row {without.value:.2f}: a gain of {figure} "
        f"(n = {len(parts.report)} subjects).",
        detail={
            "attribute": name,
            "auroc_with": round(with_it.value, 4),
            "auroc_without": round(without.value, 4),
            "auroc_by_attribute": {key: _pair(item, parts) for key, item in found.items()},
            "known_channels_share": round(share, 3),
            "trained_on": trained_on,
            "negative_control_high": round(quiet.high, 4),
        },
        threat_model=model,
    )


def _pair(item: _Guessed, parts: Parts) -> list[float]:
    """AUROC without and with the encoded row, on the reporting half."""
    if not can_be_judged(item.truth[parts.report]):
        return []
    without, with_it, *_ = item.on(parts.report)
    return [round(without.value, 4), round(with_it.value, 4)]
