"""T2, T5: who holds no key recognises a row by how its windows differ from one another.

A map of single windows turns equal windows into equal outputs and, if it is close to a projection, near ones into near
ones; values are carried forward, so that the pattern of changes of a stay is its own. The attacker compares this
profile of a record that he knows, or of a row under another key, with the profiles of all rows of the release. The
figure is how often the right row comes first; the score is chosen on half of the targets and reported on the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from pipeline.audit.encodings.inversion import known_layout
from pipeline.audit.encodings.windows import Layout, layout_of
from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import MIN_SUBJECTS, EncodingScene
from pipeline.audit.sets.membership import halves
from pipeline.audit.sets.summary_table import one_each
from pipeline.audit.statistics import CONTROL_LEVEL, Interval, clopper_pearson
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, ThreatModel

STATISTIC = "linkage_rate"
MAX_ROWS = 2000  # rows of the release among which the right one is looked for, one for each subject
MAX_TARGETS = 600
LAGS = (1, 2)  # windows are compared with the next one and the one after
SAME = 1e-5  # of the widest spread: a smaller difference is rounding
FOUND = 0.5  # share of planted targets that must be found


def profile(cells: np.ndarray, layout: Layout, knows: np.ndarray | None = None) -> np.ndarray:
    """Distances between windows of the same channels: `(stay, pair)`.

    Args:
        cells: `(stay * lane * slot, value)`.
        knows: `(lane, slot)` bool, the windows that are known; None = all.
    """
    by_lane = cells.reshape(-1, layout.lanes, layout.slots, cells.shape[1])
    along = by_lane if layout.axis != "variables" else np.swapaxes(by_lane, 1, 2)
    known = np.ones((layout.lanes, layout.slots), bool) if knows is None else knows
    known = known if layout.axis != "variables" else known.T
    parts = []
    for lag in LAGS:
        if along.shape[2] > lag:
            distances = np.linalg.norm(along[:, :, lag:] - along[:, :, :-lag], axis=3)
            parts.append(distances[:, known[:, lag:] & known[:, :-lag]])
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(along), 0))


def ranked(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Each column's mid-ranks among the reference's values, centred, as unit rows."""
    found = np.empty(values.shape, np.float32)
    ordered = np.sort(reference, axis=0)
    for column in range(values.shape[1]):
        low = np.searchsorted(ordered[:, column], values[:, column] - SAME, "left")
        high = np.searchsorted(ordered[:, column], values[:, column] + SAME, "right")
        found[:, column] = (low + high) / (2 * len(reference))
    return _unit(found)


def changed(values: np.ndarray) -> np.ndarray:
    """Whether windows differ at all, centred and weighed by how rare that is, as unit rows."""
    moves = (values > SAME * max(float(values.max(initial=0)), 1e-9)).astype(np.float32)
    spread = moves.std(axis=0)
    return _unit(np.divide(moves - moves.mean(axis=0), spread, out=np.zeros_like(moves), where=spread > 0))


def _unit(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=0)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 0))


def similarities(asked: np.ndarray, rows: np.ndarray, population: np.ndarray) -> dict[str, np.ndarray]:
    """`(target, row)` by both scores; profiles of targets, of the release, and of people like the targets."""
    by_rank = ranked(asked, population) @ ranked(rows, rows).T
    together = changed(np.concatenate([asked, population]))[: len(asked)]
    by_change = together @ changed(rows).T
    return {"ranks of distances": by_rank, "what changed": by_change, "both": by_rank + by_change}


