"""The gradient bank against autograd, weight by weight and stay by stay, and what is read from it."""

import numpy as np
import pytest
import torch

from pipeline.core.errors import ConfigError, DataError
from pipeline.grouping.affinity.bank import fill_bank, sketch
from pipeline.grouping.affinity.bank_affinities import bootstrap, samplewise
from pipeline.grouping.affinity.taped import Tape, TapedTrunk

TRUNKS = ("mlp", "tcn", "gru")


def stays(n_stays: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Series and five tasks: 0, 1 and (opposite) 2 read channel 0; 3 and 4 read channel 1; some labels missing."""
    rng = np.random.default_rng(seed)
    series = rng.normal(size=(n_stays, 5, 3)).astype(np.float32)
    level = series.mean(axis=1) * np.sqrt(5)
    scores = level[:, [0, 0, 0, 1, 1]] * np.array([1, 1, -1, 1, 1])
    labels = (scores + 0.3 * rng.normal(size=scores.shape) > 0).astype(np.float32)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    return series, labels


def inputs_of(trunk: str, series: np.ndarray) -> np.ndarray:
    return series.mean(axis=1) if trunk == "mlp" else series


@pytest.mark.parametrize("trunk", TRUNKS)
def test_tapes_hold_every_samples_gradient(trunk: str) -> None:
    """Sum over positions of delta a^T, from one backward pass, is autograd's gradient of one stay by the weights."""
    series, _ = stays(6)
    network = TapedTrunk(trunk, 3, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    x = torch.tensor(inputs_of(trunk, series))
    head = torch.randn(network.n_units, generator=torch.Generator().manual_seed(1))
    embedding, tapes = network.run(x)
    outputs = [out for tape in tapes for out in tape.outputs]
    deltas = list(torch.autograd.grad(embedding, outputs, head.expand_as(embedding), retain_graph=True))
    for tape, weight, bias in zip(tapes, network.weights, network.biases, strict=True):
        own = [deltas.pop(0) for _ in tape.outputs]
        delta = torch.stack(own, dim=1) if len(own) > 1 else own[0].reshape(len(x), -1, own[0].shape[-1])
        for stay in range(len(x)):
            one = (network.run(x[stay : stay + 1])[0] @ head).sum()
            by_weight, by_bias = torch.autograd.grad(one, (weight, bias))
            torch.testing.assert_close(tape.inputs[stay].T @ delta[stay], by_weight, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(delta[stay].sum(dim=0), by_bias, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("positions", [1, 7])
def test_sketches_keep_inner_products(positions: int) -> None:
    """Mean over 200 draws of sketches within 5 standard errors of the exact product; a draw's deviation as stated."""
    draws = torch.Generator().manual_seed(0)
    inputs, delta = torch.randn(2, positions, 9, generator=draws), torch.randn(1, 2, positions, 6, generator=draws)
    ones = torch.cat([inputs, torch.ones(2, positions, 1)], dim=2)
    outer = (delta[0].transpose(1, 2) @ ones).flatten(1)
    exact, size = float(outer[0] @ outer[1]), 32
    found = torch.empty(200, 1, 2, size)
    for one in found:
        sketch(delta, Tape(inputs, ()), draws, one)
    products = np.array([float(one[0] @ one[1]) for one in found[:, 0]])
    assert abs(products.mean() - exact) < 5 * products.std() / np.sqrt(200)
    assert products.std() < 2 * float(outer[0].norm() * outer[1].norm()) * np.sqrt(2 / size)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_the_affinity_is_a_distance(trunk: str) -> None:
    series, labels = stays(400)
    bank = fill_bank(inputs_of(trunk, series), labels, np.arange(400), trunk=trunk, epochs=6, n_points=3, seed=0)  # type: ignore[arg-type]
    distance = samplewise(bank, np.ones(len(bank.stays)))
    np.testing.assert_allclose(distance, distance.T, atol=1e-9)
    assert not distance.diagonal().any()
    assert distance.min() >= 0


def test_weights_are_repeated_stays() -> None:
    """Counting a stay twice is having it twice."""
    series, labels = stays(40)
    bank = fill_bank(series.mean(axis=1), labels, np.arange(40), seed=0)
    rows = np.random.default_rng(0).integers(40, size=40).astype(np.int32)
    drawn = type(bank)(
        directions=bank.directions[:, :, rows],
        residuals=bank.residuals[:, :, rows],
        known=bank.known[:, rows],
        subjects=bank.subjects[rows],
        stays=bank.stays[rows],
    )
    one, other = samplewise(bank, bank.weights(rows)), samplewise(drawn, np.ones(40))
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_same_seed_same_bank_and_the_bootstrap_draws_patients() -> None:
    series, labels = stays(60)
    one, two = (fill_bank(series.mean(axis=1), labels, np.arange(60) // 2, max_stays=50, seed=3) for _ in range(2))
    assert one.directions.tobytes() == two.directions.tobytes()
    assert len(one.stays) == 50
    draws = bootstrap(one, n_draws=3, seed=0)
    assert draws.shape == (3, 5, 5)
    assert not np.allclose(draws[0], draws[1])


def test_what_cannot_be_banked_is_refused() -> None:
    series, labels = stays(20)
    with pytest.raises(ConfigError, match="no trunk is named"):
        fill_bank(series, labels, np.arange(20), trunk="vit", seed=0)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="two different labels"):
        fill_bank(series, np.ones((20, 2)), np.arange(20), trunk="tcn", seed=0)
