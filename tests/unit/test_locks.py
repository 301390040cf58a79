"""A workspace's lock: many who share it or one alone, told who is there, given back by a kill."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.workspace.locks import holders, workspace_lock
from pipeline.core.errors import EnvironmentProblem

HOLD = """
import sys
from pathlib import Path
from flows.workspace.locks import workspace_lock
with workspace_lock(Path(sys.argv[1]), "decoct night", shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    sys.stdin.read()
"""


def other(workspace: Path, kind: str) -> subprocess.Popen[str]:
    """Another process that holds the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workspace), kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_who_holds_it_is_told_and_a_kill_gives_it_back(tmp_path: Path) -> None:
    process = other(tmp_path, "alone")
    try:
        for shared in (True, False):
            with pytest.raises(EnvironmentProblem) as told, workspace_lock(tmp_path, "decoct run", shared=shared):
                pass
            assert re.search(rf"in use by decoct night \(process {process.pid}, since 20\S+\); wait", str(told.value))
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    with workspace_lock(tmp_path, "decoct store gc"):
        assert len(holders(tmp_path)) == 1
        assert "decoct store gc" in holders(tmp_path)[0]
    assert holders(tmp_path) == ()
    assert [path.name for path in (tmp_path / "locks").iterdir()] == ["workspace"]


def test_those_who_share_do_not_hinder_each_other_but_who_takes_out(tmp_path: Path) -> None:
    process = other(tmp_path, "shared")
    try:
        with workspace_lock(tmp_path, "decoct run", shared=True):
            assert len(holders(tmp_path)) == 2
        with pytest.raises(EnvironmentProblem, match="in use"), workspace_lock(tmp_path, "decoct forget"):
            pass
    finally:
        process.communicate()


def test_within_a_process_locks_nest_but_never_become_stronger(tmp_path: Path) -> None:
    with workspace_lock(tmp_path, "decoct night"), workspace_lock(tmp_path, "a run", shared=True):
        with workspace_lock(tmp_path, "again"):
            pass
        assert len(holders(tmp_path)) == 1
    with workspace_lock(tmp_path, "a run", shared=True):
        with workspace_lock(tmp_path, "a run", shared=True):
            pass
        with pytest.raises(EnvironmentProblem, match="in use by a run"), workspace_lock(tmp_path, "decoct forget"):
            pass
    with workspace_lock(tmp_path, "decoct forget"):
        pass
