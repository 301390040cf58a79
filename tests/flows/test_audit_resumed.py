"""A full audit that is killed in the middle of its shadow runs goes on where it was, and comes to the same report."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from flows.stages.attacks.shadows import counted
from pipeline.audit.run import DEFAULT_ATTACKS
from pipeline.audit.scene import CondensedScene

SHADOWS = 24
STOPPED_AT = 7

AUDIT = """
import dataclasses, json, sys, time
from pathlib import Path
import numpy as np
from flows.stages.attacks.shadows import announced
from pipeline.audit.sets.near_copies import NearCopies
from pipeline.audit.run import audit
from pipeline.audit.scene import CondensedScene
from pipeline.audit.sets.shadows import ShadowCondensation
from pipeline.audit.sets.successive import SuccessiveReleases
from pipeline.core.codec import to_plain
from pipeline.core.digest import canonical_json
from pipeline.core.types import CondensedSet, Provenance, Task

folder, pause = Path(sys.argv[1]), float(sys.argv[2])

def people(n, seed):
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.2, 0.8, (n, 1, 3))
    return np.clip(level + rng.normal(0, 0.05, (n, 6, 3)), 0, 1).astype(np.float32)

def condense(series, labels, subjects, seed):
    with (folder / "made.log").open("a") as log:
        log.write("condensed\\n")
    time.sleep(pause)
    noise = np.random.default_rng(seed).normal(0, 0.05, (40, 6, 3))
    return (series[:: max(1, len(series) // 40)][:40] + noise).astype(np.float32)

members, others = people(300, 1), people(300, 2)
samples = condense(members, None, None, 0)
(folder / "made.log").unlink()
made = CondensedSet(samples, np.zeros((40, 1), np.float32), ("a", "b", "c"), (Task("death"),), 1.0, (), "test", False,
                    None, Provenance("test"))
labels = np.zeros((300, 1), np.float32)
scene = CondensedScene("set", "0" * 64, made, members, others, np.arange(300), 1000 + np.arange(300), labels, labels,
                       condense, str(folder / "shadows"))
told = announced(scene, pause, "full", lambda text: print(text, file=sys.stderr, flush=True))
attacks = (NearCopies(), ShadowCondensation(), SuccessiveReleases())
(report,) = audit([told], seed=4, level="full", attacks=attacks)
(folder / "report.json").write_bytes(canonical_json(to_plain(report)))
"""


def started(folder: Path, pause: float) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    words = [sys.executable, "-c", AUDIT, str(folder), str(pause)]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def made(folder: Path) -> int:
    log = folder / "made.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.mark.slow
def test_a_killed_audit_goes_on_and_gives_the_same_report(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = started(whole, 0.0)
    told = undisturbed.communicate(timeout=300)[1]
    assert undisturbed.returncode == 0, told
    assert made(whole) == SHADOWS
    assert f"set: {SHADOWS} shadow condensations of about 0.0 s" in told.splitlines()[0]

    victim = started(killed, 0.5)
    deadline = time.monotonic() + 240
    while made(killed) < STOPPED_AT:
        assert time.monotonic() < deadline
        assert victim.poll() is None
        time.sleep(0.05)
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=60)
    assert victim.returncode == -signal.SIGKILL
    assert not (killed / "report.json").exists()
    kept = len(list((killed / "shadows").glob("shadow-*.npy")))
    assert STOPPED_AT - 1 <= kept < SHADOWS

    (killed / "made.log").unlink()
    resumed = started(killed, 0.0)
    told = resumed.communicate(timeout=300)[1]
    assert resumed.returncode == 0, told
    assert made(killed) == SHADOWS - kept
    assert (killed / "report.json").read_bytes() == (whole / "report.json").read_bytes()
    first = told.splitlines()[0]
    assert f"set: {SHADOWS - kept} shadow condensations of about" in first
    assert f"{kept} of {SHADOWS} are kept from before" in first
    assert json.loads((whole / "report.json").read_text())["results"]


def test_the_time_that_is_left_is_bounded_and_falls() -> None:
    said: list[str] = []
    again = counted(lambda series, *_: series, "private", 3, 12.0, said.append)
    for _ in range(3):
        again(np.zeros((1, 1, 1)), np.zeros((1, 1)), np.zeros(1), 0)
    assert said[0] == "  private: 3 shadow condensations of about 12.0 s, at most 36 s"
    left = [int(re.search(r"at most (\d+) s", line)[1]) for line in said]  # type: ignore[index]  # or the test fails
    assert left == sorted(left, reverse=True)
    assert "1 shadow condensation of" in said[-1]


def test_attacks_that_condense_again_are_counted() -> None:
    """An attack of the full audit that said nothing would make the announced time too short."""
    full = [attack for attack in DEFAULT_ATTACKS if getattr(attack, "level", "screen") == "full"]
    again = [attack.name for attack in full if attack.scene_type is CondensedScene]
    assert again == [attack.name for attack in full if hasattr(attack, "condensations")]
    assert again == ["shadow_condensation", "successive_releases"]
