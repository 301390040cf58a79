"""The store: whole or absent, and what its name says."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from pipeline import store as store_module
from pipeline.core.errors import DataError, UsageError
from pipeline.core.types import CondensedSet, Grouping, Provenance, Task
from pipeline.store import Store


def condensed(value: float = 0.5) -> CondensedSet:
    return CondensedSet(
        features=np.full((2, 3, 1), value, np.float32),
        labels=np.array([[0], [1]], np.float32),
        channels=("HR",),
        tasks=(Task("death"),),
        step_hours=1.0,
        transforms=({"kind": "scaling", "public": True},),
        method="centroids",
        starts_from_records=True,
        guarantee=None,
        provenance=Provenance("condense"),
    )


def test_same_content_same_digest_and_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest = store.put(condensed())
    assert store.put(condensed()) == digest == Store(tmp_path / "other").put(condensed())
    assert store.put(condensed(0.25)) != digest
    again = store.get(digest, CondensedSet)
    np.testing.assert_array_equal(again.features, condensed().features)
    assert store.resolve(digest[:10]) == digest
    assert [entry.kind for entry in store.entries()] == ["CondensedSet"] * 2


def test_damage_is_noticed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest = store.put(condensed())
    file = next(tmp_path.glob("objects/*/*/arrays.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        store.get(digest, CondensedSet)


def test_wrong_kind_and_unknown_prefix_are_told(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest = store.put(condensed())
    with pytest.raises(DataError, match="is a CondensedSet, expected a Grouping"):
        store.get(digest, Grouping)
    with pytest.raises(UsageError, match="0 artefacts"):
        store.resolve("zz")


@pytest.mark.parametrize("broken", ["_write_synced", "save_file"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = Store(tmp_path)
    monkeypatch.setattr(store_module, broken, full)
    with pytest.raises(OSError, match="No space"):
        store.put(condensed())
    assert not list(tmp_path.glob("objects/*/*"))
    assert not list((tmp_path / "tmp").iterdir())


def test_a_stage_runs_once_when_resumed_and_again_when_not(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []

    def make() -> tuple[CondensedSet]:
        calls.append(1)
        return (condensed(),)

    first = store.once("k", make, resume=True)
    assert not first.reused
    again = store.once("k", make, resume=True)
    assert again.reused
    assert again.digests == first.digests == store.once("k", make, resume=False).digests
    assert len(calls) == 2
