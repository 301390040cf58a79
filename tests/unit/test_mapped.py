"""Arrays that stay in their files: the same answers as in memory, and nothing left behind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pipeline import store as store_module
from pipeline.core.digest import digest_array
from pipeline.core.errors import DataError
from pipeline.core.files import mapped
from pipeline.core.files.mapped import all_finite, file_of, row_chunks, rows_of
from pipeline.core.types import EncodedCohort, Provenance, Split, Task
from pipeline.store import Store


def cohort(features: np.ndarray) -> EncodedCohort:
    n = len(features)
    return EncodedCohort(
        features=features,
        labels=(np.arange(n) % 2).astype(np.float32)[:, None],
        subject_index=np.arange(n, dtype=np.int32),
        split=(np.arange(n) % 3).astype(np.int8),
        channels=tuple(f"channel{i}" for i in range(features.shape[2])),
        tasks=(Task("death"),),
        step_hours=1.0,
        transforms=({"kind": "scaling", "public": True},),
        provenance=Provenance("test"),
    )


def in_file(path: Path, array: np.ndarray) -> np.ndarray:
    array.tofile(path)
    return np.memmap(path, array.dtype, "r", shape=array.shape)


@pytest.fixture
def series() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(30, 4, 3)).astype(np.float32)


def test_chunks_cover_every_row_once(series: np.ndarray) -> None:
    for size in (1, 100, 10_000):
        seen = np.concatenate([np.arange(30)[part] for part in row_chunks(series, size)])
        np.testing.assert_array_equal(seen, np.arange(30))
    assert list(row_chunks(series[:0])) == []
    assert len(list(row_chunks(np.zeros((3, 0), np.float32)))) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_found_in_any_chunk(
    series: np.ndarray, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "CHUNK_BYTES", 100)
    assert all_finite(series)
    for row in (0, 17, 29):
        broken = series.copy()
        broken[row, 1, 2] = bad
        assert not all_finite(broken)
        with pytest.raises(DataError, match="finite"):
            cohort(broken)


def test_the_file_behind_a_view_is_found(tmp_path: Path, series: np.ndarray) -> None:
    array = in_file(tmp_path / "a", series)
    assert file_of(array) == file_of(np.asarray(array)[3:9, 1:]) == tmp_path / "a"
    assert file_of(series) is None
    assert file_of(array[[1, 2]]) is None  # a copy


@pytest.mark.parametrize("large", [1, 1 << 20])
@pytest.mark.parametrize(
    "rows", [np.arange(5, 20), np.array([7, 3, 3, 29]), np.arange(0, 28, 2), np.array([], dtype=int)], ids=str
)
def test_rows_of_a_file_are_the_rows_in_memory(
    tmp_path: Path, series: np.ndarray, rows: np.ndarray, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "LARGE_BYTES", large)
    array = in_file(tmp_path / "a", series)
    taken = rows_of(array, rows)
    np.testing.assert_array_equal(taken, series[rows])
    together = len(rows) == 15
    assert (file_of(taken) is None) == (not together and (large > 1 or not len(rows)))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]  # what rows were written has no name
    np.testing.assert_array_equal(rows_of(taken, np.arange(len(rows))[::-1]), series[rows][::-1])


def test_a_part_of_a_mapped_cohort_is_the_part_in_memory(
    tmp_path: Path, series: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "LARGE_BYTES", 1)
    part = cohort(in_file(tmp_path / "a", series)).part(Split.TUNING)
    assert isinstance(part.features, np.memmap)
    assert digest_array(part.features) == digest_array(cohort(series).part(Split.TUNING).features)


def test_the_store_leaves_large_arrays_in_their_file(
    tmp_path: Path, series: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    digest = store.put(cohort(series))
    assert file_of(store.get(digest, EncodedCohort).features) is None
    monkeypatch.setattr(store_module, "LARGE_BYTES", 200)
    found = store.get(digest, EncodedCohort)
    assert file_of(found.features) == next(tmp_path.glob("objects/*/*/arrays.safetensors"))
    assert file_of(found.split) is None  # small
    assert not found.features.flags.writeable
    for item in dataclasses.fields(EncodedCohort):
        value = getattr(found, item.name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(cohort(series), item.name))
    assert store.put(found) == digest


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2", "?", "<i8", "<i4", "|i1", "<u8", "|u1"])
def test_every_kind_of_number_comes_back_from_a_map(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "LARGE_BYTES", 1)
    arrays = {"odd": np.arange(3, dtype=np.uint8), "x": np.arange(12).reshape(3, 4).astype(dtype)}
    store_module._save_synced(tmp_path / "f", arrays)
    found = store_module._read_arrays(tmp_path / "f")
    assert all(isinstance(array, np.memmap) for array in found.values())
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_damage_to_a_mapped_artefact_is_noticed(
    tmp_path: Path, series: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "LARGE_BYTES", 1)
    store = Store(tmp_path)
    digest = store.put(cohort(series))
    file = next(tmp_path.glob("objects/*/*/arrays.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        store.get(digest, EncodedCohort)
    file.write_bytes(data[:-3])
    with pytest.raises(DataError, match="damaged"):
        store.get(digest, EncodedCohort)
