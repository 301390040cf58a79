"""Utility: metrics against scikit-learn and by hand, intervals, seeds, baselines, retention."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from reference import retention
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.types import EncodedCohort, Provenance, Split, Task, UtilityReport
from pipeline.probes.panel import fit_predict
from pipeline.validation.metrics import METRICS, auroc, calibration_error
from pipeline.validation.utility import (
    LARGE_SET_SAMPLES,
    LARGE_SET_SEEDS,
    TrainingSet,
    measure_utility,
    subject_weights,
)

TASKS = (Task("death"), Task("long_stay"))


def encoded(n: int, seed: int, tasks: tuple[Task, ...] = TASKS[:1], effect: float = 0.3) -> EncodedCohort:
    """Held-out stays, three per subject, whose first channel is `effect` higher for positives."""
    draw = np.random.default_rng(seed)
    labels = (draw.random((n, len(tasks))) < 0.3).astype(np.float32)
    features = draw.random((n, 6, 2), dtype=np.float32)
    features[:, :, 0] += effect * labels[:, :1]
    return EncodedCohort(
        features=features,
        labels=labels,
        subject_index=(np.arange(n) // 3).astype(np.int32),
        split=np.full(n, Split.HELD_OUT, np.int8),
        channels=("a", "b"),
        tasks=tasks,
        step_hours=1.0,
        transforms=(),
        provenance=Provenance("test"),
    )


def measured(sets: dict[str, TrainingSet], **changes: object) -> UtilityReport:
    options: dict[str, object] = {"models": ["logistic_regression"], "n_seeds": 3, "epochs": 1, "seed": 7, **changes}
    return measure_utility(sets, n_bootstrap=200, **options)  # type: ignore[arg-type]  # options vary by test


@pytest.mark.parametrize("ties", [False, True])
def test_metrics_agree_with_scikit_learn_weighted(ties: bool) -> None:
    draw = np.random.default_rng(1)
    truth = (draw.random(300) < 0.2).astype(float)
    scores = draw.random(300) * 0.7 + truth * 0.3
    if ties:
        scores = np.round(scores, 1)
    weights = draw.integers(0, 4, (3, 300)).astype(float)
    references = {"auroc": roc_auc_score, "auprc": average_precision_score, "brier": brier_score_loss}
    for name, reference in references.items():
        expected = [reference(truth, scores, sample_weight=row) for row in weights]
        assert METRICS[name](scores, truth, weights) == pytest.approx(expected, abs=1e-12)


def test_calibration_error_by_hand() -> None:
    scores, truth = np.array([0.1, 0.15, 0.9, 1.0]), np.array([0.0, 1.0, 1.0, 1.0])
    # bin [.1, .2): mean score .125, share .5; bin [.9, 1]: .95 and 1; half the stays in each
    assert calibration_error(scores, truth, np.ones((1, 4)))[0] == pytest.approx(0.5 * 0.375 + 0.5 * 0.05)
    assert np.isnan(auroc(scores, np.ones(4), np.ones((1, 4)))[0])


def test_bootstrap_moves_all_stays_of_a_subject_together() -> None:
    subjects = np.array([5, 5, 9, 5, 2], np.int32)
    weights = subject_weights(subjects, 50, np.random.default_rng(0))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 0] == weights[:, 3]).all()
    assert (weights[:, [0, 2, 4]].sum(axis=1) == 3).all()


def test_report_is_the_direct_computation_and_bit_identical() -> None:
    test, train = encoded(300, 1), encoded(80, 2)
    sets = {"condensed": TrainingSet("raw", train.features, train.labels, test)}
    report = measured(sets, models=["logistic_regression", "rnn-b"])
    assert report == measured(sets, models=["logistic_regression", "rnn-b"])
    rows = {(row.model, row.metric): row for row in report.scores}
    assert len(rows) == len(report.scores) == 2 * len(METRICS)
    direct = fit_predict("logistic_regression", train.features, train.labels, test.features, epochs=1, seed=0)
    logistic = rows["logistic_regression", "auroc"]
    assert logistic.mean == pytest.approx(roc_auc_score(test.labels[:, 0], direct[:, 0]))
    assert report.training == "1 epochs, but at least 90 and at most 400 steps of 64 samples"
    assert (logistic.n_seeds, logistic.seed_sd, logistic.n_test, logistic.n_samples) == (1, 0.0, 300, 80)
    assert rows["rnn-b", "auroc"].n_seeds == 3
    assert rows["rnn-b", "auroc"].seed_sd > 0
    assert all(row.low <= row.mean <= row.high for row in report.scores if row.metric != "calibration_error")


def test_with_real_tuning_stays_the_epoch_is_chosen_there_and_the_report_says_so() -> None:
    test, train, real = encoded(100, 1), encoded(80, 2), encoded(60, 3)
    fixed = {"c": TrainingSet("raw", train.features, train.labels, test)}
    chosen = {"c": TrainingSet("raw", train.features, train.labels, test, real)}
    models = ["logistic_regression", "rnn-b"]
    one, two = (measured(sets, models=models) for sets in (fixed, chosen))
    aurocs = [{row.model: row.mean for row in found.scores if row.metric == "auroc"} for found in (one, two)]
    assert aurocs[0]["logistic_regression"] == aurocs[1]["logistic_regression"]  # has no epochs
    assert aurocs[0]["rnn-b"] != aurocs[1]["rnn-b"]
    assert "needs real data" in two.training
    assert "needs real data" not in one.training
    other = dataclasses.replace(real, features=real.features[:, :-1])
    with pytest.raises(DataError, match="tuning stays"):
        measured({"c": TrainingSet("raw", train.features, train.labels, test, other)})


def test_interval_narrows_with_the_number_of_subjects() -> None:
    train = encoded(80, 2)
    widths = []
    for n in (150, 2400):
        row = measured({"c": TrainingSet("raw", train.features, train.labels, encoded(n, 3))}).score(
            "c", "logistic_regression", "auroc", "death"
        )
        assert row is not None
        widths.append(row.high - row.low)
    # sixteen times the subjects: a quarter of the width; 2.5 leaves room for bootstrap noise
    assert widths[0] / widths[1] > 2.5


def test_random_draws_are_taken_in_turn() -> None:
    test = encoded(200, 1)
    draws = [encoded(40, k, effect=0.5 * (k % 2)) for k in range(4)]
    sets = {
        "random_real_stays": TrainingSet("raw", tuple(d.features for d in draws), tuple(d.labels for d in draws), test),
        "one": TrainingSet("raw", draws[1].features, draws[1].labels, test),
    }
    report = measured(sets, n_seeds=4)
    several, one = (report.score(name, "logistic_regression", "auroc", "death") for name in sets)
    assert several is not None
    assert one is not None
    assert (several.n_seeds, one.n_seeds) == (4, 1)
    assert several.seed_sd > 0, "the draws differ, so must the scores"


def test_masked_test_labels_leave_the_task_and_large_sets_say_their_seeds() -> None:
    test = encoded(200, 1, TASKS)
    labels = test.labels.copy()
    labels[:50, 1] = np.nan
    test = dataclasses.replace(test, labels=labels)
    train = encoded(LARGE_SET_SAMPLES, 2, TASKS)
    report = measured({"full_data": TrainingSet("raw", train.features, train.labels, test)}, models=["rnn-b"])
    tested = {row.task: row.n_test for row in report.scores}
    assert tested == {"death": 200, "long_stay": 150}
    assert {row.n_seeds for row in report.scores} == {LARGE_SET_SEEDS}


def test_a_task_with_one_class_is_left_out_by_name() -> None:
    test, train = encoded(200, 1, TASKS), encoded(80, 2, TASKS)
    test.labels[:, 1] = 0
    report = measured({"c": TrainingSet("raw", train.features, train.labels, test)})
    assert {row.task for row in report.scores} == {"death"}
    assert report.interval.endswith("long_stay")


def test_retention_is_chance_corrected() -> None:
    test, train = encoded(300, 1), encoded(300, 2)
    sets = {
        "full_data": TrainingSet("raw", train.features, train.labels, test),
        "few": TrainingSet("raw", train.features[:20], train.labels[:20], test),
    }
    report = measured(sets)
    few, full = (report.score(name, "logistic_regression", "auroc", "death") for name in ("few", "full_data"))
    assert few is not None
    assert full is not None
    assert retention(report, "few", "logistic_regression", "death") == (few.mean - 0.5) / (full.mean - 0.5)
    assert retention(report, "few", "rnn-b", "death") is None


def test_what_cannot_be_measured_is_refused() -> None:
    test, train = encoded(60, 1), encoded(40, 2)
    with pytest.raises(ConfigError, match="no model named 'forest'"):
        measured({"c": TrainingSet("raw", train.features, train.labels, test)}, models=["forest"])
    with pytest.raises(DataError, match="do not fit"):
        measured({"c": TrainingSet("raw", train.features[:, :3], train.labels, test)})
    with pytest.raises(DataError, match="no held-out stay"):
        measured({"c": TrainingSet("raw", train.features, train.labels, test.part(Split.TRAIN))})
    with pytest.raises(DataError, match="both classes"):
        measured({"c": TrainingSet("raw", train.features, train.labels, encoded(1, 1))})
    with pytest.raises(DataError, match="draws"):
        measured({"c": TrainingSet("raw", (train.features,), (), test)})
