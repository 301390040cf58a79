"""Does the artefact tell what was measured, and when? The pattern of measurements says how ill somebody seemed.

A cell is one stay, one variable and one window of time (one step where windows do not run along time); it is positive
when anything was measured there. T0: released masks tell it; so does a change from one encoded window to the next,
because a value that is carried forward encodes to the same again. T4: the attacker encodes his own patients, whose
measurements he knows, and trains a classifier. The figure is the AUROC over pairs of stays within each variable and
window, so that knowing how often a variable is measured earns nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier

from pipeline.audit.encodings.denoising import output_noise
from pipeline.audit.encodings.inversion import chosen_targets, known_layout, on_windows
from pipeline.audit.encodings.windows import Layout, layout_of
from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import MASK, MIN_SUBJECTS, EncodingScene
from pipeline.audit.statistics import CONTROL_LEVEL, LEVEL, Interval
from pipeline.core.seeds import child_seed, generator
from pipeline.core.types import AttackResult, ThreatModel

MAX_WIDTH = 64  # outputs per window; more make no window of their own any more
OWN_CELLS = 8_000  # of each variable, to train on
MIN_CASES = 10  # of either kind among them, or the variable gets no classifier
FOUND = 0.9  # a planted pattern must be told with this AUROC
PLANTED_VARIABLES = 5
SHIFTS = 20  # pairings of stays with others' patterns behind the control


def stratified_auroc(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Per variable and window the concordant pairs of stays and all pairs, ties one half: `(2, variable, window)`.

    Args:
        scores, truth: `(stay, variable, window)`.
    """
    ranks = stats.rankdata(scores, axis=0)
    ones = truth.sum(axis=0, dtype=np.float64)
    concordant = (ranks * truth).sum(axis=0) - ones * (ones + 1) / 2
    return np.stack([concordant, ones * (len(truth) - ones)])


def auroc_interval(
    scores: np.ndarray, truth: np.ndarray, subjects: np.ndarray, rng: np.random.Generator, n: int
) -> Interval:
    """The pooled AUROC with a percentile bootstrap over subjects, all cells of a subject together."""
    codes = np.unique(subjects, return_inverse=True)[1]
    people = int(codes.max()) + 1
    weights = rng.multinomial(people, np.full(people, 1 / people), size=n)[:, codes].astype(np.float64)
    flat, kind = scores.reshape(len(scores), -1), truth.reshape(len(truth), -1)
    totals = np.zeros((2, n))
    for column in np.flatnonzero(kind.any(axis=0) & ~kind.all(axis=0)):
        totals += _weighted_pairs(flat[:, column], kind[:, column], weights)
    found = totals[0][totals[1] > 0] / totals[1][totals[1] > 0]
    value = _pooled(stratified_auroc(scores, truth))
    if found.size == 0:
        return Interval(value, 0.0, 1.0)
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, min(float(low), value), max(float(high), value))


