"""Standardised channels, matching in them, and Gaussian sets: scale, constants, moments and labels."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from condensation.class_gaussian import FEW_STAYS, SMALLEST_CLASS
from condensation.distribution_matching import DistributionMatching
from condensation.gaussian import Gaussian
from condensation.kernel_matching import KernelMatching
from condensation.standard import standard_of
from pipeline.core.errors import DataError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import CondensedSet, EncodedCohort, Provenance, Task

NOISE = NoiseSource(Secret(bytes(32), "noise"), "cohort")
NARROW = ("published-tcn-a-quarter", "rnn-b")


def cohort(n: int = 60, tasks: tuple[Task, ...] = (Task("death"),)) -> EncodedCohort:
    """Four channels of which the last is constant; odd stays lie .2 higher and rise together over time."""
    draws = np.random.default_rng(0)
    labels = draws.choice([0.0, 1.0], (n, len(tasks)), p=[0.8, 0.2]).astype(np.float32)
    labels[:, 0] = np.arange(n) % 2
    slope = draws.normal(size=(n, 1, 1)) * np.linspace(0, 0.2, 6)[:, None]
    features = 0.4 + 0.2 * labels[:, :1, None] + slope + draws.normal(0, 0.05, (n, 6, 4))
    features[:, :, 3] = 0.3
    return EncodedCohort(
        features=features.astype(np.float32),
        labels=labels,
        subject_index=np.arange(n, dtype=np.int32),
        split=np.zeros(n, np.int8),
        channels=("a", "b", "c", "constant"),
        tasks=tasks,
        step_hours=1.0,
        transforms=({"kind": "scaling", "public": True},),
        provenance=Provenance("test"),
    )


def matched(encoded: EncodedCohort, **options: Any) -> CondensedSet:
    settings: dict[str, Any] = {"networks": NARROW, "iterations": 8, "batch_size": 20, "initialisation": "noise"}
    return DistributionMatching(**{**settings, **options}).condense(encoded, n_per_class=3, seed=0, noise=NOISE)


def gaussian(encoded: EncodedCohort, n_per_class: int = 40, seed: int = 0) -> CondensedSet:
    return Gaussian().condense(encoded, n_per_class=n_per_class, seed=seed, noise=NOISE)


def test_standardised_channels_have_mean_0_and_deviation_1_and_come_back() -> None:
    encoded = cohort()
    standard = standard_of(encoded)
    z = standard.z(torch.from_numpy(encoded.features)).numpy()
    np.testing.assert_allclose(z.mean(axis=(0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(axis=(0, 1)), [1, 1, 1, 0], atol=1e-5)
    np.testing.assert_allclose(standard.series(z), encoded.features, atol=1e-6)


@pytest.mark.parametrize("start", ["noise", "real", "centroids", "gaussian"])
def test_matching_in_z_does_not_depend_on_a_channels_unit(start: str) -> None:
    """Another unit of every channel gives the same set in that unit; in the cohort's own scale it does not."""
    encoded = cohort()
    factor, shift = np.array([40, 3, 0.5, 2], np.float32), np.array([-7, 100, 0, 1], np.float32)
    other = dataclasses.replace(encoded, features=encoded.features * factor + shift)
    one, two = matched(encoded, initialisation=start), matched(other, initialisation=start)
    spread = factor * encoded.features.std()
    if start != "centroids":  # k-means clusters otherwise in another unit
        np.testing.assert_allclose((two.features - one.features * factor - shift) / spread, 0, atol=2e-3)
    raw, other_raw = (matched(c, scale="cohort", initialisation=start).features for c in (encoded, other))
    assert np.abs((other_raw - raw * factor - shift) / spread).max() > 2e-3


def test_matching_in_z_starts_and_steps_in_the_datas_deviations_and_leaves_constants() -> None:
    encoded = cohort(200)
    standard = standard_of(encoded)
    start = matched(encoded, iterations=0)
    z = standard.z(torch.from_numpy(start.features)).numpy()[:, :, :3]
    assert 0.8 < z.std() < 1.2
    moved = matched(encoded, iterations=2, learning_rate=0.01)
    steps = np.abs(moved.features - start.features) / np.where(standard.sd > 0, standard.sd, 1)
    assert 0.01 < steps.max() < 0.0202
    np.testing.assert_allclose(moved.features[:, :, 3], encoded.features[0, 0, 3], atol=1e-6)
    wild = matched(encoded, iterations=0, scale="cohort")
    assert wild.features[:, :, :3].std() > 4 * encoded.features[:, :, :3].std()


def test_an_annealed_rate_falls_to_nothing() -> None:
    encoded = cohort()
    start = matched(encoded, iterations=0).features
    rate = 0.01
    paths = {}
    for anneal in (False, True):
        moved = matched(encoded, iterations=4, learning_rate=rate, anneal=anneal, networks=("rnn-b",)).features
        paths[anneal] = float((np.abs(moved - start) / standard_of(encoded).sd.clip(1e-6)).max())
    assert paths[True] < 2.52 * rate < paths[False] < 4.01 * rate  # 1 + .85 + .5 + .15 rates against four


