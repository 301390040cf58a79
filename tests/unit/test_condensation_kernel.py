"""Feature pools, the teacher and kernel-ridge matching against what the definitions say on small data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from condensation import feature_pool
from condensation.feature_pool import SUMMARIES, balanced_targets, build_pool, chosen_stays, summaries
from condensation.kernel_loss import kernel_ridge_loss, spread_loss, unexplained_share
from condensation.kernel_matching import KernelMatching
from condensation.loop import Samples
from condensation.teacher import RIDGE, Teacher, ridge_weights
from pipeline.core.digest import digest_array
from pipeline.core.errors import ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance, Task
from pipeline.probes.classical import summary_features

NOISE = NoiseSource(Secret(bytes(32), "noise"), "cohort")
FAST = {"maps": ("tcn-b", SUMMARIES), "pool_size": 4, "iterations": 30}


def cohort(n: int = 120, seed: int = 0) -> EncodedCohort:
    """Task 0: the level of channel 0, one event in four; task 1: channel 1's trend, partly missing; task 2: a share."""
    draws = np.random.default_rng(seed)
    features = 0.5 + 0.1 * draws.normal(size=(n, 6, 3))
    level, trend = draws.normal(size=n), draws.normal(size=n)
    features[:, :, 0] += 0.1 * level[:, None]
    features[:, :, 1] += 0.1 * trend[:, None] * np.linspace(-1, 1, 6)
    labels = np.stack([level > np.quantile(level, 0.75), trend > 0, (level + 4) / 8], axis=1).astype(np.float32)
    labels[::7, 1] = np.nan
    return EncodedCohort(
        features=features.clip(0, 1).astype(np.float32),
        labels=labels,
        subject_index=np.arange(n, dtype=np.int32),
        split=np.zeros(n, np.int8),
        channels=("a", "b", "c"),
        tasks=(Task("level"), Task("trend"), Task("share")),
        step_hours=1.0,
        transforms=({"kind": "scaling", "public": True},),
        provenance=Provenance("test"),
    )


def test_weights_balance_the_classes_of_binary_tasks_and_leave_missing_labels_out() -> None:
    encoded = cohort()
    targets = balanced_targets(encoded.labels)
    known = np.isfinite(encoded.labels)
    assert targets.binary.tolist() == [True, True, False]
    np.testing.assert_allclose(targets.weights.sum(0), 1)
    np.testing.assert_allclose((targets.weights * targets.values).sum(0), 0, atol=1e-12)
    assert (targets.weights.numpy()[~known] == 0).all()
    for task in (0, 1):
        assert targets.weights[encoded.labels[:, task] == 1, task].sum() == pytest.approx(0.5)
    np.testing.assert_allclose(targets.centre, [0.5, 0.5, encoded.labels[:, 2].mean()], rtol=1e-6)
    assert targets.prior_logits[0] == 0
    share = np.nanmean(encoded.labels[:, 1])
    assert targets.prior_logits[1] == pytest.approx(np.log(share / (1 - share)), rel=1e-5)


def test_a_task_without_a_label_or_without_one_class_does_no_harm() -> None:
    labels = np.array([[0, np.nan, 1], [1, np.nan, 1]], dtype=np.float32)
    targets = balanced_targets(labels)
    assert targets.weights.sum(0).tolist() == [1, 0, 1]
    assert targets.values[:, 1:].abs().sum() == 0


