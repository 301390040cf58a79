"""Nobody else reads or changes what a run writes, whatever umask it was started under."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli.start import main
from flows.environment import for_owner_alone

CONFIG = """
name = "small"
workspace = "work"
[source]
kind = "embedded"
sets = ["a"]
max_stays = 60
[encode.raw]
kind = "identity"
[condense.private]
kind = "private_moments"
[release]
artefact = "private"
policy = "demo"
site = "S"
licence = "ODbL-1.0"
"""


def open_to_others(folder: Path, forbidden: int) -> list[str]:
    return [
        f"{path.relative_to(folder.parent)} {path.stat().st_mode & 0o777:o}"
        for path in (folder, *folder.rglob("*"))
        if not path.is_symlink() and path.stat().st_mode & forbidden
    ]


@pytest.fixture
def umask() -> Iterator[None]:
    """The umask that takes nothing away; any other only adds to what a run sets for itself (the test below)."""
    before = os.umask(0)
    yield
    os.umask(before)


def decoct(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["decoct", *words])
    os.umask(0)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0


@pytest.mark.slow
def test_a_runs_workspace_is_its_owners_alone(umask: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.toml").write_text(CONFIG)
    decoct(tmp_path, monkeypatch, "encode", "run.toml")
    assert open_to_others(tmp_path / "work", 0o077) == []


@pytest.mark.parametrize("users", [0o000, 0o002, 0o022, 0o027, 0o077])
@pytest.mark.parametrize("readable", [False, True])
def test_a_users_umask_is_added_to_ours(umask: None, users: int, readable: bool) -> None:
    os.umask(users)
    for_owner_alone(readable=readable)
    assert os.umask(0) == users | (0o022 if readable else 0o077)


def test_no_verb_makes_what_others_could_change(umask: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoct(tmp_path, monkeypatch, "keys", "new", "all", "--out", "w")
    decoct(tmp_path, monkeypatch, "trust", "init", "--site", "S", "--trial", "--out", "w")
    assert open_to_others(tmp_path / "w", 0o022) == []
    assert open_to_others(tmp_path / "w" / "keys", 0o077) == []
    assert (tmp_path / "w" / "trust" / "root.json").stat().st_mode & 0o777 == 0o644  # for others to read
