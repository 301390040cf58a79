"""What a stay adds to a stream: its norm, whatever it holds; and that the sums teach, on any rhythm of nights."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from condensation.private.stream.condenser import PrivateStream
from condensation.private.stream.nights import increment_of_night, night_of_stream
from condensation.private.stream.question import about, question_of
from condensation.private.stream.terms import Stream, nightly_answers
from condensation.private.teacher.logistic import linear_teacher
from pipeline.core.errors import ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.risk import teacher_risks
from pipeline.core.types import EncodedCohort, Provenance, Task

NOISE = NoiseSource(Secret(bytes(32), "noise"), "stream")


@dataclass(frozen=True)
class Night:
    night: int
    increment: np.ndarray
    digest: str


def cohort(
    features: np.ndarray, labels: np.ndarray, transforms: tuple[dict[str, object], ...] | None = None
) -> EncodedCohort:
    kinds = ("binary", "regression", "binary")
    return EncodedCohort(
        features=features.astype(np.float32),
        labels=labels.astype(np.float32),
        subject_index=np.arange(len(features), dtype=np.int32),
        split=np.zeros(len(features), np.int8),
        channels=tuple(f"channel{i}" for i in range(features.shape[2])),
        tasks=tuple(Task(f"task{i}", kind) for i, kind in zip(range(labels.shape[1]), kinds, strict=False)),  # type: ignore[arg-type]
        step_hours=1.0,
        transforms=({"kind": "public_ranges", "public": True},) if transforms is None else transforms,
        provenance=Provenance("test"),
    )


def patients(n: int, seed: int = 0) -> EncodedCohort:
    """Two channels of four say how likely the event is."""
    draws = np.random.default_rng(seed)
    level = draws.uniform(size=(n, 1, 4))
    features = np.clip(level + 0.05 * draws.normal(size=(n, 8, 4)), 0, 1)
    risk = 1 / (1 + np.exp(-(6 * (level[:, 0, 0] - level[:, 0, 1]) - 1)))
    return cohort(features, (draws.uniform(size=(n, 1)) < risk[:, None]).astype(float))


def year(stream: Stream, stays: EncodedCohort, nights: np.ndarray, secret: str = "") -> tuple[np.ndarray, list[Night]]:
    added: list[Night] = []
    for night in range(1, stream.horizon + 1):
        entrants = stays.take(np.flatnonzero(nights == night))
        increment = increment_of_night(stream, night, entrants, added, NOISE)
        added.append(Night(night, increment, sha256(f"{secret}{night}".encode()).hexdigest()))
    question = question_of(stays)
    asked = stream.question(about(stays))
    return nightly_answers(stream, stream.horizon, question.size, added, NOISE, asked), added


@pytest.mark.parametrize("tasks", [1, 3])
def test_no_stay_adds_more_than_a_norm_of_one(tasks: int) -> None:
    """2,400 adversarial stays: in and far out of range, constant, at the limits, any label, any weights before."""
    draws = np.random.default_rng(tasks)
    largest = 0.0
    for trial in range(24):
        size = (100, 6, int(draws.integers(1, 12)))
        features = draws.choice([0.0, 1.0, 0.5, -50.0, 1e6], size) if trial % 2 else draws.normal(size=size) * 3
        if trial % 3 == 0:
            features = np.repeat(features[:, :1], 6, axis=1)
        labels = draws.choice([0.0, 1.0, np.nan, 0.3], (100, tasks))
        question = question_of(cohort(features, labels))
        weights = draws.normal(size=(tasks, 1 + size[2])) * draws.choice([0.1, 3.0, 1e3])
        taught = linear_teacher(weights * draws.choice([1.0, 1e3]), np.zeros(size[2]), np.ones(size[2]))
        rows = np.stack(
            [
                question.added(features[one : one + 1], labels[one : one + 1], weights, taught)
                for one in range(len(features))
            ]
        )
        assert rows.shape == (100, question.size)
        norms = np.linalg.norm(rows, axis=1)
        assert norms.max() <= 1 + 1e-12
        largest = max(largest, float(norms.max()))
        assert np.allclose(question.added(features, labels, weights, taught), rows.sum(axis=0))  # stays add up
        assert not question.added(features[:0], labels[:0], weights, taught).any()
    assert largest > 0.9  # the bound is no waste


def test_a_stream_learns_what_its_stays_say_and_says_it_in_every_set() -> None:
    stays, others = patients(1500), patients(800, seed=1)
    stream = Stream(horizon=60, epsilon=50.0, delta=1e-6, clip=1.0)
    answers, added = year(stream, stays, np.arange(1500) % 60 + 1)
    question = question_of(stays)
    levels = question.channels.features(others.features)
    scores = [
        float(roc_auc_score(others.labels[:, 0], question.teacher(answers[:night]).logits(levels)[:, 0]))
        for night in (5, 60)
    ]
    assert scores[0] > 0.8
    assert scores[1] > 0.86
    statistics = question.statistics(answers[-1])
    assert np.allclose(statistics.level_mean, stays.features.mean(axis=(0, 1)), atol=0.05)
    share = question.event_shares(answers[-1], 1.0)
    assert share[0] == pytest.approx(float(stays.labels.mean()), abs=0.05)
    made = night_of_stream(stream, 60, stays, added, NOISE, n_per_class=100, seed=3)
    seen = question.channels.features(made.features)
    direction = seen.T @ (made.labels[:, 0] - 0.5)
    assert roc_auc_score(others.labels[:, 0], levels @ direction) > 0.8
    assert made.guarantee is not None
    assert (made.guarantee.epsilon, made.guarantee.unit) == (50.0, "stay")
    # the teacher that comes with the set is calibrated, and says how often events are
    assert made.teacher is not None
    assert made.teacher_features is not None
    risks = teacher_risks(others.features, made.teacher, made.teacher_features, made.channels)[:, 0]
    assert risks.mean() == pytest.approx(float(others.labels.mean()), abs=0.06)
    for part in np.array_split(np.argsort(risks), 4):
        assert risks[part].mean() == pytest.approx(float(others.labels[part, 0].mean()), abs=0.12)
    # an old night's set is what it was
    again = night_of_stream(stream, 5, stays, added[:5], NOISE, n_per_class=8, seed=3)
    late = night_of_stream(stream, 5, stays, added, NOISE, n_per_class=8, seed=3)
    assert np.array_equal(again.features, late.features)


@pytest.mark.parametrize("window", [None, 10])
def test_neither_a_backlog_nor_a_window_makes_the_weights_overshoot(window: int | None) -> None:
    """Thousands of stays on one night take a step of a few dozen; a window forgets and goes on teaching."""
    stays, others = patients(4000), patients(500, seed=1)
    stream = Stream(horizon=30, epsilon=50.0, delta=1e-6, clip=1.0, window=window)
    nights = np.where(np.arange(4000) < 3000, 1 + np.arange(4000) % 3, 1 + np.arange(4000) % 30)
    answers, _ = year(stream, stays, nights, f"{window}")
    question = question_of(stays)
    weights = question.weights(answers, window)
    assert np.abs(weights).max() < 60
    logits = question.teacher(answers, window).logits(question.channels.features(others.features))[:, 0]
    assert roc_auc_score(others.labels[:, 0], logits) > 0.85


def test_a_stream_of_nobody_has_sets_like_any_other() -> None:
    """An empty night, an empty stream: nothing fails, nothing differs but noise."""
    stays = patients(10)
    stream = Stream(horizon=3, epsilon=1.0, delta=1e-6, clip=1.0)
    _, added = year(stream, stays, np.zeros(10))
    for night in (1, 3):
        made = night_of_stream(stream, night, stays, added, NOISE, n_per_class=4, seed=0)
        assert np.isfinite(made.features).all()
        assert made.features.shape == (8, 8, 4)


def test_transforms_that_looked_at_patients_are_refused() -> None:
    stays = cohort(np.zeros((2, 4, 1)), np.zeros((2, 1)), ({"kind": "train_quantiles", "public": False},))
    with pytest.raises(ConfigError, match="every transform must be public"):
        PrivateStream().reserve(stays, NOISE)
    with pytest.raises(ConfigError, match="counted from 1"):
        night_of_stream(PrivateStream().stream, 0, patients(3), (), NOISE, n_per_class=1, seed=0)