def test_gaussian_samples_have_their_classs_mean_exactly_and_its_covariance_in_expectation() -> None:
    encoded = cohort(90)
    found = gaussian(encoded, 4_000)
    for label, part in enumerate(np.split(found.features, 2)):
        stays = encoded.features[encoded.labels[:, 0] == label].reshape(-1, 24)
        samples = part.reshape(-1, 24)
        np.testing.assert_allclose(samples.mean(axis=0), stays.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(np.cov(samples.T), np.cov(stays.T, bias=True), atol=0.1 * stays.var())
    assert found.guarantee is None
    few = gaussian(encoded, 1).features  # one sample says the mean and nothing else
    np.testing.assert_allclose(few[1], encoded.features[1::2].mean(axis=0), atol=1e-5)


def test_gaussian_labels_are_hard_keep_their_share_and_go_with_the_series() -> None:
    tasks = (Task("death"), Task("late"), Task("days", "", "regression", 0.0, 30.0, "days"), Task("unknown"))
    encoded = cohort(400, tasks)
    labels = encoded.labels.copy()
    rise = encoded.features[:, -1, 0] - encoded.features[:, 0, 0]
    labels[:, 1] = rise > np.quantile(rise, 0.7)
    labels[::3, 1] = np.nan
    labels[:, 2] = 0.5 + 0.4 * rise
    labels[:, 3] = np.nan
    found = gaussian(dataclasses.replace(encoded, labels=labels), 2_000)
    assert found.labels[:, 0].tolist() == [0] * 2_000 + [1] * 2_000
    late, days = found.labels[:, 1], found.labels[:, 2]
    assert set(np.unique(late)) == {0, 1}
    assert abs(late.mean() - 0.3) < 0.06
    drawn = found.features[:, -1, 0] - found.features[:, 0, 0]
    assert np.corrcoef(drawn, late)[0, 1] > 0.4
    np.testing.assert_allclose(days, 0.5 + 0.4 * drawn, atol=1e-5)  # linear in the stays, so linear in the samples
    assert np.isnan(found.labels[:, 3]).all()


def test_a_teachers_labels_say_how_ill_a_gaussian_sample_is_and_move_no_series() -> None:
    """The odds are those of the stays over their prevalence's: a level that says nothing is labelled one half."""
    encoded = cohort(600, (Task("death"), Task("late"), Task("unknown")))
    draws = np.random.default_rng(0)
    features = draws.normal(0.5, 0.1, size=encoded.features.shape).astype(np.float32)
    level = draws.normal(0.5, 0.1, size=len(features)).astype(np.float32)
    features[:, :, 0] = level[:, None]
    chance = 1 / (1 + np.exp(2 - 20 * (level - 0.5)))
    labels = np.stack([draws.random(len(level)) < chance, draws.random(len(level)) < 0.2, np.full(len(level), np.nan)])
    encoded = dataclasses.replace(encoded, features=features, labels=labels.T.astype(np.float32))
    taught = Gaussian(labels="teacher").condense(encoded, n_per_class=200, seed=0, noise=NOISE)
    hard = gaussian(encoded, 200)
    assert taught.features.tobytes() == hard.features.tobytes()
    assert taught.provenance.config["labels"] == "teacher"
    assert np.corrcoef(taught.features[:, 0, 0], taught.labels[:, 0])[0, 1] > 0.8
    assert abs(np.median(taught.labels[:, 0]) - 0.5) < 0.2
    assert abs(taught.labels[:, 1].mean() - 0.2) < 0.1  # keeps its prevalence
    assert np.isnan(taught.labels[:, 2]).all()
    again = Gaussian(labels="teacher").condense(encoded, n_per_class=200, seed=0, noise=NOISE)
    assert again.labels.tobytes() == taught.labels.tobytes()


@pytest.mark.parametrize("start", ["gaussian", "noise", "real", "centroids"])
def test_gaussian_draws_of_few_stays_count_as_made_of_records(start: str) -> None:
    for n, few in ((2 * FEW_STAYS, False), (2 * FEW_STAYS - 1, True)):
        told = start in ("real", "centroids") or (start == "gaussian" and few)
        options: dict[str, Any] = {"initialisation": start, "iterations": 0}
        for condenser in (DistributionMatching(**options), KernelMatching(**options, maps=("summaries",), pool_size=1)):
            assert condenser.condense(cohort(n), n_per_class=2, seed=0, noise=NOISE).starts_from_records == told
        assert gaussian(cohort(n), 2).starts_from_records == few


def test_a_class_of_few_stays_is_no_gaussian() -> None:
    encoded = cohort(2 * SMALLEST_CLASS)
    assert gaussian(encoded, 30).features.shape == (60, 6, 4)
    with pytest.raises(DataError, match=rf"class 1 .* needs {SMALLEST_CLASS}"):
        gaussian(encoded.take(np.arange(2 * SMALLEST_CLASS - 1)), 2)
