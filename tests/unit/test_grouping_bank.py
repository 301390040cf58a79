"""The gradient bank against autograd, weight by weight and stay by stay, and what is read from it."""

import numpy as np
import pytest
import torch

from pipeline.core.errors import DataError
from pipeline.grouping.affinity.bank import MAX_STAYS, Trunk, fill_bank, samplewise, sketch


def stays(n_stays: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Series and five tasks: 0, 1 and (opposite) 2 read channel 0; 3 and 4 read channel 1; some labels missing."""
    rng = np.random.default_rng(seed)
    series = rng.normal(size=(n_stays, 5, 3)).astype(np.float32)
    level = series.mean(axis=1) * np.sqrt(5)
    scores = level[:, [0, 0, 0, 1, 1]] * np.array([1, 1, -1, 1, 1])
    labels = (scores + 0.3 * rng.normal(size=scores.shape) > 0).astype(np.float32)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    return series, labels


def test_layers_hold_every_samples_gradient() -> None:
    """delta a^T, from one backward pass, is autograd's gradient of one stay by the weights."""
    x = torch.tensor(stays(6)[0].mean(axis=1))
    network = Trunk(3, torch.Generator().manual_seed(0))
    head = torch.randn(64, generator=torch.Generator().manual_seed(1))
    embedding, layers = network.run(x)
    deltas = torch.autograd.grad(embedding, [out for _, out in layers], head.expand_as(embedding), retain_graph=True)
    for (inputs, _), delta, weight, bias in zip(layers, deltas, network.weights, network.biases, strict=True):
        for stay in range(len(x)):
            one = (network.run(x[stay : stay + 1])[0] @ head).sum()
            by_weight, by_bias = torch.autograd.grad(one, (weight, bias))
            torch.testing.assert_close(torch.outer(inputs[stay], delta[stay]), by_weight, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(delta[stay], by_bias, atol=1e-5, rtol=1e-4)


def test_sketches_keep_inner_products() -> None:
    """Mean over 200 draws of sketches within 5 standard errors of the exact product; a draw's deviation as stated."""
    draws = torch.Generator().manual_seed(0)
    inputs, delta = torch.randn(2, 9, generator=draws), torch.randn(1, 2, 6, generator=draws)
    outer = (delta[0][:, :, None] * torch.cat([inputs, torch.ones(2, 1)], dim=1)[:, None]).flatten(1)
    exact, size = float(outer[0] @ outer[1]), 32
    found = torch.empty(200, 1, 2, size)
    for one in found:
        sketch(inputs, delta, draws, one)
    products = np.array([float(one[0] @ one[1]) for one in found[:, 0]])
    assert abs(products.mean() - exact) < 5 * products.std() / np.sqrt(200)
    assert products.std() < 2 * float(outer[0].norm() * outer[1].norm()) * np.sqrt(2 / size)


def test_the_affinity_is_a_distance() -> None:
    series, labels = stays(400)
    bank = fill_bank(series.mean(axis=1), labels, epochs=6, n_points=3, seed=0)
    distance = samplewise(bank, np.ones(len(bank.stays)))
    np.testing.assert_allclose(distance, distance.T, atol=1e-9)
    assert not distance.diagonal().any()
    assert distance.min() >= 0


def test_weights_are_repeated_stays() -> None:
    """Counting a stay twice is having it twice."""
    series, labels = stays(40)
    bank = fill_bank(series.mean(axis=1), labels, seed=0)
    rows = np.random.default_rng(0).integers(40, size=40).astype(np.int32)
    drawn = type(bank)(
        directions=bank.directions[:, :, rows],
        residuals=bank.residuals[:, :, rows],
        known=bank.known[:, rows],
        stays=bank.stays[rows],
    )
    one, other = samplewise(bank, bank.weights(rows)), samplewise(drawn, np.ones(40))
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_same_seed_same_bank_of_so_many_stays() -> None:
    series, labels = stays(MAX_STAYS + 10)
    one, two = (fill_bank(series.mean(axis=1), labels, seed=3) for _ in range(2))
    assert one.directions.tobytes() == two.directions.tobytes()
    assert len(one.stays) == MAX_STAYS


def test_what_cannot_be_banked_is_refused() -> None:
    with pytest.raises(DataError, match="two different labels"):
        fill_bank(stays(20)[0].mean(axis=1), np.ones((20, 2)), seed=0)
