"""Statics have one value per sample and masks lie in [0, 1], in every condenser that is registered."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import numpy as np
import pytest
import torch

from condensation.loop import LoopSettings, Samples, optimise_samples
from condensation.roles import Roles, roles_of
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.protocols import ignore_step
from pipeline.core.types import CondensedSet, EncodedCohort, Provenance, Task
from pipeline.validation.contracts import check_condensed
from pipeline.validation.profiles import implausible_cells

FACTORIES = {entry.name: entry.load() for entry in entry_points(group="decoct.condensers")}
SHORT: dict[str, dict[str, Any]] = {
    "distribution_matching": {"iterations": 12, "learning_rate": 0.1},
    "characteristic_function": {"iterations": 12, "learning_rate": 0.1, "pool_size": 2},
    "gradient_matching": {"iterations": 12, "learning_rate": 0.1, "pool_size": 2, "training_steps": (0, 1)},
    "kernel_matching": {"iterations": 12, "learning_rate": 0.1, "pool_size": 3},
    "trajectory_matching": {"iterations": 12, "learning_rate": 0.1, "experts": 1, "mark_every": 1, "marks": 2},
    "private_moments": {"epsilon": 0.5},
    "private_teacher": {"epsilon": 0.5},
    "private_stream": {"epsilon": 16.0},  # of sixty people on one of many nights, noise leaves little else
}
CHANNELS = ("hr", "age", "sex:f", "observed:hr", "valid")
TRANSFORMS: tuple[dict[str, Any], ...] = (
    {"kind": "scaling", "public": True, "static": ["age", "sex:f"]},
    {"kind": "missingness", "mode": "encode", "public": True, "channels": ["observed:hr"]},
    {"kind": "lengths", "mode": "mask", "public": True, "channels": ["valid"]},
)


def cohort(n: int = 60, n_steps: int = 8) -> EncodedCohort:
    draws = np.random.default_rng(0)
    features = draws.uniform(size=(n, n_steps, 5))
    features[:, :, 1] = draws.uniform(size=(n, 1))
    features[:, :, 2] = draws.integers(0, 2, (n, 1))
    features[:, :, 3] = draws.integers(0, 2, (n, n_steps))
    features[:, :, 4] = np.arange(n_steps) < draws.integers(2, n_steps + 1, (n, 1))
    return EncodedCohort(
        features=features.astype(np.float32),
        labels=(np.arange(n)[:, None] % 2).astype(np.float32),
        subject_index=np.arange(n, dtype=np.int32),
        split=np.zeros(n, np.int8),
        channels=CHANNELS,
        tasks=(Task("t"),),
        step_hours=1.0,
        transforms=TRANSFORMS,
        provenance=Provenance("test"),
    )


def starts() -> list[tuple[str, dict[str, Any]]]:
    """Every condenser, those that move samples from both kinds of start."""
    found = []
    for name in sorted(FACTORIES):
        options = SHORT.get(name, {})
        moved = [{"initialisation": kind} for kind in ("noise", "centroids")] if "iterations" in options else [{}]
        found += [(name, {**options, **start}) for start in moved]
    return found


@pytest.mark.parametrize(("name", "options"), starts())
def test_statics_do_not_move_over_time_and_masks_stay_shares(name: str, options: dict[str, Any]) -> None:
    noise = NoiseSource(Secret(bytes(32), "noise"), "test")
    found = FACTORIES[name](**options).condense(
        cohort(), n_per_class=5, seed=0, noise=noise, device="cpu", on_step=ignore_step
    )
    assert np.ptp(found.features[:, :, 1:3], axis=1).max() < 1e-6
    masks = found.features[:, :, 3:]
    assert np.diff(found.features[:, :, 4], axis=1).max() < 1e-6
    assert masks.min() > -1e-6
    assert masks.max() < 1 + 1e-6
    assert np.ptp(found.features[:, :, 0], axis=1).max() > 1e-3  # what may move does


def test_a_tied_channel_takes_one_gradient_for_all_its_steps() -> None:
    start = (np.full((2, 4, 2), 0.5, np.float32), np.array([[0.0], [1.0]], np.float32))

    def loss(step: int, samples: Samples) -> torch.Tensor:
        return samples.features[:, 0].square().sum()  # only the first step is asked for

    def run(tied: tuple[int, ...]) -> np.ndarray:
        settings = LoopSettings(20, 0.01, tied=tied)
        return optimise_samples(start, loss, settings, context=[], device="cpu", on_step=ignore_step)[0]

    free, tied = run(()), run((1,))
    assert np.ptp(free[:, :, 1], axis=1).min() > 0.1
    assert np.ptp(tied[:, :, 1]) < 1e-7
    assert tied[0, 0, 1] < 0.5
    np.testing.assert_array_equal(free[:, :, 0], tied[:, :, 0])


def test_roles_are_read_off_transforms_and_end_at_an_encoding() -> None:
    assert roles_of(CHANNELS, TRANSFORMS) == Roles((1, 2), (3, 4), (4,))
    identity = {"kind": "identity", "public": True}
    assert roles_of(CHANNELS, (*TRANSFORMS, identity)) == Roles((1, 2), (3, 4), (4,))
    quantum = {"kind": "quantum", "public": True}
    assert roles_of(CHANNELS, (*TRANSFORMS, quantum)) == Roles((), (), ())
    released = {**TRANSFORMS[1], "mode": "release"}
    assert roles_of(CHANNELS, (TRANSFORMS[0], released, quantum)) == Roles((), (3,), ())
    assert roles_of(CHANNELS, ({"kind": "scaling", "public": True},)) == Roles((), (), ())


def test_cells_beyond_plausible_limits_are_counted_and_break_nothing() -> None:
    """Units 30 to 130, plausible 20 to 300: 0.0 is 30, -0.2 is 10; a mask of -0.2 is no share."""
    scaling = {"kind": "scaling", "public": True, "channels": ["hr", "observed:hr"], "low": [30, 0], "high": [130, 1]}
    limits = {"plausible_low": [20, 0], "plausible_high": [300, 1], "units": ["/min", "0 or 1"]}
    features = np.random.default_rng(0).uniform(size=(6, 4, 2)).astype(np.float32)
    features[2, :3, 0] = -0.2
    features[4, 0, :] = -0.2
    condensed = CondensedSet(
        features=features,
        labels=(np.arange(6)[:, None] % 2).astype(np.float32),
        channels=("hr", "observed:hr"),
        tasks=(Task("t"),),
        step_hours=1.0,
        transforms=({**scaling, **limits},),
        method="test",
        starts_from_records=False,
        guarantee=None,
        provenance=Provenance("test"),
    )
    assert implausible_cells(features, condensed.channels, condensed.transforms).sum(axis=0).tolist() == [4, 1]
    found = check_condensed(condensed)
    counts = {(o.n, o.unexpected_count) for o in found.outcomes if o.column.startswith("implausible_cells")}
    assert found.success
    assert counts == {(6, 2), (2, 2)}  # two samples, both channels
    assert implausible_cells(features, condensed.channels, ({"kind": "scaling"},)).sum() == 0
