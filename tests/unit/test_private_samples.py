"""Samples drawn from moments: they carry the moments, their labels rank, their sizes and extremes hold."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from condensation.private.condenser import PrivateMoments, samples_from_moments
from condensation.private.feature_map import from_description
from condensation.private.moments import Standardiser, gains, release_moments, standardised
from pipeline.core.digest import digest_array
from pipeline.core.errors import ConfigError, DataError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.protocols import Condenser
from pipeline.core.types import EncodedCohort, Moments, Provenance, Task

NOISE = NoiseSource(Secret(bytes(range(32)), "noise"), "cohort")


def cohort(n: int = 4000, n_tasks: int = 2, seed: int = 0) -> EncodedCohort:
    """Task 0 shifts channel a, task 1 shifts the late half of channel b; values around the middle of [0, 1]."""
    draws = np.random.default_rng(seed)
    labels = (draws.uniform(size=(n, n_tasks)) < 0.3).astype(np.float32)
    features = 0.45 + 0.05 * draws.normal(size=(n, 1, 3)) + 0.02 * draws.normal(size=(n, 8, 3))
    features[:, :, 0] += 0.1 * labels[:, :1]
    if n_tasks > 1:
        features[:, 4:, 1] += 0.1 * labels[:, 1:2]
    return EncodedCohort(
        features=np.clip(features, 0, 1).astype(np.float32),
        labels=labels,
        subject_index=np.arange(n, dtype=np.int32),
        split=np.zeros(n, np.int8),
        channels=("a", "b", "c"),
        tasks=tuple(Task(f"task{i}") for i in range(n_tasks)),
        step_hours=1.0,
        transforms=({"kind": "scaling", "public": True},),
        provenance=Provenance("test"),
    )


def release(encoded: EncodedCohort, epsilon: float = 1.0, **options: float) -> Moments:
    return release_moments(encoded, epsilon=epsilon, delta=1e-6, noise=NOISE, **options)


def test_it_is_a_condenser() -> None:
    assert isinstance(PrivateMoments(), Condenser)


@pytest.mark.parametrize("n_per_class", [10, 200])
def test_class_means_of_the_samples_are_the_private_ones(n_per_class: int) -> None:
    released = release(cohort())
    found = samples_from_moments(released, n_per_class=n_per_class, seed=0)
    phi = from_description(released.feature_map)
    count, total, signed = released.gram[0, 0], released.gram[0, 1:], released.signed_sums[0]
    for label, sign in ((0, -1), (1, 1)):
        wanted = (total + sign * signed[1:]) / (count + sign * signed[0])
        part = phi.features(found.features[label * n_per_class : (label + 1) * n_per_class])
        np.testing.assert_allclose(part.mean(axis=0), wanted, atol=2e-3)


def test_pooled_covariance_of_many_samples_is_the_private_one_within_classes() -> None:
    released = release(cohort(n_tasks=1), epsilon=50.0)
    found = samples_from_moments(released, n_per_class=100, seed=0)
    phi = from_description(released.feature_map)
    covariances = [np.cov(phi.features(part).T, bias=True) for part in np.split(found.features, 2)]
    np.testing.assert_allclose(covariances[0], covariances[1], atol=3e-4)  # one shared covariance
    count, total, signed = released.gram[0, 0], released.gram[0, 1:], released.signed_sums[0]
    share = (count + signed[0]) / 2 / count
    low, high = (total - signed[1:]) / (count - signed[0]), (total + signed[1:]) / (count + signed[0])
    mean = total / count
    within = released.gram[1:, 1:] / count - np.outer(mean, mean)
    within -= share * (1 - share) * np.outer(high - low, high - low)
    np.testing.assert_allclose(covariances[0], within, atol=1e-3)


def test_private_moments_are_close_to_the_true_ones() -> None:
    encoded = cohort()
    released = release(encoded, epsilon=20.0, clip_norm=4.0)
    phi = from_description(released.feature_map)
    true = np.concatenate([np.ones((4000, 1)), phi.features(encoded.features)], axis=1)
    np.testing.assert_allclose(released.gram / 4000, true.T @ true / 4000, atol=0.02)
    signs = 2 * encoded.labels - 1
    np.testing.assert_allclose(released.signed_sums / 4000, signs.T @ true / 4000, atol=0.02)


def test_labels_rank_every_task() -> None:
    """A score learnt from the soft labels of 80 private samples at epsilon 1 tells the real classes apart."""
    test = cohort(seed=5)
    released = release(cohort())
    found = samples_from_moments(released, n_per_class=40, seed=0)
    phi = from_description(released.feature_map)
    x = phi.features(found.features)
    logits = np.log(found.labels / (1 - found.labels))
    for task in range(2):
        weights, *_ = np.linalg.lstsq(np.c_[np.ones(80), x], logits[:, task], rcond=None)
        scores = np.c_[np.ones(4000), phi.features(test.features)] @ weights
        assert roc_auc_score(test.labels[:, task], scores) > 0.85
    assert found.has_soft_labels


def test_shuffled_labels_teach_nothing() -> None:
    """The control of the test above: where labels are noise the private score must be at chance."""
    encoded = cohort()
    shuffled = dataclasses.replace(encoded, labels=np.random.default_rng(1).permutation(encoded.labels))
    released = release(shuffled)
    found = samples_from_moments(released, n_per_class=40, seed=0)
    phi = from_description(released.feature_map)
    logits = np.log(found.labels[:, 0] / (1 - found.labels[:, 0]))
    weights, *_ = np.linalg.lstsq(np.c_[np.ones(80), phi.features(found.features)], logits, rcond=None)
    test = cohort(seed=5)
    scores = np.c_[np.ones(4000), phi.features(test.features)] @ weights
    assert roc_auc_score(test.labels[:, 0], scores) < 0.85
    assert np.abs(logits).max() < 1.5  # and the labels say that little is known


def test_hard_labels_are_balanced_by_class() -> None:
    found = samples_from_moments(release(cohort()), n_per_class=7, seed=0, hard_labels=True)
    assert not found.has_soft_labels
    assert found.labels[:, 0].tolist() == [0.0] * 7 + [1.0] * 7


@pytest.mark.parametrize("n_per_class", [1, 2, 6, 7, 300])
def test_any_number_of_samples(n_per_class: int) -> None:
    found = samples_from_moments(release(cohort(500)), n_per_class=n_per_class, seed=0)
    assert found.features.shape == (2 * n_per_class, 8, 3)
    assert 0 <= found.features.min() <= found.features.max() <= 1


@pytest.mark.parametrize("epsilon", [1e-3, 100.0])
def test_extreme_budgets_stay_finite_and_in_range(epsilon: float) -> None:
    found = samples_from_moments(release(cohort(50), epsilon=epsilon), n_per_class=5, seed=0)
    assert 0 <= found.features.min() <= found.features.max() <= 1
    assert 0 < found.labels.min() <= found.labels.max() < 1


def test_encoded_series_live_in_minus_one_to_one() -> None:
    encoded = cohort()
    quantum = {"kind": "quantum", "public": True}
    wide = dataclasses.replace(
        encoded, features=(2 * encoded.features - 1).astype(np.float32), transforms=(*encoded.transforms, quantum)
    )
    found = samples_from_moments(release(wide), n_per_class=20, seed=0)
    assert found.features.min() < -0.05
    assert found.features.mean() == pytest.approx(wide.features.mean(), abs=0.1)


def test_refusals() -> None:
    released = release(cohort(50))
    with pytest.raises(ConfigError, match="n_per_class"):
        samples_from_moments(released, n_per_class=0, seed=0)
    with pytest.raises(ConfigError, match="clip_norm"):
        release(cohort(50), clip_norm=0.0)
    with pytest.raises(ConfigError, match="epsilon"):
        release(cohort(50), epsilon=0.0)
    mute = dataclasses.replace(released, guarantee=None)
    with pytest.raises(DataError, match="noise"):
        samples_from_moments(mute, n_per_class=1, seed=0)


def test_standardised_rows_never_pass_the_clip_norm() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 6)) * np.logspace(-6, 6, 200)[:, None]
    z = standardised(rows, Standardiser(np.zeros(6), np.ones(6)), 1.5)
    assert np.linalg.norm(z, axis=1).max() <= np.sqrt(1 + 1.5**2) * (1 + 1e-12)
    assert np.linalg.norm(z[0, 1:]) == pytest.approx(np.linalg.norm(rows[0]))  # short rows are left alone


def test_gains_make_the_mean_square_norm_one_and_believe_no_zero_variance() -> None:
    phi = from_description(release(cohort(20)).feature_map)
    variance = np.array([0.04, 0.02, 0.05, 0.03, 0.02, 0.06])
    gain = gains(variance, phi)
    assert np.sum(gain**2 * variance) == pytest.approx(1.0)
    assert np.isfinite(gains(np.zeros(6), phi)).all()
    assert np.isfinite(gains(-np.ones(6), phi)).all()


def test_many_chunks_give_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = release(cohort(500))
    monkeypatch.setattr("condensation.private.moments.CHUNK_STAYS", 7)
    assert digest_array(release(cohort(500)).gram) == digest_array(whole.gram)


def test_samples_need_nothing_of_the_provenance() -> None:
    """A receiver's copy has another provenance; what drawing needs travels with the moments and their guarantee."""
    encoded = cohort(500)
    condenser = PrivateMoments()
    released = condenser.release(encoded, noise=NOISE)
    received = dataclasses.replace(released, provenance=Provenance("receive"))
    one = samples_from_moments(received, n_per_class=5, seed=2)
    two = condenser.condense(encoded, n_per_class=5, seed=2, noise=NOISE)
    assert digest_array(one.features) == digest_array(two.features)
    assert digest_array(one.labels) == digest_array(two.labels)
