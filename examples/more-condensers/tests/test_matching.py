"""Characteristic-function, gradient and trajectory matching against their definitions on small data."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from more_condensers.characteristic_function import (
    CharacteristicFunction,
    characteristic,
    class_spectrum,
    spectrum_distance,
)
from more_condensers.gradient_matching import GradientMatching, class_gradients, gradient_distance
from more_condensers.trajectory_matching import TrajectoryMatching, trajectory_loss

from condensation.feature_pool import summaries, training_marks
from condensation.loop import Samples
from pipeline.core.errors import ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance, Task
from pipeline.probes.networks import build_network

NOISE = NoiseSource(Secret(bytes(32), "noise"), "cohort")


def cohort(n: int = 60) -> EncodedCohort:
    draws = np.random.default_rng(0)
    labels = (np.arange(n) % 3 == 0).astype(np.float32)[:, None]
    features = 0.4 + 0.1 * draws.normal(size=(n, 6, 2)) + 0.2 * labels[:, :, None]
    return EncodedCohort(
        features=features.clip(0, 1).astype(np.float32),
        labels=labels,
        subject_index=np.arange(n, dtype=np.int32),
        split=np.zeros(n, np.int8),
        channels=("a", "b"),
        tasks=(Task("task0"),),
        step_hours=1.0,
        transforms=({"kind": "scaling", "public": True},),
        provenance=Provenance("test"),
    )


def test_spectrum_distance_is_zero_for_equal_sets_and_half_the_squared_distance_at_one_half() -> None:
    draws = torch.Generator().manual_seed(0)
    one, other = (characteristic(torch.randn(50, 7, generator=draws)) for _ in range(2))
    assert float(spectrum_distance(one, one, 0.3)) == pytest.approx(0, abs=1e-5)
    # (|a| - |b|)^2 / 2 + |a||b|(1 - cos) = |a - b|^2 / 2
    assert float(spectrum_distance(one, other, 0.5)) == pytest.approx(
        float((one - other).abs().square().mean() / 2), abs=1e-5
    )
    turned = one * torch.exp(torch.tensor(0.7j))
    assert float(spectrum_distance(one, turned, 1.0)) == pytest.approx(0, abs=1e-5)  # amplitude alone is blind to it
    assert float(spectrum_distance(one, turned, 0.0)) > 0.01


def test_class_spectrum_sees_spread_that_a_mean_does_not() -> None:
    encoded = cohort()
    spectrum = class_spectrum(encoded, summaries, 64, np.random.default_rng(0), "cpu")
    events = torch.from_numpy(encoded.features[encoded.labels[:, 0] == 1])
    whole = characteristic(summaries(events) @ spectrum.frequencies)
    assert float(spectrum_distance(spectrum.real[1], whole, 0.5)) == pytest.approx(0, abs=1e-5)
    collapsed = characteristic(summaries(events).mean(0, keepdim=True) @ spectrum.frequencies)
    assert float(spectrum_distance(spectrum.real[1], collapsed, 0.5)) > 0.01


def test_class_gradients_are_the_mean_over_all_stays_of_the_class() -> None:
    encoded = cohort()
    network = build_network("tcn-b", n_channels=2, n_steps=6, n_tasks=1, seed=0).eval()
    events = torch.from_numpy(encoded.features[encoded.labels[:, 0] == 1])
    found = class_gradients(network, torch.split(events, 7), 1.0)
    value = F.binary_cross_entropy_with_logits(network(events)[:, 0], torch.ones(len(events)))
    for one, other in zip(found, torch.autograd.grad(value, list(network.parameters())), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_gradient_distance_sees_direction_per_unit_and_not_length() -> None:
    one = (torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([1.0, 1.0]))
    longer = tuple(3 * part for part in one)
    assert float(gradient_distance(one, longer)) == pytest.approx(0, abs=1e-6)
    turned = (torch.tensor([[0.0, 1.0], [0.0, 2.0]]), torch.tensor([-1.0, -1.0]))
    assert float(gradient_distance(one, turned)) == pytest.approx(0.5 + 2.0)


def test_a_student_on_the_real_stays_follows_the_expert_and_one_on_wrong_labels_does_not() -> None:
    encoded = cohort()
    trails = [training_marks(encoded, "tcn-b", [5, 5], 0.05, seed, "cpu") for seed in (1, 2)]
    student = build_network("tcn-b", n_channels=2, n_steps=6, n_tasks=1, seed=0).eval()
    loss = trajectory_loss(student, trails, 1, 2, seed=0)
    half = np.concatenate([np.flatnonzero(encoded.labels[:, 0] == label)[:20] for label in (0, 1)])  # as experts train
    features, labels = torch.from_numpy(encoded.features[half]), torch.from_numpy(encoded.labels[half])
    real, other = Samples(features, labels), Samples(features, 1 - labels)
    mean = {
        name: np.mean([float(loss(step, samples).detach()) for step in range(4)])
        for name, samples in (("real", real), ("other", other))
    }
    assert mean["real"] < 0.2 < 0.9 < mean["other"]
    assert float(loss(3, real).detach()) == float(loss(3, real).detach())


@pytest.mark.parametrize(
    "condenser",
    [
        CharacteristicFunction(maps=("tcn-b",), pool_size=2, iterations=60, learning_rate=0.01, initialisation="real"),
        GradientMatching(
            networks=("tcn-b",), pool_size=2, iterations=60, learning_rate=0.01, initialisation="real"
        ),
        TrajectoryMatching(
            iterations=60, learning_rate=0.01, experts=2, marks=2, mark_every=5, span=1, student_steps=1,
            initialisation="real",
        ),
    ],
    ids=["characteristic", "gradient", "trajectory"],
)  # fmt: skip
def test_every_method_lowers_its_loss_and_says_where_it_started(condenser: GradientMatching) -> None:
    losses: list[float] = []
    found = condenser.condense(
        cohort(), n_per_class=4, seed=0, noise=NOISE, on_step=lambda step, of, value: losses.append(value)
    )
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    assert found.starts_from_records
    assert found.guarantee is None
    assert found.labels[:, 0].tolist() == [0] * 4 + [1] * 4
    assert found.features.min() >= 0
    assert found.features.max() <= 1


@pytest.mark.parametrize("network", ["gru", "vit-b", "trsf-a"])
def test_second_derivatives_exist_for_every_kind_of_network(network: str) -> None:
    found = GradientMatching(networks=(network,), pool_size=1, iterations=2, training_steps=(0,)).condense(
        cohort(), n_per_class=2, seed=0, noise=NOISE
    )
    assert np.isfinite(found.features).all()


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (CharacteristicFunction, {"maps": ("resnet",)}),
        (CharacteristicFunction, {"amplitude_weight": 1.5}),
        (CharacteristicFunction, {"frequencies": 0}),
        (GradientMatching, {"networks": ()}),
        (GradientMatching, {"initialisation": "zero"}),
        (TrajectoryMatching, {"network": "resnet"}),
        (TrajectoryMatching, {"marks": 1, "span": 2}),
        (TrajectoryMatching, {"student_steps": 0}),
    ],
)
def test_unknown_choices_are_refused(method: type[GradientMatching], options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        method(**options)  # type: ignore[arg-type]
