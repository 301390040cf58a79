"""The loop on losses with known minima: what it returns, when it stops, and that a resumed run is the same run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from condensation.loop import WINDOW_STEPS, LoopSettings, Samples, StopCondensing, optimise_samples
from pipeline.core.errors import ConfigError, DataError

START = np.linspace(0.2, 0.8, 4 * 6 * 2, dtype=np.float32).reshape(4, 6, 2)
LABELS = np.array([[0.0], [0.3], [1.0], [np.nan]], dtype=np.float32)


def towards(target: float):  # a Loss
    def loss(step: int, samples: Samples) -> Tensor:
        noise = torch.randn(1, generator=torch.Generator().manual_seed(step))
        return (samples.features - target).square().mean() * (1 + 0.1 * noise.squeeze())

    return loss


def run(loss, settings: LoopSettings, on_step=lambda *_: None, context: object = "test"):
    return optimise_samples((START, LABELS), loss, settings, context=context, device="cpu", on_step=on_step)


def test_reaches_the_minimum_leaves_fixed_labels_and_reports_loss_to_the_end() -> None:
    seen: list[tuple[int, int, float]] = []
    features, labels = run(towards(0.4), LoopSettings(205, 0.02), lambda *report: seen.append(report))
    np.testing.assert_allclose(features, 0.4, atol=0.01)
    np.testing.assert_array_equal(labels, LABELS)
    assert [report[0] for report in seen] == [*range(10, 201, 10), 205]
    assert seen[-1][1] == 205
    assert seen[-1][2] < 1e-3 < seen[0][2]


def test_learned_labels_move_inside_the_unit_interval_and_missing_ones_stay_missing() -> None:
    def loss(step: int, samples: Samples) -> Tensor:
        return (samples.labels[:3] - 0.6).square().sum() + 0 * samples.features.sum()

    features, labels = run(loss, LoopSettings(300, 0.01, label_rate=0.1))
    np.testing.assert_array_equal(features, START)
    np.testing.assert_allclose(labels[:3], 0.6, atol=0.02)
    assert np.isnan(labels[3])


def test_bounds_hold_and_a_sample_can_come_back_from_them() -> None:
    def out_and_back(step: int, samples: Samples) -> Tensor:
        return (samples.features - (5.0 if step < 50 else 0.5)).square().mean()

    outside, _ = run(towards(5.0), LoopSettings(100, 0.05, bounds=(0.0, 1.0)))
    np.testing.assert_array_equal(outside, 1.0)
    back, _ = run(out_and_back, LoopSettings(400, 0.05, bounds=(0.0, 1.0)))
    np.testing.assert_allclose(back, 0.5, atol=0.02)


def test_components_move_a_sample_along_slow_cosines_only() -> None:
    def wiggle(step: int, samples: Samples) -> Tensor:
        signs = torch.tensor([1.0, -1.0] * 3)
        return (samples.features - signs[:, None]).square().mean()

    features, _ = run(wiggle, LoopSettings(50, 0.02, components=2))
    moved = features - START
    slow = np.stack([np.ones(6), np.cos(np.pi * (np.arange(6) + 0.5) / 6)])
    rest = moved - np.einsum("ks,kt,ntc->nsc", slow, np.linalg.pinv(slow).T, moved)
    assert np.abs(rest).max() < 1e-6 < np.abs(moved).max()


def test_keeps_the_best_window_when_the_loss_rises_again() -> None:
    def moody(step: int, samples: Samples) -> Tensor:
        away = step >= 2 * WINDOW_STEPS
        return (samples.features - (0.9 if away else 0.5)).square().mean() + (10.0 if away else 0.0)

    kept, _ = run(moody, LoopSettings(4 * WINDOW_STEPS, 0.02, keep_best=True))
    np.testing.assert_allclose(kept, 0.5, atol=0.02)
    last, _ = run(moody, LoopSettings(4 * WINDOW_STEPS, 0.02))
    np.testing.assert_allclose(last, 0.9, atol=0.05)


def test_patience_ends_a_run_that_does_not_improve() -> None:
    seen: list[int] = []
    flat = LoopSettings(2000, 1e-3, keep_best=True, patience=2)
    run(lambda step, samples: 1 + 0 * samples.features.sum(), flat, lambda step, *_: seen.append(step))
    assert seen[-1] == 3 * WINDOW_STEPS  # the first window is the best; two more are not better


def test_a_caller_can_stop_and_gets_what_there_is() -> None:
    def stop(step: int, steps: int, loss: float) -> None:
        if step == 60:
            raise StopCondensing

    stopped, _ = run(towards(0.4), LoopSettings(1000, 0.005, keep_best=True), stop)
    whole, _ = run(towards(0.4), LoopSettings(WINDOW_STEPS, 0.005, keep_best=True))
    np.testing.assert_array_equal(stopped, whole)  # the only window that was complete


@pytest.mark.parametrize("components", [None, 3])
def test_an_interrupted_run_resumes_to_the_same_bytes(tmp_path: Path, components: int | None) -> None:
    class Interrupted(Exception):
        pass

    def loss(step: int, samples: Samples) -> Tensor:
        known = samples.labels[:3]
        return towards(0.4)(step, samples) + (known - 0.5).square().mean()

    def interrupt(step: int, steps: int, value: float) -> None:
        if step == WINDOW_STEPS + 20:
            raise Interrupted

    plain = LoopSettings(
        170, 0.01, label_rate=0.05, anneal=True, components=components, bounds=(0, 1), keep_best=True, patience=4
    )
    stored = dataclasses.replace(plain, checkpoint=tmp_path / "state.npz")
    with pytest.raises(Interrupted):
        run(loss, stored, interrupt)
    first: list[int] = []
    resumed = run(loss, stored, lambda step, *_: first.append(step))
    assert first[0] == WINDOW_STEPS + 10  # the window that was cut short is done again, no other
    for one, other in zip(resumed, run(loss, plain), strict=True):
        assert one.tobytes() == other.tobytes()
    again = run(loss, stored, lambda *_: pytest.fail("a finished run has no step left"))
    assert again[0].tobytes() == resumed[0].tobytes()


def test_a_checkpoint_of_another_run_or_a_broken_one_is_refused(tmp_path: Path) -> None:
    settings = LoopSettings(60, 0.01, checkpoint=tmp_path / "state.npz")
    run(towards(0.4), settings, context="one cohort")
    with pytest.raises(ConfigError, match=r"state\.npz belongs to another run"):
        run(towards(0.4), settings, context="another cohort")
    (tmp_path / "state.npz").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(DataError, match="cannot be read"):
        run(towards(0.4), settings, context="one cohort")


def test_a_loss_that_is_not_finite_is_an_error_and_leaves_no_checkpoint(tmp_path: Path) -> None:
    settings = LoopSettings(60, 0.01, checkpoint=tmp_path / "state.npz")
    with pytest.raises(DataError, match="not finite"):
        run(lambda step, samples: samples.features.sum() * float("nan"), settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [{"learning_rate": 0.0}, {"iterations": -1}, {"patience": 2}, {"components": 0}, {"label_rate": -0.1}],
)
def test_settings_without_meaning_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        LoopSettings(**{"iterations": 10, "learning_rate": 0.1, **options})  # type: ignore[arg-type]
