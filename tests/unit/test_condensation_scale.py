"""Cohorts larger than memory: the same sets from a file as from memory, and never the whole of it in memory."""

from __future__ import annotations

import dataclasses
import tracemalloc
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from condensation import coresets
from condensation.coresets import class_centroids
from condensation.kernel_matching import KernelMatching
from condensation.private import moments
from pipeline.core.codec import record_digest
from pipeline.core.digest import digest_array, digest_blocks
from pipeline.core.files import mapped
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.protocols import ignore_step
from pipeline.core.types import CondensedSet, EncodedCohort, Provenance, Task

FACTORIES = {entry.name: entry.load() for entry in entry_points(group="decoct.condensers")}
OPTIONS: dict[str, dict[str, Any]] = {
    "characteristic_function": {"iterations": 1, "pool_size": 1, "pool_stays": 200},
    "distribution_matching": {"iterations": 2, "networks": ("tcn-b",), "batch_size": 64},
    "gradient_matching": {"iterations": 1, "pool_size": 1, "training_steps": (2,), "pool_stays": 200},
    "kernel_matching": {"iterations": 1, "pool_size": 2, "maps": ("tcn-b", "summaries"), "pool_stays": 200},
    "trajectory_matching": {"iterations": 1, "experts": 1, "mark_every": 2, "marks": 2},
}