@pytest.mark.parametrize("chunk", [7, 512])
def test_moments_equal_the_sums_over_all_stays(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(feature_pool, "CHUNK_STAYS", chunk)
    encoded = cohort()
    targets = balanced_targets(encoded.labels)
    for one in build_pool(encoded, ("lstm-b", SUMMARIES), 2, seed=3, device="cpu"):
        z = one(torch.from_numpy(encoded.features)).detach()
        w, t = targets.weights, targets.values
        assert float((w[:, :1] * z.square()).sum()) == pytest.approx(1, rel=1e-4)  # float32 mean and scale
        np.testing.assert_allclose((w[:, 0] @ z), 0, atol=1e-6)
        for task in range(3):
            np.testing.assert_allclose(one.gram[task], z.T @ (w[:, task, None] * z), atol=1e-6)
        np.testing.assert_allclose(one.target_sums, (w * t).T @ z, atol=1e-6)
        np.testing.assert_allclose(one.target_squares, (w * t.square()).sum(0))


def test_summaries_are_the_receivers() -> None:
    x = cohort().features[:5]
    ours = summaries(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ours[:, :12], summary_features(x)[:, :12], atol=1e-6)
    np.testing.assert_allclose(ours[:, 12:15] ** 2, summary_features(x)[:, 12:15] ** 2 + 1e-4, atol=1e-6)
    np.testing.assert_allclose(ours[:, 15:], summary_features(x)[:, 15:], atol=1e-6)


def test_loss_is_the_squared_error_on_every_real_stay() -> None:
    """The moments give what fitting on the samples and predicting each stay gives."""
    encoded = cohort()
    targets = balanced_targets(encoded.labels)
    (one,) = build_pool(encoded, ("tcn-b",), 1, seed=0, device="cpu")
    x, labels = torch.from_numpy(encoded.features[:10]), torch.from_numpy(encoded.labels[:10])
    shares = []
    for task in range(3):
        known = torch.isfinite(labels[:, task])
        z, y = one(x[known]), labels[known, task].double() - targets.centre[task]
        solved = torch.linalg.solve(z @ z.T + 0.1 * 10 * torch.eye(len(y), dtype=torch.float64), y)
        predicted = one(torch.from_numpy(encoded.features)) @ (z.T @ solved)
        w, t = targets.weights[:, task], targets.values[:, task]
        shares.append(float((w * (predicted - t).square()).sum() / (w * t.square()).sum()))
    found = float(unexplained_share(one, one(x), labels, targets.centre, 0.1))
    assert found == pytest.approx(np.mean(shares), rel=1e-4)
    loss = kernel_ridge_loss([one], targets, (0.1, 9.0), seed=0)
    assert float(loss(3, Samples(x, labels))) == pytest.approx(found)
    (other,) = build_pool(encoded, (SUMMARIES,), 1, seed=0, device="cpu")
    expected = float(unexplained_share(other, other(x), labels, targets.centre, 9.0))
    assert float(kernel_ridge_loss([other], targets, (0.1, 9.0), seed=0)(3, Samples(x, labels))) == expected


def test_ridge_weights_predict_like_ridge_on_the_stays() -> None:
    encoded = cohort()
    targets = balanced_targets(encoded.labels)
    (one,) = build_pool(encoded, (SUMMARIES,), 1, seed=0, device="cpu")
    z = one(torch.from_numpy(encoded.features)).numpy()
    for task, weights in enumerate(ridge_weights(one).numpy()):
        w, t = targets.weights[:, task].numpy(), targets.values[:, task].numpy()
        root = np.sqrt(w)[:, None]
        stacked = np.concatenate([root * z, np.sqrt(RIDGE) * np.eye(z.shape[1])])
        by_rows = np.linalg.lstsq(stacked, np.concatenate([root[:, 0] * t, np.zeros(z.shape[1])]))[0]
        np.testing.assert_allclose(z @ weights, z @ by_rows, atol=1e-4)


def test_teacher_orders_new_stays_and_keeps_the_prevalence_of_later_tasks() -> None:
    encoded, fresh = cohort(400), cohort(400, seed=1)
    encoded.labels[:, 1] = np.where(np.arange(400) % 4 == 0, encoded.labels[:, 1], 0)  # rarer: about one in eight
    targets = balanced_targets(encoded.labels)
    teacher = Teacher(build_pool(encoded, ("tcn-b", SUMMARIES), 3, seed=0, device="cpu"), targets)
    labels = teacher(torch.from_numpy(fresh.features)).detach().numpy()
    assert labels.min() >= 0
    assert labels.max() <= 1
    assert labels[fresh.labels[:, 0] == 1, 0].mean() > labels[fresh.labels[:, 0] == 0, 0].mean() + 0.5
    assert labels[:, 1].mean() < 0.3
    assert np.abs(labels[:, 2] - fresh.labels[:, 2]).mean() < 0.06


def test_pool_takes_turns_and_training_changes_a_network() -> None:
    encoded = cohort()
    pool = build_pool(encoded, ("tcn-b", SUMMARIES), 6, training_steps=(0, 5), seed=0, device="cpu")
    assert [one.name for one in pool] == ["tcn-b", SUMMARIES] * 3
    assert pool[1] is pool[3] is pool[5]
    plain = build_pool(encoded, ("tcn-b", SUMMARIES), 6, seed=0, device="cpu")
    assert torch.equal(pool[0].gram, plain[0].gram)
    assert not torch.equal(pool[2].gram, plain[2].gram)


def test_chosen_stays_bound_each_class() -> None:
    encoded = cohort()
    rows = [np.flatnonzero(encoded.labels[:, 0] == label) for label in (0, 1)]
    assert np.bincount(chosen_stays(encoded, rows, 20, 0).labels[:, 0].astype(int)).tolist() == [20, 20]
    assert len(chosen_stays(encoded, rows, None, 0).labels) == 120


def test_spread_is_zero_for_the_stays_themselves_and_sees_what_averaging_takes_away() -> None:
    encoded = cohort()
    balanced = encoded.take(np.concatenate([np.flatnonzero(encoded.labels[:, 0] == label)[:30] for label in (0, 1)]))
    (shape,) = build_pool(balanced, (SUMMARIES,), 1, seed=0, device="cpu")
    loss = spread_loss(shape, 2.0)

    def distance(features: np.ndarray) -> float:
        return float(loss(0, Samples(torch.from_numpy(features), torch.zeros(len(features), 1))))

    assert distance(balanced.features) < 1e-3
    centre = balanced.features.mean(axis=0)
    halved = centre + (balanced.features - centre) / 2
    assert distance(halved) > 0.2
    assert distance(np.repeat(centre[None], 4, axis=0)) > distance(halved)


def test_the_teacher_leaves_networks_out_that_have_seen_the_labels() -> None:
    encoded = cohort()
    targets = balanced_targets(encoded.labels)
    pool = build_pool(encoded, ("tcn-b",), 3, training_steps=(0, 3, 0), seed=0, device="cpu")
    assert [one.trained for one in pool] == [0, 3, 0]
    assert [one is other for (one, _), other in zip(Teacher(pool, targets).maps, pool[::2], strict=True)] == [True] * 2
    assert len(Teacher(pool[1:2], targets).maps) == 1


@pytest.mark.parametrize("labels", ["hard", "teacher", "learned"])
def test_labels_are_of_the_kind_asked_for(labels: str) -> None:
    encoded = cohort()
    found = KernelMatching(labels=labels, **FAST).condense(encoded, n_per_class=5, seed=0, noise=NOISE)  # type: ignore[arg-type]
    hard = np.repeat([0, 1], 5)
    if labels == "hard":
        np.testing.assert_array_equal(found.labels[:, 0], hard)
    else:
        assert found.has_soft_labels
        assert np.isfinite(found.labels).all()
        assert found.labels[hard == 1, 0].mean() > found.labels[hard == 0, 0].mean() + 0.2
    assert found.features.min() >= 0
    assert found.features.max() <= 1


def test_matching_lowers_the_loss_on_maps_it_has_not_seen() -> None:
    encoded = cohort()
    targets = balanced_targets(encoded.labels)
    unseen = build_pool(encoded, ("tcn-b",), 3, seed=99, device="cpu")

    def unexplained(iterations: int) -> float:
        condenser = KernelMatching(labels="hard", initialisation="real", **{**FAST, "iterations": iterations})  # type: ignore[arg-type]
        found = condenser.condense(encoded, n_per_class=5, seed=0, noise=NOISE)
        x, y = torch.from_numpy(found.features), torch.from_numpy(found.labels)
        return float(sum(unexplained_share(one, one(x), y, targets.centre, 1e-2) for one in unseen))

    assert unexplained(60) < 0.9 * unexplained(0)


def test_no_weight_of_the_global_generator_moves_and_seeds_differ() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    options = {**FAST, "maps": ("vit-a",), "training_steps": (2,), "pool_size": 1, "iterations": 2}
    encoded = cohort()
    one, two = (
        KernelMatching(**options).condense(encoded, n_per_class=2, seed=seed, noise=NOISE)  # type: ignore[arg-type]
        for seed in (0, 1)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert digest_array(one.features) != digest_array(two.features)


def test_constant_stays_give_a_finite_set() -> None:
    encoded = cohort()
    flat = dataclasses.replace(encoded, features=np.full_like(encoded.features, 0.5))
    options = {**FAST, "iterations": 3}
    found = KernelMatching(initialisation="real", **options).condense(flat, n_per_class=2, seed=0, noise=NOISE)  # type: ignore[arg-type]
    assert np.isfinite(found.features).all()


@pytest.mark.parametrize(
    "options",
    [
        {"labels": "kind"},
        {"initialisation": "zero"},
        {"maps": ()},
        {"maps": ("resnet",)},
        {"pool_size": 0},
        {"ridge": 0.0},
        {"summary_ridge": 0.0},
        {"spread": -1.0},
        {"training_steps": (-1,)},
    ],
)
def test_unknown_choices_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        KernelMatching(**options)  # type: ignore[arg-type]
