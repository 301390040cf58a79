"""Public channels, the process drawn from few statistics, placement and descent: pure functions that see no patient."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from condensation.private.channels import PublicChannels, public_channels
from condensation.private.placement import placed, pool_size
from condensation.private.process import draw_series
from condensation.private.process_statistics import (
    ProcessStatistics,
    row_length,
    statistic_rows,
    statistics_from_sums,
)
from condensation.private.teacher.logistic import (
    AVERAGED,
    CLIP_NORM,
    CONSTANT,
    ROUNDS,
    LogisticTeacher,
    calibrated,
    descend,
    gradient_parts,
    linear_teacher,
    shares_of_events,
    starting_logits,
)
from condensation.private.teacher.reliability import KNOTS, Reliability, calibrating, reliability_parts
from condensation.private.teacher.samples import samples_from_teacher

NAMES = ("hr", "creatinine", "vent", "age", "sex", "unit:a", "unit:b", "observed:hr", "observed:creatinine", "valid")
TRANSFORMS: tuple[dict[str, Any], ...] = (
    {
        "kind": "imputation",
        "public": True,
        "never_observed": {"hr": 80.0, "creatinine": 0.9, "vent": 0.0, "age": 65.0, "sex": 1.0, "unit": 2.0},
    },
    {
        "kind": "scaling",
        "public": True,
        "channels": list(NAMES),
        "low": [30, 0, 0, 15, 0, 0, 0, 0, 0, 0],
        "high": [180, 8, 1, 95, 1, 1, 1, 1, 1, 1],
        "units": ["/min", "mg/dL", "0 or 1", "years", "0 female, 1 male", *["0 or 1"] * 5],
        "plausible_low": [45, 0.4, 0, 18, 0, 0, 0, 0, 0, 0],
        "plausible_high": [320, 40, 1, 120, 1, 1, 1, 1, 1, 1],
        "static": ["age", "sex", "unit:a", "unit:b"],
    },
    {"kind": "missingness", "mode": "encode", "public": True, "channels": ["observed:hr", "observed:creatinine"]},
    {"kind": "lengths", "mode": "mask", "public": True, "channels": ["valid"]},
)
QUANTUM = {"kind": "quantum", "public": True}


def channels(transforms: tuple[dict[str, Any], ...] = TRANSFORMS, n_steps: int = 24) -> PublicChannels:
    return public_channels(NAMES, transforms, n_steps, 1.0)


def named(found: PublicChannels, kind: str) -> set[str]:
    return {name for name, chosen in zip(found.names, getattr(found, kind), strict=True) if chosen}


def statistics(**changed: float) -> ProcessStatistics:
    told = {"measured": 0.7, "level_mean": 0.4, "level_sd": 0.2, "trend_mean": 0.05, "trend_sd": 0.1, "own_sd": 0.08}
    return ProcessStatistics(**{name: np.full(len(NAMES), value) for name, value in (told | changed).items()})


def test_channels_are_described_by_public_rules() -> None:
    found = channels()
    assert named(found, "skewed") == {"creatinine"}  # 8 / 0.9 > 4, 180 / 80 < 4
    assert named(found, "held") == {"creatinine"}
    assert named(found, "static") == {"age", "sex", "unit:a", "unit:b"}
    assert named(found, "mask") == {"observed:hr", "observed:creatinine", "valid"}
    assert named(found, "binary") == {"vent", "sex", "unit:a", "unit:b", *named(found, "mask")}
    assert found.start[0] == pytest.approx((80 - 30) / 150)
    assert found.floor[0] == pytest.approx(0.1)  # plausible from 45 on
    assert found.digest() == channels().digest() != channels(n_steps=25).digest()


def test_nothing_is_known_after_an_encoding() -> None:
    found = channels((*TRANSFORMS, QUANTUM))
    assert (found.low, found.high) == (-1.0, 1.0)
    assert not any(named(found, kind) for kind in ("skewed", "held", "static", "mask", "binary"))
    assert np.isnan(found.start).all()


def test_the_log_scale_is_its_own_inverse_and_levels_are_means_of_the_last_quarter() -> None:
    found, values = channels(), np.random.default_rng(0).uniform(size=(50, len(NAMES)))
    np.testing.assert_allclose(found.linear(found.scaled(values)), values, atol=1e-12)
    series = np.random.default_rng(1).uniform(size=(5, 24, len(NAMES)))
    late = series[:, 18:].mean(axis=1)
    late[:, 1] = np.log(1 + 15 * late[:, 1]) / np.log(16)
    np.testing.assert_allclose(found.features(series), late - 0.5)


@pytest.mark.parametrize("n_steps", [1, 2, 7, 24])
@pytest.mark.parametrize("seed", range(5))
def test_every_drawn_cell_can_be_a_patients(n_steps: int, seed: int) -> None:
    """Whatever the statistics, noise included: plausible values, statics that stand still, categories that exclude."""
    found, draws = channels(n_steps=n_steps), np.random.default_rng(seed)
    wild = statistics_from_sums(found, 50.0, *(draws.normal(size=(2, row_length(found))) * 10 ** draws.uniform(-1, 4)))
    series = draw_series(found, wild, 60, seed)
    assert series.shape == (60, n_steps, len(NAMES))
    assert series.dtype == np.float32
    assert (series >= found.floor - 1e-6).all()
    assert (series <= found.ceiling + 1e-6).all()
    assert np.isin(series[:, :, found.binary], (0.0, 1.0)).all()
    assert np.ptp(series[:, :, found.static], axis=1).max() == 0
    assert (series[:, 0, 5:7].sum(axis=1) <= 1).all()
    assert np.diff(series[:, :, 9], axis=1).max(initial=0.0) <= 0  # a stay that ended does not come back


def test_the_process_gives_back_the_statistics_it_was_drawn_from() -> None:
    found = channels()
    asked = statistics(own_sd=0.02)
    rows = statistic_rows(found, draw_series(found, asked, 4000, 3))
    seen = statistics_from_sums(found, 4000, rows.sum(axis=0), (rows**2).sum(axis=0))
    np.testing.assert_allclose(seen.measured[:2], asked.measured[:2], atol=0.03)
    np.testing.assert_allclose(seen.level_mean[[0, 1, 3]], 0.4, atol=0.03)
    np.testing.assert_allclose(seen.level_sd[[0, 1, 3]], 0.2, atol=0.04)
    np.testing.assert_allclose(seen.level_mean[4:7], 0.4, atol=0.03)  # shares of 0/1 statics


def test_laboratory_values_stand_for_hours_and_an_unmeasured_variable_is_its_constant() -> None:
    found = channels()
    series = draw_series(found, statistics(), 400, 0)
    changes = (np.diff(series, axis=1) != 0).sum(axis=1)
    assert changes[:, 1].max() <= 24 // 8 + 1
    assert np.median(changes[:, 0]) > 15
    constant = np.isclose(series[:, :, :2], found.linear(found.start)[:2], atol=1e-6).all(axis=1)
    np.testing.assert_allclose(constant.mean(axis=0), 0.3, atol=0.07)
    masks = series[:, :, 7:9].max(axis=1)
    assert not masks[constant].any()  # a mask agrees with its variable


def test_same_seed_same_series_and_another_seed_others() -> None:
    found = channels()
    one, again, other = (draw_series(found, statistics(), 5, seed) for seed in (1, 1, 2))
    assert one.tobytes() == again.tobytes() != other.tobytes()


@pytest.mark.parametrize("n", [1, 2, 320, 2000])
def test_samples_lie_at_equal_steps_of_the_logit(n: int) -> None:
    logits = np.random.default_rng(0).normal(size=pool_size(n))
    chosen = placed(logits, n)
    assert len(set(chosen.tolist())) == n
    if n == 320:
        low, high = np.quantile(logits, [0.01, 0.99])
        steps = np.sort(logits[chosen])
        assert np.abs(steps - np.linspace(low, high, n)).max() < 0.2
        assert steps.std() > 1.2 * logits.std()


def test_all_alike_logits_are_placed_too() -> None:
    assert len(set(placed(np.zeros(3000), 320).tolist())) == 320


def test_descent_finds_a_logistic_regression() -> None:
    draws = np.random.default_rng(0)
    levels = draws.uniform(-0.5, 0.5, size=(4000, 5))
    truth = np.array([4.0, -3.0, 0.0, 2.0, 0.0])
    labels = (draws.uniform(size=4000) < expit(levels @ truth - 1.5)).astype(float)[:, None]
    gain = np.full(5, 1.5)
    z = np.c_[np.full(4000, CONSTANT), levels * gain]
    assert np.linalg.norm(z[:, 1:], axis=1).mean() < 1.2 * CLIP_NORM
    asked = []

    def ask(number: int, weights: np.ndarray) -> np.ndarray:
        asked.append(number)
        return gradient_parts(z, labels, weights, np.ones(4000), np.ones(1)).reshape(1, -1)

    found = linear_teacher(descend(ask, 4000, starting_logits(["binary"]), 5), np.zeros(5), gain)
    assert asked == list(range(ROUNDS))
    assert AVERAGED <= ROUNDS
    best = roc_auc_score(labels[:, 0], levels @ truth)
    assert roc_auc_score(labels[:, 0], found.logits(levels)[:, 0]) > best - 0.005
    share = shares_of_events(np.array([[labels.sum(), 4000 - labels.sum()]]), ["binary"], np.zeros(1))
    fitted = calibrated(found, levels, share, unknown(len(share)))
    assert expit(fitted.logits(levels)).mean() == pytest.approx(labels.mean(), abs=1e-3)


def unknown(n_tasks: int) -> Reliability:
    """Counts that noise hides altogether."""
    return Reliability(np.zeros((n_tasks, len(KNOTS), 2)), np.full(n_tasks, 1e6))


def test_a_missing_label_gives_no_gradient() -> None:
    z = np.random.default_rng(0).normal(size=(6, 3))
    labels = np.array([[0.0, np.nan], [1.0, 1.0]] * 3)
    weights, share = np.ones((2, 3)), np.ones(6)
    both = gradient_parts(z, labels, weights, share, np.ones(2)).reshape(2, 3)
    kept = gradient_parts(z[1::2], labels[1::2, 1:], weights[1:], share[1::2], np.ones(1))
    np.testing.assert_allclose(both[1], kept)
    nothing = gradient_parts(z, np.full((6, 2), np.nan), weights, share, np.ones(2))
    assert not nothing.any()


def test_a_handful_of_stays_states_no_prevalence() -> None:
    known = np.array([[3.0, 1.0], [-50.0, 20.0]])
    found = shares_of_events(known, ["binary", "regression"], np.array([40.0, 40.0]))
    assert found[0] == pytest.approx(expit(-1.8), abs=0.08)
    assert 0.01 <= found[1] <= 0.99
    np.testing.assert_allclose(shares_of_events(known * 1e4, ["binary"] * 2, np.ones(2)), [0.75, 0.01], atol=1e-3)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e6])
def test_labels_are_the_teachers_risks_and_the_first_task_is_balanced(scale: float) -> None:
    found = channels()
    coefficients = np.random.default_rng(0).normal(size=(3, len(NAMES))) * scale
    teacher = LogisticTeacher(coefficients, np.zeros(3))
    made = samples_from_teacher(
        found,
        statistics(),
        teacher,
        np.array([0.14, 0.3, 0.6]),
        unknown(3),
        kinds=["binary", "binary", "regression"],
        n=40,
        seed=0,
    )
    assert made.features.shape == (40, 24, len(NAMES))
    logits = made.teacher.logits(found.features(made.features))
    assert not made.label_shift[1:].any()
    logits = np.clip(logits - made.label_shift, -8, 8)
    np.testing.assert_allclose(made.labels, expit(logits), atol=1e-6)
    if scale == 1.0:
        assert 0.35 < made.labels[:, 0].mean() < 0.65
        assert made.labels[:, 1].mean() == pytest.approx(0.3, abs=0.1)
        assert made.labels[:, 2].mean() == pytest.approx(0.6, abs=0.1)
        again = made.teacher.score(found, made.features)
        np.testing.assert_allclose(again[:, 1:], made.labels[:, 1:], atol=1e-6)


def test_counts_around_knots_say_slope_and_intercept_of_a_teacher_that_is_too_sure() -> None:
    draws = np.random.default_rng(0)
    logits = draws.normal(-1.0, 2.0, size=(6000, 1))
    labels = (draws.uniform(size=logits.shape) < expit(0.7 * logits - 1.2)).astype(np.float32)
    share, sd = np.ones(len(logits)), 20.0
    parts = reliability_parts(logits, labels, share, np.ones(1))
    assert parts.sum() == pytest.approx(len(logits))
    sums = parts.reshape(1, len(KNOTS), 2)
    noisy = Reliability(sums + sd * draws.normal(size=sums.shape), np.full(1, sd))
    assert calibrating(noisy, 0, 0.0) == (pytest.approx(0.7, abs=0.1), pytest.approx(-1.2, abs=0.2))
    assert calibrating(unknown(1), 0, -3.0) == (pytest.approx(0.9, abs=0.01), pytest.approx(-3.0, abs=0.01))
    for rubbish in (np.full(sums.shape, -1e9), np.full(sums.shape, 1e9), 1e6 * draws.normal(size=sums.shape)):
        assert np.isfinite(calibrating(Reliability(rubbish, np.full(1, sd)), 0, 0.0)).all()


def test_statistics_are_finite_whatever_the_noise() -> None:
    found, draws = channels(), np.random.default_rng(0)
    for count in (-1e9, 0.0, 1.0, 1e9):
        seen = statistics_from_sums(found, count, *(draws.normal(size=(2, row_length(found))) * 1e6))
        assert all(np.isfinite(array).all() for array in vars(seen).values())
        assert all(dataclasses.is_dataclass(seen) and len(array) == len(NAMES) for array in vars(seen).values())
