"""Nobody else reads or changes what a run writes, whatever umask it was started under."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def decoct(folder: Path, umask: int, *words: str) -> None:
    command = [sys.executable, "-m", "flows.cli", *words]
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        umask=umask,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_runs_workspace_is_its_owners_alone(tmp_path: Path) -> None:
    """Under the umask that takes nothing away; any other only adds to what a run sets for itself (the test below)."""
    (tmp_path / "run.toml").write_text(CONFIG)
    decoct(tmp_path, 0o000, "encode", "run.toml")
    assert open_to_others(tmp_path / "work", 0o077) == []


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o027, 0o077])
@pytest.mark.parametrize("readable", [False, True])
def test_a_users_umask_is_added_to_ours(umask: int, readable: bool) -> None:
    before = os.umask(umask)
    try:
        for_owner_alone(readable=readable)
        assert os.umask(0) == umask | (0o022 if readable else 0o077)
    finally:
        os.umask(before)


def test_no_verb_makes_what_others_could_change(tmp_path: Path) -> None:
    decoct(tmp_path, 0o000, "keys", "new", "all", "--out", "w")
    decoct(tmp_path, 0o000, "trust", "init", "--site", "S", "--trial", "--out", "w")
    assert open_to_others(tmp_path / "w", 0o022) == []
    assert open_to_others(tmp_path / "w" / "keys", 0o077) == []
    assert (tmp_path / "w" / "trust" / "root.json").stat().st_mode & 0o777 == 0o644  # for others to read
