"""The store: whole or absent, and what its name says."""

from __future__ import annotations

import dataclasses
import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import DataError, UsageError
from pipeline.core.types import CondensedSet, Grouping, Provenance, Task
from pipeline.store import Made, Store


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


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """The operating system refuses to write a file beyond `limit` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [100, 2000])  # in the description (0.8 kB); in the arrays (9 kB)
def test_a_refused_write_leaves_nothing_and_keeps_its_number(tmp_path: Path, limit: int) -> None:
    store = Store(tmp_path)
    large = dataclasses.replace(condensed(), features=np.zeros((2, 1100, 1), np.float32))
    with pytest.raises(OSError, match="too large") as caught, file_size_limit(limit):
        store.put(large)
    assert caught.value.errno == errno.EFBIG
    assert not list(tmp_path.glob("objects/*/*"))
    assert not list((tmp_path / "tmp").iterdir())


def test_a_refused_note_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    digest = store.put(condensed())
    with pytest.raises(OSError, match="too large"), file_size_limit(10):
        store.remember("k", Made((digest,), 1.0, reused=False))
    assert store.made("k") is None
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
