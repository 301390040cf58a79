"""The pattern of measurements is found where it is, and a score that knows only frequencies earns nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from pipeline.audit.encodings.missingness import (
    MissingnessPattern,
    auroc_interval,
    change_scores,
    in_cells,
    outputs_about,
    stratified_auroc,
)
from pipeline.audit.encodings.windows import Layout
from pipeline.audit.scene import EncodingScene, encoding_scene
from pipeline.core.errors import DataError
from pipeline.core.types import Cohort, Provenance, Task, Variable
from pipeline.core.wording import MISSINGNESS
from pipeline.ingest.cohort.scaling import prepare
from pipeline.report import views
from pipeline.sharing.bundle.card import _limits_of_kind

STEPS, VARIABLES, WINDOW = 16, 3, 4
MIX = np.random.default_rng(3).normal(0, 0.5, (WINDOW, WINDOW))


def cohort(n: int = 120) -> Cohort:
    """Independent values, each measured with a probability of its variable's own."""
    rng = np.random.default_rng(1)
    observed = rng.uniform(size=(n, STEPS, VARIABLES)) < np.array([0.4, 0.2, 0.1])
    values = np.where(observed, rng.uniform(20, 80, observed.shape), np.nan).astype(np.float32)
    return Cohort(
        values=values,
        observed=observed,
        static=np.zeros((n, 0), np.float32),
        labels=np.zeros((n, 1), np.float32),
        stay_ids=np.arange(n).astype(str),
        subject_ids=np.arange(n).astype(str),
        split=(np.arange(n) % 2).astype(np.int8),
        variables=tuple(Variable(name, "", 0, 100, 0, 100, 50) for name in ("a", "b", "c")),
        static_variables=(),
        tasks=(Task("died"),),
        step_hours=1.0,
        provenance=Provenance("ingest"),
    )


def projected(series: np.ndarray) -> np.ndarray:
    """A window map over time, the same for every window."""
    stays, steps, channels = series.shape
    rows = np.swapaxes(series, 1, 2).reshape(-1, WINDOW) @ MIX
    return np.swapaxes(rows.reshape(stays, channels, steps), 1, 2).astype(np.float32)


def scene(mode: Any, sd: float = 0.0) -> EncodingScene:
    source = cohort()
    prepared = prepare(source, observed=mode)
    hidden = prepared.features if mode != "release" else prepared.features[:, :, :VARIABLES]
    noise = sd * np.random.default_rng(5).standard_normal(hidden.shape).astype(np.float32)
    shown = prepared.features[:, :, hidden.shape[2] :]
    spec = {"kind": "test", "public": True, "window": WINDOW, "axis": "time", "key_fingerprint": "0"}
    spec |= {"noise": {"kind": "gaussian", "noise_sd": sd}} if sd else {}
    encoded = dataclasses.replace(
        prepared,
        features=np.concatenate([projected(hidden) + noise, shown], axis=2),
        transforms=(*prepared.transforms, spec),
    )
    return encoding_scene(
        "encoded",
        "0" * 64,
        prepared=prepared,
        encoded=encoded,
        encode=projected,
        spec=spec,
        observed=source.observed,
        n_bootstrap=100,
    )


def test_stratified_auroc_by_hand() -> None:
    """Three stays, two cells; within a cell 1 of 2 pairs and a tie; a cell with one kind only counts nothing."""
    scores = np.array([[[0.1, 9]], [[0.3, 9]], [[0.2, 9]]])
    truth = np.array([[[False, True]], [[False, True]], [[True, True]]])
    pairs = stratified_auroc(scores, truth)
    assert pairs[:, 0, 0].tolist() == [1, 2]
    assert pairs[1, 0, 1] == 0
    tied = stratified_auroc(np.zeros((3, 1, 2)), truth)
    assert tied[:, 0, 0].tolist() == [1, 2]


def test_knowing_how_often_a_variable_is_measured_earns_nothing() -> None:
    """Scores that are each cell's true probability are chance, though their unstratified AUROC is well above."""
    truth = np.random.default_rng(0).uniform(size=(400, 3, 4)) < np.array([0.8, 0.5, 0.1])[None, :, None]
    scores = np.broadcast_to(truth.mean(axis=0), truth.shape)
    good, total = stratified_auroc(scores, truth).sum(axis=(1, 2))
    assert good / total == 0.5


