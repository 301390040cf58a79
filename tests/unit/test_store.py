"""The store: whole or absent, and what its name says."""

from __future__ import annotations

import dataclasses
import errno
import json
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
    store, calls = Store(tmp_path, b"k" * 32), []

    def make() -> tuple[CondensedSet]:
        calls.append(1)
        return (condensed(),)

    first = store.once("k", make, resume=True)
    assert not first.reused
    again = store.once("k", make, resume=True)
    assert again.reused
    assert again.digests == first.digests == store.once("k", make, resume=False).digests
    assert len(calls) == 2


def test_a_note_that_nobody_with_the_key_wrote_is_no_note(tmp_path: Path) -> None:
    """Who can write the store once put the digest of a set of their own into a stage's note, and it was released."""
    key, calls = b"k" * 32, []
    store = Store(tmp_path, key)

    def make() -> tuple[CondensedSet]:
        calls.append(1)
        return (condensed(),)

    made = store.once("stage", make, resume=True, stage="condense", parents=("p",))
    other = store.once("other", lambda: (condensed(0.75),), resume=True, stage="condense", parents=("p",))
    assert store.made("stage") == dataclasses.replace(made, reused=True, seconds=round(made.seconds, 3))
    forged = store.put(condensed(0.25))
    path = tmp_path / "index" / "stage"
    note = json.loads(path.read_text())
    attempts = {
        "its digest": {**note, "digests": [forged]},
        "a digest more": {**note, "digests": [*note["digests"], forged]},
        "its parents": {**note, "parents": ["q"]},
        "its stage": {**note, "stage": "audit"},
        "its seconds": {**note, "seconds": 9.0},
        "a word more": {**note, "note": "x"},
        "no MAC": {name: value for name, value in note.items() if name != "mac"},
        "an empty MAC": {**note, "mac": ""},
        "null": {**note, "mac": None},
        "a MAC of another key": {**note, "mac": "0" * 64},
        "the note of another stage": json.loads((tmp_path / "index" / "other").read_text()),
        "a list": [note],
        "nothing": None,
    }
    assert other.first != made.first
    for what, attempt in attempts.items():
        path.write_text(json.dumps(attempt))
        assert store.made("stage") is None, what
        calls.clear()
        again = store.once("stage", make, resume=True, stage="condense", parents=("p",))
        assert (again.digests, again.reused, calls) == (made.digests, False, [1]), what
    assert store.made("stage") is not None
    assert Store(tmp_path, b"another" * 5).made("stage") is None
    assert Store(tmp_path).made("stage") is None  # who has no key believes no note


def test_a_description_that_was_edited_is_not_told(tmp_path: Path) -> None:
    """Whose records a private method sees is read from it: another parent would be charged to other people."""
    store = Store(tmp_path)
    digest = store.put(condensed())
    assert store.describe(digest)["meta"]["provenance"]["parents"] == []
    path = next(tmp_path.glob("objects/*/*/meta.json"))
    head = json.loads(path.read_bytes())
    head["meta"]["provenance"]["parents"] = ["f" * 64]
    path.write_text(json.dumps(head))
    with pytest.raises(DataError, match="its description does not match its digest"):
        store.describe(digest)
