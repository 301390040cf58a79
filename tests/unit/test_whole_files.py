"""A writer that is stopped leaves the old file or the new one, and nothing beside it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.core.files import whole as whole_files
from pipeline.core.files.whole import put_whole, write_synced


def test_a_file_is_made_then_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    for data in (b"first", b"second"):
        put_whole(tmp_path / "a", data)
        assert [(item.name, item.read_bytes()) for item in tmp_path.iterdir()] == [("a", data)]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, os.strerror(28))

    put_whole(tmp_path / "a", b"old")
    monkeypatch.setattr(whole_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        put_whole(tmp_path / "a", b"new")
    assert [(item.name, item.read_bytes()) for item in tmp_path.iterdir()] == [("a", b"old")]


def test_what_is_staged_elsewhere_never_shows_in_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    put_whole(tmp_path / "in" / "a", b"whole", staged_in=tmp_path)
    assert [item.name for item in (tmp_path / "in").iterdir()] == ["a"]
    assert [item.name for item in tmp_path.iterdir()] == ["in"]


def test_a_new_file_never_replaces_one(tmp_path: Path) -> None:
    write_synced(tmp_path / "a", b"first")
    with pytest.raises(FileExistsError):
        write_synced(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"


def test_a_file_for_its_owner_alone_is_so_from_its_first_moment(tmp_path: Path) -> None:
    """Closed only after it had its name, a counter was left open by a kill between, and nothing could be drawn."""
    before = os.umask(0)
    try:
        put_whole(tmp_path / "closed", b"x", mode=0o600)
        put_whole(tmp_path / "open", b"x")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("closed", "open")] == [0o600, 0o666]
