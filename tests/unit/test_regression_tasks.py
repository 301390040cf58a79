"""Numbers as labels: read in public limits, learnt as fractions, judged in their unit, kept by a private release."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import mean_absolute_error, r2_score

from condensation.coresets import Centroids
from condensation.private.condenser import PrivateMoments
from condensation.private.feature_map import LevelAndTrend
from condensation.private.moments import signed_labels
from pipeline.core.codec import from_plain, to_plain
from pipeline.core.errors import ConfigError, DataError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance, Split, Task
from pipeline.grouping.run import group_tasks
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare
from pipeline.ingest.mapping.label_source import LabelSource
from pipeline.ingest.mapping.load import load_mapping, parse_mapping
from pipeline.ingest.mapping.tasks import NumberRule, task_of
from pipeline.ingest.sources.readers import read_source
from pipeline.sharing.bundle.payload import data_description
from pipeline.validation.contracts import check_encoded
from pipeline.validation.metrics import REGRESSION_METRICS
from pipeline.validation.utility import TrainingSet, measure_utility

DAYS = Task("stay", "", "regression", 0.0, 30.0, "days")


def source(values: list[float | None]) -> LabelSource:
    none = np.zeros(0)
    stays = pl.DataFrame({"days": pl.Series(values, dtype=pl.Float64)})
    return LabelSource(stays, "test", none.astype(int), none.astype(int), none, none, ())


def cohort(n: int = 240, noise: float = 0.02, seed: int = 0) -> EncodedCohort:
    """Series whose level says the number; a binary first task that says nothing."""
    draws = np.random.default_rng(seed)
    level = draws.uniform(0.1, 0.9, n)
    features = level[:, None, None] + draws.normal(0, noise, (n, 12, 2))
    labels = np.stack([draws.integers(0, 2, n), level], axis=1)
    return EncodedCohort(
        features=features.clip(0, 1).astype(np.float32),
        labels=labels.astype(np.float32),
        subject_index=np.arange(n, dtype=np.int32),
        split=(np.arange(n) % 3).astype(np.int8),
        channels=("a", "b"),
        tasks=(Task("coin"), DAYS),
        step_hours=1.0,
        transforms=({"kind": "scaling", "public": True},),
        provenance=Provenance("test"),
    )


def test_a_number_is_scaled_by_its_limits_and_what_is_beyond_is_counted() -> None:
    rule = NumberRule("stay", "days", low=0, high=30, missing=(-1,), unit="days")
    found = rule.labels(source([0.0, 15.0, 45.0, -1.0, None, -2.0]))
    np.testing.assert_array_equal(found, [0, 0.5, 1, np.nan, np.nan, 0])
    assert rule.beyond(source([0.0, 15.0, 45.0, -1.0, None, -2.0])) == 2
    assert task_of(rule) == DAYS
    with pytest.raises(ConfigError, match="low must be smaller"):
        NumberRule("stay", "days", low=3, high=3)
    with pytest.raises(DataError, match="low must be smaller"):
        Task("stay", "", "regression", 1.0, 1.0)
    assert from_plain(Task, to_plain(DAYS)) == DAYS
    assert from_plain(Task, {"name": "old", "description": ""}) == Task("old")


def test_a_mapping_s_numbers_are_read_and_checked() -> None:
    raw: dict[str, Any] = {
        "variables": {"HR": {"unit": "/min", "plausible": [1, 300], "scale": [30, 180], "normal": 80}},
        "tasks": {"stay": {"kind": "number", "column": "days", "low": 0, "high": 30, "unit": "days"}},
    }
    (rule,) = parse_mapping(raw, "m", "m.toml", "0").tasks
    assert task_of(rule) == DAYS
    del raw["tasks"]["stay"]["high"]
    with pytest.raises(ConfigError, match="high"):
        parse_mapping(raw, "m", "m.toml", "0")


def test_metrics_are_those_of_scikit_learn_and_weights_repeat_stays() -> None:
    draws = np.random.default_rng(0)
    truth, scores = draws.uniform(0, 30, 50), draws.uniform(0, 30, 50)
    weights = draws.integers(0, 3, (4, 50)).astype(float)
    for name, theirs in (("r2", r2_score), ("mae", mean_absolute_error)):
        mine = REGRESSION_METRICS[name](scores, truth, weights)  # type: ignore[index]  # both names are metrics
        expected = [theirs(truth, scores, sample_weight=row) for row in weights]
        np.testing.assert_allclose(mine, expected, rtol=1e-9)
    flat = REGRESSION_METRICS["r2"](scores, np.ones(50), np.ones((1, 50)))
    assert np.isnan(flat).all()


@pytest.mark.parametrize("model", ["tcn", "logistic_regression", "gradient_boosting"])
def test_every_kind_of_model_learns_a_number_and_is_judged_in_its_unit(model: str) -> None:
    encoded = cohort()
    train, test = encoded.take(np.arange(160)), encoded.take(np.arange(160, 240))
    sets = {"real": TrainingSet("raw", train.features, train.labels, test)}
    report = measure_utility(sets, models=(model,), n_seeds=1, epochs=30, seed=0, n_bootstrap=50)
    found = {row.metric: row for row in report.scores if row.task == "stay"}
    assert set(found) == {"r2", "mae"}
    assert {row.metric for row in report.scores if row.task == "coin"} == {
        *("auroc", "auprc", "brier", "calibration_error")
    }
    # the level is uniform over 24 of 30 days: its mean absolute deviation is 6, its own mean's R2 is 0
    assert found["r2"].mean > 0.3
    assert 0 < found["mae"].mean < 5
    assert found["mae"].low < found["mae"].mean < found["mae"].high


def test_contracts_take_fractions_for_numbers_alone() -> None:
    encoded = cohort()
    assert check_encoded(encoded).success
    as_class = dataclasses.replace(encoded, tasks=(Task("coin"), Task("stay")))
    assert not check_encoded(as_class).success
    beyond = encoded.labels.copy()
    beyond[0, 1] = 1.2
    assert not check_encoded(dataclasses.replace(encoded, labels=beyond)).success


def test_a_manifest_says_what_labels_stand_for_and_says_no_more_of_classes() -> None:
    encoded = cohort()
    noise = NoiseSource(Secret(bytes(32), "noise"), "test")
    told = data_description(Centroids().condense(encoded, n_per_class=3, seed=0, noise=noise))["tasks"]
    assert told[0] == {"name": "coin", "description": ""}
    assert told[1] == {"name": "stay", "description": "", "kind": "regression", "low": 0, "high": 30, "unit": "days"}
    assert tuple(Task(**task) for task in told) == encoded.tasks


def test_one_number_moves_a_private_sum_no_further_than_a_class_does() -> None:
    """The account bounds |2y - 1| by 1: true of every label in [0, 1], and enforced for whatever else comes."""
    labels = np.array([[0.0], [0.3], [1.0], [7.0], [-3.0], [np.nan]])
    signs = signed_labels(labels)
    assert np.abs(signs).max() == 1
    np.testing.assert_allclose(signs[:, 0], [-1, -0.4, 1, 1, -1, 0])


def test_private_labels_of_a_number_are_its_regression_on_the_samples() -> None:
    """At a huge epsilon the label of a sample is what a linear fit of all stays says of it."""
    encoded = cohort(n=4000)
    noise = NoiseSource(Secret(bytes(32), "noise"), "test")
    found = PrivateMoments(epsilon=100.0).condense(encoded, n_per_class=60, seed=0, noise=noise)
    phi = LevelAndTrend(12, 2, 0.0, 1.0)
    real, drawn = phi.features(encoded.features), phi.features(found.features)
    fit, *_ = np.linalg.lstsq(np.c_[np.ones(len(real)), real], encoded.labels[:, 1], rcond=None)
    expected = np.c_[np.ones(len(drawn)), drawn] @ fit
    inside = (expected > 0) & (expected < 1)  # Gaussian samples of a uniform level reach beyond
    assert inside.mean() > 0.8
    # rows are clipped for the account, which bends a uniform level a little: the same order, nearly the same slope
    mine, fitted = found.labels[inside, 1], expected[inside]
    assert np.corrcoef(mine, fitted)[0, 1] > 0.99
    assert 0.8 < np.polyfit(fitted, mine, 1)[0] < 1.3
    assert np.unique(found.labels[:, 1]).size > 20


def test_hard_labels_round_classes_and_leave_numbers() -> None:
    from condensation.private.condenser import samples_from_moments

    noise = NoiseSource(Secret(bytes(32), "noise"), "test")
    moments = PrivateMoments(epsilon=10.0).release(cohort(), noise=noise)
    hard = samples_from_moments(moments, n_per_class=10, seed=0, hard_labels=True).labels
    assert set(np.unique(hard[:, 0])) == {0.0, 1.0}
    assert np.unique(hard[:, 1]).size > 2


def test_grouping_leaves_numbers_out_and_says_so() -> None:
    encoded = cohort(n=120)
    other = np.random.default_rng(1).integers(0, 2, (120, 1)).astype(np.float32)
    three = dataclasses.replace(
        encoded,
        labels=np.concatenate([encoded.labels, other], axis=1),
        tasks=(*encoded.tasks, Task("second")),
    )
    found = group_tasks(three, affinity="label_hamming", max_groups=2, n_inits=1, seed=0)
    assert set(found.tasks) == {"stay", "coin", "second"}  # numbers are grouped, too


@pytest.fixture(scope="module")
def real() -> EncodedCohort:
    """Embedded stays with two numbers: a score, and the length of stay."""
    n_stays = 1500
    built, report = build_cohort(
        read_source("embedded", sets=("a",), max_stays=n_stays),
        load_mapping("physionet2012"),
        step_hours=1.0,
        n_steps=48,
        tasks=("sofa", "length_of_stay"),
        split=np.where(np.arange(n_stays) < 1000, Split.TRAIN, Split.HELD_OUT).astype(np.int8),
    )
    assert any("length_of_stay beyond 0 to 30 days" in note for note in report.notes)
    assert report.prevalence == {}
    return prepare(built)


def test_real_stays_have_numbers_only_where_they_are_named(real: EncodedCohort) -> None:
    assert [task.kind for task in real.tasks] == ["regression", "regression"]
    known = real.labels[np.isfinite(real.labels[:, 0]), 0] * 24
    np.testing.assert_allclose(known, np.round(known), atol=1e-4)  # SOFA is a whole number of points
    mapping = load_mapping("physionet2012")
    assert sum(task_of(rule).kind == "regression" for rule in mapping.tasks) == 3


def test_a_model_trained_on_condensed_real_stays_tells_the_score_of_others(real: EncodedCohort) -> None:
    train, test = real.part(Split.TRAIN), real.part(Split.HELD_OUT)
    noise = NoiseSource(Secret(bytes(32), "noise"), "test")
    found = Centroids().condense(train, n_per_class=30, seed=0, noise=noise)
    sets = {"centroids": TrainingSet("raw", found.features, found.labels, test)}
    report = measure_utility(sets, models=("logistic_regression",), n_seeds=1, epochs=1, seed=0, n_bootstrap=100)
    score = report.score("centroids", "logistic_regression", "r2", "sofa")
    assert score is not None
    # the halves of the range are balanced in the set, so its mean is too high: R2 must still beat the plain mean's 0
    assert score.low > 0