def _weighted_pairs(scores: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Concordant and all pairs of one stratum when stay i counts `weights[:, i]` times: `(2, draw)`."""
    order = np.argsort(scores, kind="stable")
    ranked, ones = scores[order], truth[order]
    drawn = weights[:, order]
    below = np.hstack([np.zeros((len(weights), 1)), np.cumsum(drawn * ~ones, axis=1)])
    first, last = np.searchsorted(ranked, ranked[ones], "left"), np.searchsorted(ranked, ranked[ones], "right")
    concordant = (drawn[:, ones] * (below[:, first] + below[:, last]) / 2).sum(axis=1)
    return np.stack([concordant, drawn[:, ones].sum(axis=1) * below[:, -1]])


def _pooled(pairs: np.ndarray) -> float:
    total = float(pairs[1].sum())
    return float(pairs[0].sum()) / total if total > 0 else 0.5


def against_others(scores: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> tuple[float, bool]:
    """The AUROC against the pattern of another stay, mean over shifts, and whether it is no better than chance.

    Two stays are alike or unlike by chance, in all their cells, so that a single pairing would say little.
    """
    shifts = rng.permutation(np.arange(1, len(truth)))[:SHIFTS]
    found = np.array([_pooled(stratified_auroc(scores, np.roll(truth, shift, axis=0))) for shift in shifts])
    reach = float(stats.t.ppf(CONTROL_LEVEL, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)))
    return float(found.mean()), bool(found.mean() - reach <= 0.5)


def in_cells(masks: np.ndarray, size: int) -> np.ndarray:
    """Whether anything was measured: `(stay, step, variable)` -> `(stay, variable, window of size steps)`, whole ones.

    With more rows than steps (encodings are filled up) the last ones count like others.
    """
    windows = masks.shape[1] // size
    cells = np.asarray(masks[:, : windows * size], bool).reshape(len(masks), windows, size, -1)
    return np.swapaxes(cells.max(axis=2), 1, 2)


def outputs_about(encoded: np.ndarray, layout: Layout, channels: np.ndarray) -> np.ndarray:
    """The outputs of one window about each channel and cell: `(stay, channel, cell, output)`."""
    cells = layout.cut_encoded(encoded).reshape(len(encoded), layout.lanes, layout.slots, layout.width)
    last = layout.slots - 1
    if layout.axis == "time":
        starts = np.arange(layout.steps // layout.window) * layout.window
        return np.asarray(cells[:, channels][:, :, np.minimum(np.rint(starts / layout.stride).astype(int), last)])
    steps = np.arange(layout.steps)
    if layout.axis == "variables":
        return np.asarray(cells[:, steps[None, :], np.minimum(channels // layout.stride, last)[:, None]])
    positions = steps[None, :] * layout.channels + channels[:, None]
    return np.asarray(cells[:, 0, np.minimum(positions // layout.stride, last)])


def change_scores(outputs: np.ndarray) -> Mapping[str, np.ndarray]:
    """How much every cell's window differs from its neighbours in time, three ways: `(stay, channel, cell)`.

    The first cell is compared with the commonest first window of its channel: what was never measured is the same
    constant for everybody.
    """
    steps = np.linalg.norm(np.diff(outputs, axis=2), axis=3)
    first = np.linalg.norm(outputs[:, :, 0] - _commonest(outputs[:, :, 0]), axis=2)[:, :, None]
    before = np.concatenate([first, steps], axis=2)
    after = np.concatenate([steps, steps[:, :, -1:]], axis=2) if steps.shape[2] else before
    return {
        "change": before,
        "change on both sides": np.sqrt(before * after) + 1e-3 * before,
        "changed at all": (before > 1e-6).astype(np.float64),
    }


def _commonest(rows: np.ndarray) -> np.ndarray:
    """Per channel the most frequent row of `(stay, channel, output)`; the median where none occurs twice."""
    found = np.median(rows, axis=0)
    for channel in range(rows.shape[1]):
        values, counts = np.unique(rows[:, channel], axis=0, return_counts=True)
        if counts.max() > 1:
            found[channel] = values[int(np.argmax(counts))]
    return np.asarray(found)


def features_of(scene: EncodingScene, layout: Layout, encoded: np.ndarray, variable: int) -> np.ndarray:
    """What a classifier sees of a variable's cells: its windows before, at and after, and its mask's if encoded.

    `(stay, cell, feature)`.
    """
    place = np.array([variable])
    here = outputs_about(encoded, layout, place)[:, 0]
    before, after = np.concatenate([here[:, :1], here[:, :-1]], 1), np.concatenate([here[:, 1:], here[:, -1:]], 1)
    parts = [here, before, after, np.linalg.norm(here - before, axis=2)[:, :, None]]
    parts += [np.linalg.norm(after - here, axis=2)[:, :, None]]
    mask = MASK + scene.channels[variable]
    if mask in scene.channels:
        parts.append(outputs_about(encoded, layout, np.array([scene.channels.index(mask)]))[:, 0])
    return np.concatenate(parts, axis=2)


def learned_scores(known: np.ndarray, truth: np.ndarray, asked: np.ndarray, seed: int) -> np.ndarray:
    """The probability of a measurement in every asked cell `(stay, cell)`, from boosted trees on the known ones.

    Args:
        known, asked: features `(stay, cell, feature)`; truth: `(stay, cell)`.
    """
    cases = int(truth.sum())
    if min(cases, truth.size - cases) < MIN_CASES:
        return np.zeros(asked.shape[:2])
    position = np.broadcast_to(np.arange(known.shape[1])[None, :, None], (*known.shape[:2], 1))
    there = np.broadcast_to(np.arange(asked.shape[1])[None, :, None], (*asked.shape[:2], 1))
    trees = HistGradientBoostingClassifier(max_iter=50, max_leaf_nodes=15, early_stopping=False, random_state=seed)
    rows = np.concatenate([known, position], axis=2)
    trees.fit(rows.reshape(truth.size, -1), truth.ravel())
    answer = trees.predict_proba(np.concatenate([asked, there], axis=2).reshape(-1, rows.shape[2]))[:, 1]
    return np.asarray(answer.reshape(asked.shape[:2]))


@final
@dataclass(frozen=True)
class MissingnessPattern:
    """AUROC of "something was measured here": from the artefact alone, and from own patients encoded with the key."""

    name: ClassVar[str] = "missingness_pattern"
    threat_model: ClassVar[ThreatModel] = "T0"
    scene_type: ClassVar[type] = EncodingScene

    def unsupported(self, scene: Any) -> str | None:
        """Why the pattern cannot be looked for, or None."""
        if scene.observed_targets is None:
            return "which cells were measured was not given, so that nothing can be scored"
        if len(np.unique(scene.target_subjects)) < MIN_SUBJECTS:
            return f"fewer than {MIN_SUBJECTS} subjects"
        if scene.released is not None:
            return None
        layout = layout_of(scene)
        if layout is None:
            return "the encoded shape is not one window map per slot"
        if layout.width > MAX_WIDTH:
            return f"a window holds more than {MAX_WIDTH} outputs: there are no windows of a variable to compare"
        return None

    def run(self, scene: EncodingScene, seed: int) -> tuple[AttackResult, ...]:
        """What released masks tell; else what the artefact alone (T0) and, given own masks, the key (T4) tell."""
        scene = chosen_targets(scene, seed)
        assert scene.observed_targets is not None  # `unsupported` was asked
        if scene.released is not None:
            size = scene.window_steps if scene.axis == "time" else 1
            shown = in_cells(scene.released[:, : scene.targets.shape[1]] > 0.5, size).astype(np.float64)
            truth = in_cells(scene.observed_targets, size)
            planted = _pooled(stratified_auroc(truth.astype(np.float64), truth))
            return (_result(scene, "T0", {"released masks": shown}, truth, planted, seed),)
        layout = known_layout(scene)
        truth = in_cells(scene.observed_targets, _cell(layout))
        variables = np.arange(truth.shape[1])
        scores = change_scores(outputs_about(scene.encoded_targets, layout, variables))
        results = [_result(scene, "T0", scores, truth, _planted_changes(scene, layout, truth), seed)]
        if scene.observed_own is not None:
            results.append(_learned(scene, layout, truth, seed))
        return tuple(results)


def _cell(layout: Layout) -> int:
    return layout.window if layout.axis == "time" else 1


def _learned(scene: EncodingScene, layout: Layout, truth: np.ndarray, seed: int) -> AttackResult:
    assert scene.observed_own is not None
    rng = generator(seed, "audit", "missingness")
    rows = rng.permutation(len(scene.own))[: max(MIN_SUBJECTS, OWN_CELLS // truth.shape[2])]
    known = in_cells(scene.observed_own[rows], _cell(layout))
    encoded = scene.encode(scene.own[rows])
    encoded = encoded + output_noise(scene, encoded) * rng.standard_normal(encoded.shape)
    scores, planted = np.zeros(truth.shape), []
    for variable in range(truth.shape[1]):
        mine, theirs = (features_of(scene, layout, array, variable) for array in (encoded, scene.encoded_targets))
        tree_seed = child_seed(seed, "audit", "trees", variable) % 2**32
        scores[:, variable] = learned_scores(mine, known[:, variable], theirs, tree_seed)
        if variable < PLANTED_VARIABLES:
            leak = [
                np.concatenate([features, masks[:, :, None]], axis=2)
                for features, masks in ((mine, known[:, variable]), (theirs, truth[:, variable]))
            ]
            told = learned_scores(leak[0], known[:, variable], leak[1], tree_seed)
            planted.append(stratified_auroc(told[:, None], truth[:, [variable]]))
    control = _pooled(np.concatenate(planted, axis=1))
    return _result(scene, "T4", {"classifier": scores}, truth, control, seed)


def _planted_changes(scene: EncodingScene, layout: Layout, truth: np.ndarray) -> float:
    """The same scores where a value moves exactly when it is measured, and nothing is encoded."""
    assert scene.observed_targets is not None
    counted = scene.observed_targets.cumsum(axis=1, dtype=np.float32)
    channels = layout.channels - counted.shape[2]
    moved = np.concatenate([counted, np.zeros((*counted.shape[:2], channels), np.float32)], axis=2)
    plain = dataclasses.replace(layout, width=layout.window)
    encoded = on_windows(lambda rows: rows, layout)(moved)
    scores = change_scores(outputs_about(encoded, plain, np.arange(truth.shape[1])))
    return max(_pooled(stratified_auroc(score, truth)) for score in scores.values())


def _result(
    scene: EncodingScene,
    model: ThreatModel,
    scores: Mapping[str, np.ndarray],
    truth: np.ndarray,
    planted: float,
    seed: int,
) -> AttackResult:
    """The best score against the truth, and against the pattern of another stay."""
    found = {name: _pooled(stratified_auroc(score, truth)) for name, score in scores.items()}
    method = max(found, key=lambda name: found[name])
    best, subjects = scores[method], scene.target_subjects
    rng = generator(seed, "audit", "missingness bootstrap", model)
    figure = auroc_interval(best, truth, subjects, rng, scene.n_bootstrap)
    control, quiet = against_others(best, truth, rng)
    source = "the key and patients of their own" if model == "T4" else "nothing but the artefact"
    return result(
        scene,
        MissingnessPattern,
        Figure("auroc", figure, n=len(truth), powered=True, gates=False),
        Controls(control, planted, quiet and planted >= FOUND),
        summary=f"An attacker with {source} tells in {scene.artefact} whether a variable was measured in a window with "
        f"AUROC {figure} (n = {len(truth)} stays); against another stay's pattern it is {control:.2f}.",
        detail={
            "method": method,
            "auroc_by_method": {name: round(value, 4) for name, value in found.items()},
            "auroc_by_variable": _by_variable(scene, stratified_auroc(best, truth)),
            "cells": int(truth.size),
            "measured_share": round(float(truth.mean()), 4),
            "n_subjects": len(np.unique(subjects)),
            "note": "shown and never deciding: no policy limits it",
        },
        threat_model=model,
    )


def _by_variable(scene: EncodingScene, pairs: np.ndarray) -> dict[str, float]:
    sums = pairs.sum(axis=2)
    return {
        name: round(float(good / total), 4)
        for name, good, total in zip(scene.channels, sums[0], sums[1], strict=False)
        if total > 0
    }
