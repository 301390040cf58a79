"""Herding, and the trained networks of the feature pools, against their definitions on small data."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from condensation.coresets import herded
from condensation.feature_pool import trained_network, training_marks
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Provenance, Task

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


def test_herding_takes_at_each_turn_the_stay_that_brings_the_mean_nearest() -> None:
    x = np.random.default_rng(3).normal(size=(30, 4, 2)).astype(np.float32)
    chosen = herded(x, 6)
    for k in range(1, 7):
        errors = {
            row: float(np.square(x[[*chosen[: k - 1], row]].mean(0) - x.mean(0)).sum())
            for row in set(range(30)) - set(chosen[: k - 1].tolist())
        }
        assert min(errors, key=lambda row: errors[row]) == chosen[k - 1]
    random = [np.square(x[draw].mean(0) - x.mean(0)).sum() for draw in np.random.default_rng(0).permuted(
        np.tile(np.arange(30), (200, 1)), axis=1)[:, :6]]  # fmt: skip
    assert np.square(x[chosen].mean(0) - x.mean(0)).sum() < min(random)


def test_training_marks_lie_on_one_training() -> None:
    encoded = cohort()
    marks = training_marks(encoded, "tcn-b", [2, 3], 0.05, 7, "cpu")
    whole = training_marks(encoded, "tcn-b", [5], 0.05, 7, "cpu")
    assert len(marks) == 3
    for name, value in marks[-1].items():
        assert torch.equal(marks[0][name], whole[0][name])
        assert torch.equal(value, whole[1][name])
    assert any(not torch.equal(marks[0][name], marks[1][name]) for name in marks[0])


def test_training_lowers_the_loss_of_a_network() -> None:
    encoded = cohort()
    x, y = torch.from_numpy(encoded.features), torch.from_numpy(encoded.labels)
    fresh, trained = (
        float(F.binary_cross_entropy_with_logits(trained_network(encoded, "gru", steps, 7, "cpu")(x), y).detach())
        for steps in (0, 60)
    )
    assert trained < 0.8 * fresh
