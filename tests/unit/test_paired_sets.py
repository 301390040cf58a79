"""Paired comparison of training sets: what a copy, a good set and a useless one must look like."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.types import EncodedCohort, Provenance, Task
from pipeline.validation.paired import compare_sets

MODEL = "logistic_regression"


def stays(count: int, seed: int, *, strength: float = 2.0) -> EncodedCohort:
    """Two channels over three steps; the first one's level carries the label."""
    draws = np.random.default_rng(seed)
    labels = (draws.random(count) < 0.4).astype(np.float32)
    features = draws.normal(size=(count, 3, 2)).astype(np.float32)
    features[:, :, 0] += strength * labels[:, None]
    return EncodedCohort(
        features=features,
        labels=labels[:, None],
        subject_index=np.arange(count, dtype=np.int32),
        split=np.full(count, 2, np.int8),
        channels=("a", "b"),
        tasks=(Task("death"),),
        step_hours=1.0,
        transforms=(),
        provenance=Provenance("prepare"),
    )


TEST = stays(300, 0, strength=0.6)


def sets() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    good, noise = stays(200, 1, strength=0.6), stays(200, 2, strength=0.0)
    return {
        "own": (good.features, good.labels),
        "copy": (good.features.copy(), good.labels.copy()),
        "noise": (noise.features, noise.labels),
    }


def compared() -> dict[str, Any]:
    scores = compare_sets(sets(), "own", TEST, models=(MODEL,), n_seeds=1, epochs=5, seed=3, n_bootstrap=200)
    return {score.training_set: score for score in scores}


def test_a_copy_differs_by_exactly_nothing_and_noise_by_much() -> None:
    scores = compared()
    copy, noise, own = scores["copy"], scores["noise"], scores["own"]
    assert (copy.difference, copy.difference_low, copy.difference_high) == (0.0, 0.0, 0.0)
    assert copy.mean == own.mean
    assert own.low < own.mean < own.high
    assert noise.difference_high < 0  # shown to be worse
    assert (own.n_test, own.n_samples, own.n_trainings) == (300, 200, 1)


def test_the_same_seed_gives_the_same_figures() -> None:
    assert compared() == compared()


def test_a_difference_is_known_better_than_either_row() -> None:
    """The point of pairing: two sets of one source rank the same stays alike."""
    data = sets()
    other = stays(200, 5, strength=0.6)
    data = {"own": data["own"], "other": (other.features, other.labels)}
    scores = compare_sets(data, "own", TEST, models=(MODEL,), n_seeds=1, epochs=5, seed=3, n_bootstrap=200)
    found = next(score for score in scores if score.training_set == "other")
    assert found.difference_high - found.difference_low < 0.6 * (found.high - found.low)


def test_missing_labels_and_subjects_count_as_they_should() -> None:
    labels = TEST.labels.copy()
    labels[:50] = np.nan
    scores = compare_sets(
        sets(), "own", dataclasses.replace(TEST, labels=labels), models=(MODEL,), n_seeds=1, epochs=5, seed=3
    )
    assert {score.n_test for score in scores} == {250}


def test_what_cannot_be_compared_is_refused() -> None:
    kwargs = {"n_seeds": 1, "epochs": 1, "seed": 0}
    with pytest.raises(ConfigError, match="no model named"):
        compare_sets(sets(), "own", TEST, models=("nonsense",), **kwargs)
    with pytest.raises(DataError, match="there is no absent"):
        compare_sets(sets(), "absent", TEST, models=(MODEL,), **kwargs)
    one_class = dataclasses.replace(TEST, labels=np.zeros_like(TEST.labels))
    with pytest.raises(DataError, match="no task with both classes"):
        compare_sets(sets(), "own", one_class, models=(MODEL,), **kwargs)
    wide = {**sets(), "wide": (np.zeros((4, 3, 3), np.float32), np.zeros((4, 1), np.float32))}
    with pytest.raises(DataError, match="wide has other steps"):
        compare_sets(wide, "own", TEST, models=(MODEL,), **kwargs)