def test_the_interval_weighs_subjects_and_holds_the_value() -> None:
    """With every stay counted once the weighted count is the plain one; subjects with many stays widen it."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(size=(60, 2, 3)) < 0.5
    scores = truth + rng.normal(size=truth.shape)
    alone = auroc_interval(scores, truth, np.arange(60), np.random.default_rng(1), 400)
    good, total = stratified_auroc(scores, truth).sum(axis=(1, 2))
    assert alone.value == good / total
    assert alone.low < alone.value < alone.high
    copies = np.repeat(np.arange(60), 4)
    four = auroc_interval(scores[copies], truth[copies], copies, np.random.default_rng(1), 400)
    careless = auroc_interval(scores[copies], truth[copies], np.arange(240), np.random.default_rng(1), 400)
    assert careless.high - careless.low < 0.7 * (four.high - four.low)


def test_cells_and_their_outputs() -> None:
    masks = np.zeros((1, 6, 2), bool)
    masks[0, 5, 1] = True
    assert in_cells(masks, 4).tolist() == [[[False], [False]]]
    assert in_cells(masks, 3).tolist() == [[[False, False], [False, True]]]
    encoded = np.arange(24, dtype=float).reshape(1, 4, 6)
    about = outputs_about(encoded, Layout(4, 6, 3, 3, "variables", 3), np.array([4]))
    assert about[0, 0, 1].tolist() == [9, 10, 11]  # step 1, second block of three
    over_time = outputs_about(encoded, Layout(4, 6, 2, 2, "time", 2), np.array([5]))
    assert over_time[0, 0].tolist() == [[5, 11], [17, 23]]


def test_a_change_is_a_change() -> None:
    outputs = np.zeros((4, 1, 3, 2))
    outputs[0, 0, 2] = 1
    scores = change_scores(outputs)
    assert scores["changed at all"][0, 0].tolist() == [0, 0, 1]
    assert not scores["change"][1:].any()


@pytest.mark.parametrize(("mode", "least"), [("drop", 0.9), ("encode", 0.99), ("release", 1.0)])
def test_dropping_the_masks_does_not_hide_them(mode: str, least: float) -> None:
    attack, given = MissingnessPattern(), scene(mode)
    assert attack.unsupported(given) is None
    results = attack.run(given, 0)
    assert results == attack.run(given, 0)
    assert [result.threat_model for result in results] == (["T0"] if mode == "release" else ["T0", "T4"])
    best = max(results, key=lambda result: result.rate)
    assert best.rate >= least
    for result in results:
        assert result.low <= result.rate <= result.high
        assert result.control is not None
        assert abs(result.control - 0.5) < 0.05
        assert result.controls_held
        assert not result.gates


def test_heavy_noise_hides_the_pattern() -> None:
    """The negative side: with noise a hundred times the signal nothing is left to tell."""
    for result in MissingnessPattern().run(scene("drop", sd=50.0), 0):
        assert result.low <= 0.52
        assert result.controls_held


def test_what_cannot_be_looked_for_has_a_reason() -> None:
    given = scene("drop")
    attack = MissingnessPattern()
    assert "not given" in str(attack.unsupported(dataclasses.replace(given, observed_targets=None)))
    odd = dataclasses.replace(given, encoded_targets=given.encoded_targets[:, :13])
    assert "window map" in str(attack.unsupported(odd))
    with pytest.raises(DataError, match="masks do not fit"):
        dataclasses.replace(given, observed_own=given.observed_targets[1:])  # type: ignore[index]


def test_released_masks_are_kept_apart_from_what_is_encoded() -> None:
    given = scene("release")
    assert given.channels == ("a", "b", "c")
    assert given.released is not None
    assert given.released.shape == given.encoded_targets.shape == given.targets.shape
    assert scene("encode").channels[-1] == "observed:c"


@pytest.mark.parametrize("mode", ["drop", "encode", "release"])
def test_card_and_report_tell_the_choice_in_one_sentence(mode: Any) -> None:
    """Three choices, three sentences; a preparation that records none gets none."""
    data = {"transforms": [{"kind": "missingness", "mode": mode, "public": True, "channels": []}], "arrays": {}}
    release = {"kind": "condensed", "starts_from_records": False, "options": {}}
    told = _limits_of_kind({"release": release, "data": data, "guarantee": None})
    silent = _limits_of_kind({"release": release, "data": {"transforms": [], "arrays": {}}, "guarantee": None})
    (sentence,) = set(told) - set(silent)
    assert sentence == MISSINGNESS[mode]
    assert sentence.count(".") == 1
    assert len({*MISSINGNESS.values()}) == 3
    assert views.MISSINGNESS is MISSINGNESS
    assert "not hide" in MISSINGNESS["drop"]
