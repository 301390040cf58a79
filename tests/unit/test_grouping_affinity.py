"""The factorised affinities against autograd, their identities, and what they must not depend on."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.special import expit

from pipeline.core.errors import DataError
from pipeline.core.seeds import generator
from pipeline.grouping.affinity.heads import one_step_heads
from pipeline.grouping.affinity.samplewise import label_hamming, samplewise_multihead, summarise
from pipeline.grouping.affinity.trunk import Trunk, activations, input_sizes, random_trunk, step_l1, trunk_deltas


def toy(n_stays: int = 60, n_features: int = 7, n_tasks: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    features = rng.standard_normal((n_stays, n_features))
    scores = features @ rng.standard_normal((n_features, n_tasks)) + rng.standard_normal((n_stays, n_tasks))
    return features, (scores > 0.3).astype(np.float64)


def autograd_gradient(
    trunk: Trunk, weights: np.ndarray, bias: float, inputs: np.ndarray, label: float, with_head: bool
) -> np.ndarray:
    """Flat gradient of one sample's cross-entropy: trunk weights and biases, and the head's if asked, by torch."""
    layers = [(torch.tensor(w, requires_grad=True), torch.zeros(len(w), dtype=torch.float64)) for w in trunk.weights]
    head = torch.tensor(weights, requires_grad=True)
    offset = torch.tensor(bias, dtype=torch.float64, requires_grad=True)
    hidden = torch.tensor(inputs)
    for matrix, shift in layers:
        shift.requires_grad_()
        hidden = torch.tanh(matrix @ hidden + shift)
    target = torch.tensor(label, dtype=torch.float64)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(head @ hidden + offset, target)
    loss.backward()
    parts = [p.grad for pair in layers for p in pair] + ([head.grad, offset.grad] if with_head else [])
    return torch.cat([p.reshape(-1) for p in parts if p is not None]).numpy()


def test_factorised_distance_is_autograds() -> None:
    """One-step optima of two tasks, all weights written out, against ||delta_s - delta_t||_1 (||a||_1 + 1)."""
    features, labels = toy(n_stays=6)
    trunk = random_trunk(features.shape[1], np.random.default_rng(0), hidden=(5, 4, 3))
    layers = activations(trunk, features)
    rng = np.random.default_rng(1)
    heads, biases = rng.standard_normal((labels.shape[1], 3)), rng.standard_normal(labels.shape[1])
    deltas = trunk_deltas(trunk, layers, heads, expit(layers[-1] @ heads.T + biases) - labels)
    for stay in range(len(features)):
        steps = [
            autograd_gradient(trunk, heads[t], biases[t], features[stay], labels[stay, t], False)
            for t in range(labels.shape[1])
        ]
        for s, t in combinations(range(labels.shape[1]), 2):
            short = step_l1(
                tuple(d[s, stay] - d[t, stay] for d in deltas), tuple(size[stay] for size in input_sizes(layers))
            )
            assert float(short) == pytest.approx(np.abs(steps[s] - steps[t]).sum(), rel=1e-10)


def test_multihead_affinity_is_gradient_descents_second_step() -> None:
    """Null-model heads, one small step of full-batch gradient descent, then per-stay trunk steps: all by autograd."""
    features, labels = toy(n_stays=40, n_tasks=3)
    labels[:5, 0] = np.nan
    labels[3:9, 2] = np.nan
    found = samplewise_multihead(features, labels, n_inits=2, seed=5)
    inputs = summarise(features)
    prevalence = np.nanmean(labels, axis=0)
    bias = np.log(prevalence / (1 - prevalence))
    expected = np.zeros((3, 3))
    for start in range(2):
        trunk = random_trunk(inputs.shape[1], generator(5, "grouping", "trunk", start))
        steps = np.full((3, len(inputs), sum(w.size + len(w) for w in trunk.weights)), np.nan)
        for t in range(3):
            stays = np.flatnonzero(np.isfinite(labels[:, t]))
            null = [autograd_gradient(trunk, np.zeros(64), bias[t], inputs[i], labels[i, t], True) for i in stays]
            assert max(np.abs(one[:-65]).max() for one in null) == 0  # the first step leaves the trunk where it is
            head = -1e-7 * np.mean(null, axis=0)[-65:-1]
            for i in stays:
                steps[t, i] = autograd_gradient(trunk, head, bias[t], inputs[i], labels[i, t], False)
        steps /= np.nanmean(np.abs(steps).sum(-1), axis=1)[:, None, None]
        for s, t in combinations(range(3), 2):
            expected[s, t] += np.nanmean(np.abs(steps[s] - steps[t]).sum(-1)) / 2
    np.testing.assert_allclose(found, expected + expected.T, rtol=1e-6)


def test_one_step_heads_are_class_mean_differences() -> None:
    embedding, labels = toy(n_stays=50, n_tasks=2)
    labels[:10, 1] = np.nan
    heads = one_step_heads(embedding, labels)
    known, y = embedding[10:], labels[10:, 1]
    share = y.mean()
    difference = known[y == 1].mean(0) - known[y == 0].mean(0)
    np.testing.assert_allclose(heads.weights[1], share * (1 - share) * difference, rtol=1e-10)
    np.testing.assert_allclose(heads.residuals[10:, 1], share - y)
    assert np.isnan(heads.residuals[:10, 1]).all()


def test_affinity_is_a_bounded_symmetric_distance_and_deterministic() -> None:
    features, labels = toy()
    first = samplewise_multihead(features, labels, n_inits=2, seed=1)
    again = samplewise_multihead(features, labels, n_inits=2, seed=1)
    other = samplewise_multihead(features, labels, n_inits=2, seed=2)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(first, first.T)
    assert np.diag(first).max() == 0
    assert first[np.triu_indices(4, 1)].min() > 0
    assert first.max() <= 2 + 1e-12  # the triangle inequality: every task's mean step has length 1


def test_equal_and_opposite_labels_have_no_distance() -> None:
    """The trunk has the same to learn from y and from 1 - y; the label control calls these two tasks opposites."""
    features, labels = toy()
    doubled = np.column_stack([labels[:, 0], labels[:, 0], 1 - labels[:, 0], labels[:, 1]])
    found = samplewise_multihead(features, doubled, n_inits=1, seed=0)
    assert found[0, 1] < 1e-12
    assert found[0, 2] < 1e-12
    assert found[0, 3] > 0.5
    assert label_hamming(doubled)[0, 2] == 1


def test_hamming_by_hand_with_missing_labels() -> None:
    nan = np.nan
    labels = np.array([[0, 0, nan], [1, 0, 1], [1, 1, 1], [0, 1, 0], [nan, 1, 1]])
    expected = np.array([[0, 2 / 4, 0 / 3], [2 / 4, 0, 2 / 4], [0 / 3, 2 / 4, 0]])
    np.testing.assert_allclose(label_hamming(labels), expected)


def test_summary_by_hand() -> None:
    series = np.array([[[0.0, 5.0], [2.0, 5.0]], [[1.0, 5.0], [1.0, 5.0]], [[3.0, 5.0], [5.0, 5.0]]])
    found = summarise(series)
    assert found.shape == (3, 10)  # 2 channels x (mean, deviation, minimum, maximum, last)
    mean = np.array([1.0, 1.0, 4.0])
    np.testing.assert_allclose(found[:, 0], (mean - 2.0) / mean.std())
    assert np.abs(found[:, 1::2]).max() == 0  # the second channel never varies


def test_what_has_no_affinity_is_refused() -> None:
    features, labels = toy()
    constant = labels.copy()
    constant[:, 1] = 0
    with pytest.raises(DataError, match="task 1 has fewer than two classes"):
        samplewise_multihead(features, constant, n_inits=1, seed=0)
    apart = labels.copy()
    apart[:30, 0] = np.nan
    apart[30:, 1] = np.nan
    with pytest.raises(DataError, match="tasks 0 and 1 share no stay"):
        label_hamming(apart)
    with pytest.raises(DataError, match="no feature varies"):
        samplewise_multihead(np.ones((60, 3)), labels, n_inits=1, seed=0)