def cohort(n: int, n_steps: int = 12, n_channels: int = 20) -> EncodedCohort:
    draws = np.random.default_rng(n)
    risk = draws.normal(size=n).astype(np.float32)
    features = draws.uniform(size=(n, n_steps, n_channels)).astype(np.float32)
    features[:, :, 0] = (0.5 + 0.1 * risk[:, None] + 0.1 * features[:, :, 0]).clip(0, 1)
    labels = np.stack([risk > np.quantile(risk, 0.8), draws.uniform(size=n) < 0.3], axis=1).astype(np.float32)
    labels[:: n // 7, 1] = np.nan
    return EncodedCohort(
        features=features,
        labels=labels,
        subject_index=(np.arange(n) * 2 // 3).astype(np.int32),
        split=np.zeros(n, np.int8),
        channels=tuple(f"channel{i}" for i in range(n_channels)),
        tasks=(Task("event"), Task("other")),
        step_hours=1.0,
        transforms=({"kind": "scaling", "public": True},),
        provenance=Provenance("test"),
    )


def in_file(encoded: EncodedCohort, folder: Path) -> EncodedCohort:
    path = folder / "features"
    encoded.features.tofile(path)
    return dataclasses.replace(encoded, features=np.memmap(path, np.float32, "r", shape=encoded.features.shape))


def condense(name: str, encoded: EncodedCohort) -> CondensedSet:
    made: CondensedSet = FACTORIES[name](**OPTIONS.get(name, {})).condense(
        encoded,
        n_per_class=3,
        seed=0,
        noise=NoiseSource(Secret(bytes(32), "noise"), "cohort"),
        device="cpu",
        on_step=ignore_step,
    )
    return made


@pytest.mark.parametrize("name", sorted(FACTORIES))
@pytest.mark.filterwarnings("error:.*not writable:UserWarning")
def test_a_file_gives_the_set_that_memory_gives(name: str, tmp_path: Path) -> None:
    encoded = cohort(2500)
    one, two = condense(name, encoded), condense(name, in_file(encoded, tmp_path))
    assert digest_array(one.features) == digest_array(two.features)
    assert digest_array(one.labels) == digest_array(two.labels)


@pytest.mark.parametrize("name", sorted(FACTORIES))
def test_no_condenser_holds_the_whole_of_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coresets, "LARGEST_CLASS", 512)
    monkeypatch.setattr(coresets, "CHUNK_STAYS", 256)
    monkeypatch.setattr(mapped, "CHUNK_BYTES", 1 << 18)
    monkeypatch.setattr(moments, "HELD_BYTES", 0)
    encoded = in_file(cohort(24_000), tmp_path)
    size = encoded.features.nbytes  # 23 MB
    few = cohort(1500)
    condense(name, few)  # what is imported or made once is not counted
    tracemalloc.start()
    try:
        condense(name, few)
        at_rest = tracemalloc.get_traced_memory()[1]  # what the samples themselves take, 3,000 to choose from among it
        tracemalloc.reset_peak()
        condense(name, encoded)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - at_rest < 0.4 * size


def test_a_large_class_is_clustered_by_a_sample_and_averaged_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three far clusters per class: each centroid is the mean of all stays around it, not of the sample's."""
    n = 900
    draws = np.random.default_rng(0)
    group = np.arange(n) % 6
    centres = draws.uniform(size=(6, 4, 2))
    features = (centres[group] + 0.01 * draws.normal(size=(n, 4, 2))).astype(np.float32)
    small = cohort(n, 4, 2)
    labels = np.stack([group % 2, np.where(group < 2, np.nan, group > 3)], axis=1).astype(np.float32)
    encoded = dataclasses.replace(small, features=features, labels=labels)
    rows = [np.flatnonzero(labels[:, 0] == label) for label in (0, 1)]
    monkeypatch.setattr(coresets, "LARGEST_CLASS", 60)
    monkeypatch.setattr(coresets, "CHUNK_STAYS", 64)
    found, found_labels = class_centroids(encoded, rows, 3, seed=0)
    for label in (0, 1):
        means = {g: features[group == g].mean(axis=0, dtype=np.float64) for g in range(6) if g % 2 == label}
        order = [min(means, key=lambda g, c=c: float(np.abs(means[g] - c).sum())) for c in found[3 * label :][:3]]  # type: ignore[misc]
        assert sorted(order) == sorted(means)
        for g, centre, told in zip(order, found[3 * label :][:3], found_labels[3 * label :][:3], strict=True):
            np.testing.assert_allclose(centre, means[g], atol=1e-6)
            assert told[0] == label
            np.testing.assert_equal(told[1], np.nan if g < 2 else float(g > 3))


def test_herding_of_a_large_class_follows_the_mean_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = cohort(3000, 4, 2)
    monkeypatch.setattr(coresets, "LARGEST_CLASS", 400)
    monkeypatch.setattr(coresets, "CHUNK_STAYS", 100)
    found = coresets.Herding().condense(encoded, n_per_class=20, seed=0, noise=NoiseSource(Secret(bytes(32), "n"), "c"))
    real = {row.tobytes() for row in encoded.features}
    assert all(row.tobytes() in real for row in found.features)
    for label in (0, 1):
        x = encoded.features[encoded.labels[:, 0] == label]
        chance = np.abs(x[:20].mean(0) - x.mean(0)).mean()
        assert np.abs(found.features[found.labels[:, 0] == label].mean(0) - x.mean(0)).mean() < 0.3 * chance


def test_all_stays_of_a_pool_are_read_in_place(tmp_path: Path) -> None:
    """`pool_stays = None` looks at every stay and copies none."""
    encoded = in_file(cohort(2500), tmp_path)
    options = {**OPTIONS["kernel_matching"], "pool_stays": None, "maps": ("summaries",), "initialisation": "real"}
    noise = NoiseSource(Secret(bytes(32), "noise"), "cohort")
    KernelMatching(**options).condense(encoded, n_per_class=2, seed=0, noise=noise)
    tracemalloc.start()
    try:
        KernelMatching(**options).condense(encoded, n_per_class=2, seed=0, noise=noise)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < encoded.features.nbytes


@pytest.mark.parametrize("chunk", [1, 64, 1000, 4096])
@pytest.mark.parametrize("held", [0, 1 << 26])
def test_private_moments_are_the_same_in_pieces_of_any_size(
    chunk: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit by bit, noise included: on the grid of the answers the order of the sums leaves no trace."""
    encoded, noise = cohort(2500), NoiseSource(Secret(bytes(32), "noise"), "cohort")
    monkeypatch.setattr(moments, "CHUNK_STAYS", 10_000)
    whole = moments.release_moments(encoded, epsilon=1.0, delta=1e-6, noise=noise)
    monkeypatch.setattr(moments, "CHUNK_STAYS", chunk)
    monkeypatch.setattr(moments, "HELD_BYTES", held)
    pieces = moments.release_moments(encoded, epsilon=1.0, delta=1e-6, noise=noise)
    assert record_digest(whole) == record_digest(pieces)


def test_private_sums_in_pieces_are_those_over_all_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """With next to no noise the released class sums are those that a stay by stay sum gives."""
    encoded = cohort(3000, 6, 2)
    monkeypatch.setattr(moments, "CHUNK_STAYS", 700)
    quiet = moments.release_moments(
        encoded, epsilon=100.0, delta=0.9, clip_norm=5.0, noise=NoiseSource(Secret(bytes(32), "noise"), "cohort")
    )
    share = moments.subject_shares(encoded.subject_index)
    assert quiet.gram[0, 0] == pytest.approx(share.sum(), rel=1e-2)
    level = encoded.features[:, 5, :].astype(np.float64) - 0.5  # of six steps the last quarter is one
    np.testing.assert_allclose(quiet.gram[0, 1:3], share @ level, atol=0.01 * len(level))


@pytest.mark.parametrize("dtype", ["<f4", ">f8"])
def test_the_digest_of_blocks_is_the_digest_of_the_array(dtype: str) -> None:
    array = np.arange(60).reshape(10, 6).astype(dtype)
    for size in (1, 3, 10):
        blocks = [array[start : start + size] for start in range(0, 10, size)]
        assert digest_blocks(array.dtype, array.shape, blocks) == digest_array(array)
    assert digest_blocks(array.dtype, (0, 6), []) == digest_array(array[:0])
