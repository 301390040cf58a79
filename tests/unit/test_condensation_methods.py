"""Distribution matching, centroids and random stays on small synthetic cohorts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from condensation.coresets import Centroids, RandomReal
from condensation.distribution_matching import DistributionMatching, random_network_loss
from condensation.loop import Samples, class_batches
from pipeline.core.digest import digest_array
from pipeline.core.errors import ConfigError, DataError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance, Task

NOISE = NoiseSource(Secret(bytes(32), "noise"), "cohort")


def cohort(n: int = 60, n_tasks: int = 2) -> EncodedCohort:
    draws = np.random.default_rng(0)
    labels = np.stack([np.arange(n) % 2, (np.arange(n) // 2) % 2], axis=1).astype(np.float32)[:, :n_tasks]
    features = draws.uniform(0, 0.3, (n, 8, 3)) + 0.5 * labels[:, :1, None]
    return EncodedCohort(
        features=features.astype(np.float32),
        labels=labels,
        subject_index=np.arange(n, dtype=np.int32),
        split=np.zeros(n, np.int8),
        channels=("a", "b", "c"),
        tasks=tuple(Task(f"task{i}") for i in range(n_tasks)),
        step_hours=1.0,
        transforms=({"kind": "scaling", "public": True},),
        provenance=Provenance("test"),
    )


@pytest.mark.parametrize("match", ["embedding", "output"])
@pytest.mark.parametrize("network", ["tcn-a", "lstm-a", "vit-a"])
def test_every_published_network_moves_the_samples_and_nothing_else(match: str, network: str) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    condenser = DistributionMatching(match=match, networks=(network,), iterations=2, batch_size=8)  # type: ignore[arg-type]
    still = dataclasses.replace(condenser, iterations=0)
    moved = condenser.condense(cohort(), n_per_class=3, seed=0, noise=NOISE)
    unmoved = still.condense(cohort(), n_per_class=3, seed=0, noise=NOISE)
    step = np.abs(moved.features - unmoved.features)
    assert 0 < step.max() <= 2 * 1e-3 * 1.01  # Adam moves a coordinate by at most about its rate per step
    assert torch.equal(before, torch.random.get_rng_state())


def test_loss_is_the_squared_distance_of_class_means() -> None:
    part = torch.from_numpy(cohort().features[:6])

    def same_batches(step: int) -> list[Tensor]:
        return [part, part]

    def samples(one: Tensor, two: Tensor) -> Samples:
        return Samples(torch.cat([one, two]), torch.zeros(len(one) + len(two), 1))

    loss = random_network_loss(same_batches, (8, 3), ("tcn-a",), "embedding", 5, "cpu")
    assert float(loss(0, samples(part, part))) == pytest.approx(0.0, abs=1e-9)
    doubled = torch.cat([part, part])  # a mean does not see that every sample is there twice
    assert float(loss(0, samples(doubled, doubled))) == pytest.approx(0.0, abs=1e-9)
    assert float(loss(1, samples(part + 1, part))) > 1e-4
    assert float(loss(1, samples(part + 1, part))) == float(loss(1, samples(part + 1, part)))  # pure in the step


@pytest.mark.parametrize("name", ["published-tcn-a-quarter", "published-vit-a-quarter", "published-lstm-a-quarter"])
def test_a_class_is_matched_as_if_it_stood_alone(name: str) -> None:
    """One batch of both classes or two: neither statistics of batch norm nor means go over the other class."""
    ours, theirs = (torch.from_numpy(part) for part in np.split(cohort(24).features, 2))
    loss = random_network_loss(lambda step: [ours, theirs], (8, 3), (name,), "embedding", 5, "cpu")

    def of(one: Tensor, two: Tensor) -> float:
        return float(loss(0, Samples(torch.cat([one, two]), torch.zeros(len(one) + len(two), 1))))

    one, two, other_one, other_two = ours + 0.5, theirs + 0.5, 3 * ours.square(), 3 * theirs.square()
    both = of(one, two) + of(other_one, other_two)
    assert both > 1e-6
    assert of(one, other_two) + of(other_one, two) == pytest.approx(both, rel=1e-5)


def test_batches_hold_each_class_without_repetition_and_depend_on_the_step_alone() -> None:
    encoded = cohort()
    rows = [np.flatnonzero(encoded.labels[:, 0] == label) for label in (0, 1)]
    batches = class_batches(encoded, rows, 20, 3, "cpu")
    for label, batch in enumerate(batches(7)):
        place = {digest_array(series): row for row, series in enumerate(encoded.features)}
        found = [place[digest_array(series)] for series in batch.numpy()]
        assert len(set(found)) == 20
        assert set(encoded.labels[found, 0]) == {label}
    assert torch.equal(batches(7)[0], batches(7)[0])
    assert not torch.equal(batches(7)[0], batches(8)[0])
    assert [len(batch) for batch in class_batches(encoded, rows, 1000, 3, "cpu")(0)] == [30, 30]


def test_matching_brings_the_samples_closer() -> None:
    encoded = cohort()
    losses: list[float] = []
    DistributionMatching(
        networks=("tcn-a",), iterations=60, batch_size=30, learning_rate=0.02, initialisation="noise"
    ).condense(
        encoded,
        n_per_class=4,
        seed=0,
        noise=NOISE,
        on_step=lambda step, steps, value: losses.append(value),
    )
    assert len(losses) == 6
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("start", ["noise", "real", "centroids"])
def test_starting_from_records_is_said(start: str) -> None:
    found = DistributionMatching(initialisation=start, iterations=1, networks=("tcn-b",)).condense(  # type: ignore[arg-type]
        cohort(), n_per_class=3, seed=0, noise=NOISE
    )
    assert found.starts_from_records == (start != "noise")
    assert found.guarantee is None
    assert found.labels[:, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert np.isnan(found.labels[:, 1]).all() == (start == "noise")


def test_unknown_choices_are_refused() -> None:
    for options in ({"match": "logits"}, {"initialisation": "zero"}, {"networks": ("resnet",)}, {"networks": ()}):
        with pytest.raises(ConfigError):
            DistributionMatching(**options)  # type: ignore[arg-type]


def test_centroids_of_separated_clusters_are_their_means() -> None:
    encoded = cohort(8, 2)
    values = np.array([0, 0, 0, 0, 1, 1, 1, 1], dtype=np.float32)  # within each class, stays 0-3 and 4-7 apart
    encoded = dataclasses.replace(encoded, features=np.broadcast_to(values[:, None, None], (8, 8, 3)).copy())
    found = Centroids().condense(encoded, n_per_class=2, seed=0, noise=NOISE)
    assert sorted(found.features[:2, 0, 0].tolist()) == [0, 1]
    assert sorted(found.features[2:, 0, 0].tolist()) == [0, 1]
    # stays 0, 1, 2, 3 have second labels 0, 0, 1, 1, so a cluster of one class holds one of each
    assert found.labels[:, 1].tolist() == [0.5, 0.5, 0.5, 0.5]


def test_centroids_ignore_missing_labels_of_other_tasks() -> None:
    encoded = cohort(8, 2)
    labels = encoded.labels.copy()
    labels[:, 1] = np.nan
    found = Centroids().condense(dataclasses.replace(encoded, labels=labels), n_per_class=2, seed=0, noise=NOISE)
    assert np.isnan(found.labels[:, 1]).all()


def test_identical_stays_are_a_clear_error_for_k_means() -> None:
    encoded = cohort(20)
    same = dataclasses.replace(encoded, features=np.zeros_like(encoded.features))
    with pytest.raises(DataError, match="distinct"):
        Centroids().condense(same, n_per_class=3, seed=0, noise=NOISE)


def test_random_real_stays_are_real_distinct_and_keep_their_labels() -> None:
    encoded = cohort()
    found = RandomReal().condense(encoded, n_per_class=10, seed=4, noise=NOISE)
    place = {digest_array(series): row for row, series in enumerate(encoded.features)}
    rows = [place[digest_array(series)] for series in found.features]
    assert len(set(rows)) == 20
    np.testing.assert_array_equal(found.labels, encoded.labels[rows])
    assert found.starts_from_records
    other = RandomReal().condense(encoded, n_per_class=10, seed=5, noise=NOISE)
    assert digest_array(other.features) != digest_array(found.features)
