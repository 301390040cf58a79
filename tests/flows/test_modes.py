"""Nobody else reads or changes what a run writes, whatever umask it was started under."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o002])
def test_a_runs_workspace_is_its_owners_alone(umask: int, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(CONFIG)
    decoct(tmp_path, umask, "encode", "run.toml")
    assert open_to_others(tmp_path / "work", 0o077) == []


def test_no_verb_makes_what_others_could_change(tmp_path: Path) -> None:
    decoct(tmp_path, 0o000, "keys", "new", "all", "--out", "w")
    decoct(tmp_path, 0o000, "trust", "init", "--site", "S", "--trial", "--out", "w")
    assert open_to_others(tmp_path / "w", 0o022) == []
    assert open_to_others(tmp_path / "w" / "keys", 0o077) == []
    assert (tmp_path / "w" / "trust" / "root.json").stat().st_mode & 0o777 == 0o644  # for others to read