def comes_first(similar: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Whether the right row beats all others; ties do not count: `(target,)`."""
    own = similar[np.arange(len(right)), right]
    return np.asarray((similar >= own[:, None] - 1e-9).sum(axis=1) == 1)


@dataclass(frozen=True)
class _Reached:
    score: str
    rate: Interval
    n: int
    quiet: bool


def reached(table: Mapping[str, np.ndarray], right: np.ndarray, rng: np.random.Generator) -> _Reached:
    """The better score on half of the targets, reported on the others, and whether that is no more than chance."""
    parts = halves(len(right), rng)
    hits = {name: comes_first(similar, right) for name, similar in table.items()}
    name = max(hits, key=lambda key: int(hits[key][parts.choose].sum()))
    n = len(parts.report)
    count = int(hits[name][parts.report].sum())
    chance = 1 / max(1, table[name].shape[1])
    return _Reached(name, clopper_pearson(count, n), n, clopper_pearson(count, n, CONTROL_LEVEL).low <= chance)


def unsupported_profiles(scene: EncodingScene) -> str | None:
    """Why rows have no profile, or None."""
    if len(np.unique(scene.target_subjects)) < 10 * MIN_SUBJECTS or len(scene.own) < MIN_SUBJECTS:
        return f"fewer than {10 * MIN_SUBJECTS} targets or {MIN_SUBJECTS} own patients"
    layout = layout_of(scene)
    if layout is None:
        return "the encoded shape is not one window map per slot"
    if (layout.lanes if layout.axis == "variables" else layout.slots) < 3:
        return "a row holds fewer than three windows of a channel: there is no profile"
    return None


@dataclass(frozen=True)
class _Rows:
    """The release's rows, the targets' places among them, and which windows of them are known."""

    scene: EncodingScene
    layout: Layout
    targets: np.ndarray

    def plain(self, series: np.ndarray, knows: np.ndarray | None) -> np.ndarray:
        return profile(self.layout.cut(series), self.layout, knows)

    def encoded(self, encoded: np.ndarray, knows: np.ndarray | None) -> np.ndarray:
        return profile(self.layout.cut_encoded(encoded), self.layout, knows)


def _rows(scene: EncodingScene, seed: int) -> _Rows:
    rng = generator(seed, "audit", "profiles")
    rows = np.sort(one_each(scene.target_subjects, rng)[:MAX_ROWS])
    few = dataclasses.replace(
        scene,
        targets=scene.targets[rows],
        encoded_targets=scene.encoded_targets[rows],
        target_subjects=scene.target_subjects[rows],
        observed_targets=None,
        released=None,
    )
    return _Rows(few, known_layout(few), np.sort(rng.permutation(len(rows))[:MAX_TARGETS]))


@final
@dataclass(frozen=True)
class ProfileLinkage:
    """How often a known record, whole or in part, is found among the rows without a key."""

    name: ClassVar[str] = "distance_profile_linkage"
    threat_model: ClassVar[ThreatModel] = "T2"
    scene_type: ClassVar[type] = EncodingScene
    unsupported = staticmethod(unsupported_profiles)

    def run(self, scene: EncodingScene, seed: int) -> tuple[AttackResult, ...]:
        """Two results: with the whole record, and with the first half of half of the channels."""
        rows = _rows(scene, seed)
        rng = generator(seed, "audit", "profiles", "known part")
        return tuple(self._run(rows, seed, part, knows) for part, knows in _parts(rows.layout, rng).items())

    def _run(self, rows: _Rows, seed: int, part: str, knows: np.ndarray | None) -> AttackResult:
        scene, right = rows.scene, rows.targets
        own = rows.plain(scene.own, knows)
        asked = rows.plain(scene.targets[right], knows)
        rng = generator(seed, "audit", "profiles", part)
        release = rows.encoded(scene.encoded_targets, knows)
        table = similarities(asked, release, own)
        mixed = profile(rows.layout.cut(scene.targets) @ _mix(rows.layout.window), rows.layout, knows)
        positive = reached(similarities(asked, mixed, own), right, rng)
        negative = reached(table, np.roll(right, len(right) // 2), rng)
        return _result(
            self,
            rows,
            (reached(table, right, rng), positive, negative),
            f"An attacker without the key who knows {part} of a patient",
            {"known": part},
        )


def _mix(window: int) -> np.ndarray:
    """A fixed rotation: an encoding that keeps all distances."""
    return np.asarray(np.linalg.qr(np.random.default_rng(7).standard_normal((window, window)))[0])


def _parts(layout: Layout, rng: np.random.Generator) -> dict[str, np.ndarray | None]:
    knows = np.zeros((layout.lanes, layout.slots), bool)
    channels, times = (layout.slots, layout.lanes) if layout.axis == "variables" else (layout.lanes, layout.slots)
    some, early = rng.permutation(channels)[: max(1, channels // 2)], np.arange(times) < max(3, times // 2)
    if layout.axis == "variables":
        knows[np.ix_(np.flatnonzero(early), some)] = True
    else:
        knows[np.ix_(some, np.flatnonzero(early))] = True
    return {"the whole record": None, "the first half of half of the channels": knows}


@final
@dataclass(frozen=True)
class TwoKeys:
    """How often the rows of one person are matched between releases under two keys, by somebody who holds neither."""

    name: ClassVar[str] = "releases_under_two_keys"
    threat_model: ClassVar[ThreatModel] = "T5"
    scene_type: ClassVar[type] = EncodingScene

    def unsupported(self, scene: Any) -> str | None:
        """No second key, or rows have no profile."""
        if not scene.surrogates:
            return "no encoder under a second key was given"
        return unsupported_profiles(scene)

    def run(self, scene: EncodingScene, seed: int) -> tuple[AttackResult, ...]:
        """One result: a release of the same stays under a made-up key stands for the second one."""
        rows = _rows(scene, seed)
        right = rows.targets
        rng = generator(seed, "audit", "two keys")
        second = rows.encoded(rows.scene.surrogates[0](rows.scene.targets), None)
        first = rows.encoded(rows.scene.encoded_targets, None)
        table = similarities(second[right], first, second)
        found, positive = reached(table, right, rng), reached(similarities(first[right], first, first), right, rng)
        negative = reached(table, np.roll(right, len(right) // 2), rng)
        who = "An attacker who holds neither key but two releases of the same patients under two keys"
        return (_result(self, rows, (found, positive, negative), who, {}),)


def _result(
    attack: ProfileLinkage | TwoKeys,
    rows: _Rows,
    arms: tuple[_Reached, _Reached, _Reached],
    who: str,
    detail: dict[str, Any],
) -> AttackResult:
    found, positive, negative = arms
    candidates = len(rows.scene.targets)
    return result(
        rows.scene,
        attack,
        Figure(STATISTIC, found.rate, n=found.n, powered=True, gates=False),
        Controls(negative.rate.value, positive.rate.value, negative.quiet and positive.rate.value >= FOUND),
        summary=f"{who} picks the right row out of {candidates} of {rows.scene.artefact} in {found.rate.value:.1%} "
        f"[{found.rate.low:.1%}, {found.rate.high:.1%}] of cases (n = {found.n}; by luck {1 / candidates:.2%}).",
        detail={
            **detail,
            "score": found.score,
            "candidates": candidates,
            "baseline_rate": round(1 / candidates, 6),
        },
    )
