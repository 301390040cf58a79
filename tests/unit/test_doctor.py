"""The doctor: every check passes where things are well and says what is wrong where they are not."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.doctor import examine as doctor
from flows.doctor import machine as doctor_machine
from flows.doctor import workspace as doctor_workspace
from flows.doctor.checked import Checked
from flows.doctor.examine import examine
from flows.environment import TELEMETRY_OFF
from flows.workspace.locks import workspace_lock
from flows.workspace.logs import logged
from pipeline.core.keys.secrets import Secret, write_secret
from pipeline.sharing.trust.log import append_log

NOW = datetime.now(tz=UTC)


def words(findings: Iterable[Checked]) -> list[str]:
    return [finding.word for finding in findings]


def pairs(findings: Iterable[Checked]) -> list[tuple[str, str]]:
    return [(finding.word, finding.told) for finding in findings]


def told(findings: Iterable[Checked]) -> str:
    return "; ".join(finding.told for finding in findings)


def test_on_this_machine_nothing_is_grave(tmp_path: Path) -> None:
    found = tuple(examine(tmp_path))
    assert not [finding for finding in found if finding.word == "FAIL"]
    assert {"versions", "disk", "memory", "device", "telemetry", "clock", "Prefect"} <= {f.check for f in found}


def test_a_check_that_breaks_is_a_finding_and_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_: Path) -> Iterable[Checked]:
        raise RuntimeError("secret 187.5")

    monkeypatch.setattr(doctor_workspace, "keys", breaks)
    found = {finding.check: finding for finding in doctor.examine(tmp_path)}
    assert found["key"].told == "could not be looked at: RuntimeError"
    assert found["clock"].ok


def test_a_version_outside_its_bounds_is_grave(monkeypatch: pytest.MonkeyPatch) -> None:
    assert words(doctor_machine.versions()) == ["ok"]
    monkeypatch.setattr(doctor_machine, "requires", lambda _: ["numpy<1", "no-such-package-here"])
    assert words(doctor_machine.versions()) == ["FAIL"]
    assert "no-such-package-here is missing" in told(doctor_machine.versions())


def test_other_versions_than_those_tested_together_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    pins = doctor_machine.shipped_pins()
    assert pins is not None
    assert pins["torch"]
    monkeypatch.setattr(doctor_machine, "shipped_pins", lambda: {"numpy": "1.0.0", "not-installed": "1"})
    assert words(doctor_machine.tested_set()) == ["warn"]
    assert "tested 1.0.0" in told(doctor_machine.tested_set())
    monkeypatch.setattr(doctor_machine, "version", lambda _: "2.13.0+cpu")
    assert doctor_machine.differing({"torch": "2.13.0"}) == []
    monkeypatch.setattr(doctor_machine, "shipped_pins", lambda: None)
    assert words(doctor_machine.tested_set()) == ["warn"]


def test_a_second_owner_of_our_names_is_grave(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(words(doctor_machine.owners())) == {"ok"}
    monkeypatch.setattr(doctor_machine, "packages_distributions", lambda: {"pipeline": ["decoct", "other"]})
    assert words(doctor_machine.owners()).count("FAIL") == 1


def test_little_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text(f"{3 * 2**30}\n")
    assert doctor_machine.container_gib(limit) == 3
    limit.write_text("max\n")
    assert doctor_machine.container_gib(limit) == 0
    assert doctor_machine.available_gib(tmp_path / "absent") is None
    monkeypatch.setattr(doctor_machine, "container_gib", lambda: 3)
    monkeypatch.setattr(doctor_machine, "available_gib", lambda: 0.5)
    assert words(doctor_machine.memory()) == ["FAIL", "warn"]
    monkeypatch.setattr(doctor_machine, "container_gib", lambda: 0)
    monkeypatch.setattr(doctor_machine, "memory_gib", lambda: 64)
    monkeypatch.setattr(doctor_machine, "available_gib", lambda: 32.0)
    assert words(doctor_machine.memory()) == ["ok", "ok"]


def test_a_device_that_does_not_compute_is_grave(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pairs(doctor_machine.device_begun()()) == [("ok", "cpu computes")]
    for ending, reason in (
        ("raise RuntimeError('no kernel image')", 'cuda does not compute; set device = "cpu"'),
        (f"sys.exit({doctor_machine.WRONG})", "cuda computes wrongly"),
        ("os.kill(os.getpid(), 4)", 'cuda does not compute; set device = "cpu"'),
    ):
        monkeypatch.setattr(doctor_machine, "COMPUTES", f"import os, sys\nprint('cuda', flush=True)\n{ending}")
        assert pairs(doctor_machine.device_begun()()) == [("FAIL", reason)]
    monkeypatch.setattr(doctor_machine, "DEVICE_SECONDS", 0.2)
    monkeypatch.setattr(doctor_machine, "COMPUTES", "import time; time.sleep(60)")
    assert pairs(doctor_machine.device_begun()()) == [("FAIL", "no answer within 0.2 s")]
    monkeypatch.setattr(doctor_machine, "DEVICE_SECONDS", 60)
    monkeypatch.setattr(doctor_machine, "COMPUTES", "raise ImportError")
    assert pairs(doctor_machine.device_begun()()) == [("FAIL", "torch cannot be loaded (exit code 1)")]
    monkeypatch.setattr(doctor_machine.sys, "executable", "/nowhere/python")
    assert words(doctor_machine.device_begun()()) == ["FAIL"]


def test_telemetry_is_looked_at_where_the_libraries_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert words(doctor_machine.telemetry(TELEMETRY_OFF)) == ["ok", "ok"]
    assert words(doctor_machine.telemetry({"DO_NOT_TRACK": "1"})) == ["FAIL", "ok"]
    from prefect.settings import PREFECT_SERVER_ANALYTICS_ENABLED, temporary_settings

    with temporary_settings({PREFECT_SERVER_ANALYTICS_ENABLED: True}):  # as a profile or prefect.toml would
        assert words(doctor_machine.telemetry(TELEMETRY_OFF)) == ["ok", "FAIL"]
    monkeypatch.delenv("DO_NOT_TRACK")
    monkeypatch.delenv("CI", raising=False)
    assert "Prefect's client" in doctor_machine.libraries_that_send()


def test_a_full_disk_is_grave_and_a_large_store_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(words(doctor_workspace.disk(tmp_path / "not" / "yet"))) == {"ok"}
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 10))
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "object").write_bytes(bytes(11))
    assert words(doctor_workspace.disk(tmp_path))[:2] == ["FAIL", "warn"]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("server:/share {place} nfs4 rw,relatime 0 0", "warn"),
        ("tmpfs {place} tmpfs rw 0 0", "warn"),
        ("/dev/sdb1 {place} ext4 ro,relatime 0 0", "FAIL"),
        ("/dev/sdb1 {place} ext4 rw,noexec 0 0", "ok"),
        ("server:/share {place}-other nfs4 rw 0 0", "ok"),
    ],
)
def test_what_lies_under_the_workspace_is_told(
    tmp_path: Path, line: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mounts"
    place = tmp_path / "a place"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    escaped = str(place).replace(" ", r"\040")
    mounts.write_text("/dev/sda1 / ext4 rw 0 0\n" + line.format(place=escaped) + "\n")
    assert words(doctor_workspace.file_system(place / "decoct-work", mounts)) == [word]
    assert list(doctor_workspace.file_system(place, tmp_path / "absent")) == []


def test_scratch_without_execution_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mounts").write_text(f"/dev/sda1 / ext4 rw 0 0\ntmpfs {tmp_path}/scratch tmpfs rw,noexec 0 0\n")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    assert words(doctor_workspace.file_system(tmp_path, tmp_path / "mounts")) == ["ok", "warn"]


def test_an_open_key_is_grave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(doctor_workspace.keys(tmp_path)) == []
    path = tmp_path / "keys" / "encoder.key"
    write_secret(path, Secret(bytes(32), "encoder"))
    assert words(doctor_workspace.keys(tmp_path)) == ["ok", "ok"]
    path.chmod(0o640)
    path.parent.chmod(0o755)
    assert words(doctor_workspace.keys(tmp_path)) == ["FAIL", "FAIL"]
    path.chmod(0o600)
    path.parent.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert "belongs to another user" in told(doctor_workspace.keys(tmp_path))


def test_what_others_can_read_is_grave(tmp_path: Path) -> None:
    assert list(doctor_workspace.access(tmp_path)) == []
    append_log(tmp_path, "propose", {"site": "s", "name": "n", "version": 1, "policy": "p"})
    (tmp_path / "store" / "objects").mkdir(parents=True, mode=0o700)
    assert words(doctor_workspace.access(tmp_path)) == ["ok"]
    (tmp_path / "store" / "objects").chmod(0o750)
    (tmp_path / "log" / "log.jsonl").chmod(0o604)
    assert words(doctor_workspace.access(tmp_path)) == ["FAIL", "FAIL"]


def test_leftovers_are_a_warning_and_who_works_is_no_leftover(tmp_path: Path) -> None:
    assert words(doctor_workspace.leftovers(tmp_path)) == ["ok"]
    (tmp_path / "store" / "tmp" / "x").mkdir(parents=True)
    (tmp_path / ".thing.ab.new").touch()
    assert told(doctor_workspace.leftovers(tmp_path)).startswith("2 half-written")
    assert words(doctor_workspace.leftovers(tmp_path)) == ["warn"]
    with workspace_lock(tmp_path, "decoct night"):
        assert "in use by decoct night" in told(doctor_workspace.leftovers(tmp_path))
        assert words(doctor_workspace.leftovers(tmp_path)) == ["ok"]


def test_a_clock_that_cannot_be_right_is_grave(tmp_path: Path) -> None:
    assert words(doctor_workspace.clock(tmp_path, NOW)) == ["ok"]
    assert words(doctor_workspace.clock(tmp_path, NOW.replace(year=1970))) == ["FAIL"]
    assert words(doctor_workspace.clock(tmp_path, NOW.replace(year=2099))) == ["FAIL"]
    append_log(tmp_path, "propose", {"site": "s", "name": "n", "version": 1, "policy": "p"})
    assert words(doctor_workspace.clock(tmp_path, NOW + timedelta(hours=1))) == ["ok"]
    back = list(doctor_workspace.clock(tmp_path, NOW - timedelta(minutes=30)))
    if (NOW - timedelta(minutes=30)).year >= doctor_workspace.BUILT:
        assert "went backwards" in back[0].told


def test_a_stage_written_later_than_now_tells_of_the_clock(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "nightly"
    run.mkdir(parents=True)
    with logged(run, "ingest"):
        pass
    assert words(doctor_workspace.clock(tmp_path, NOW + timedelta(hours=1))) == ["ok"]
    assert words(doctor_workspace.clock(tmp_path, NOW - timedelta(hours=1))) == ["FAIL"]


def test_the_database_is_absent_sound_large_or_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "prefect.db"
    assert doctor_workspace.database(path).word == "ok"
    with sqlite3.connect(path) as connection:
        connection.execute("create table t (a)")
    connection.close()
    assert doctor_workspace.database(path).word == "ok"
    monkeypatch.setattr(doctor_workspace, "DATABASE_GIB", 0)
    assert doctor_workspace.database(path).word == "warn"
    path.write_bytes(b"SQLite format 3\x00" + os.urandom(5000))
    assert doctor_workspace.database(path).word == "FAIL"


def test_the_database_is_looked_for_where_the_runs_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "work" / "prefect").mkdir(parents=True)
    (tmp_path / "work" / "prefect" / "prefect.db").write_bytes(b"rubbish" * 100)
    assert words(doctor_workspace.prefect(tmp_path / "work")) == ["FAIL"]
    assert "PREFECT_HOME" not in os.environ


def test_a_server_that_was_named_has_to_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("PREFECT_API_URL", f"http://someone:password@127.0.0.1:{port}/api")
        assert words(doctor_workspace.prefect(tmp_path)) == ["ok"]
    found = list(doctor_workspace.prefect(tmp_path))
    assert words(found) == ["FAIL"]
    assert "password" not in told(found)


def test_nothing_is_changed_by_looking(tmp_path: Path) -> None:
    append_log(tmp_path, "propose", {"site": "s", "name": "n", "version": 1, "policy": "p"})
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert tuple(examine(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_verb_fails_with_its_code_when_a_check_does(tmp_path: Path) -> None:
    write_secret(tmp_path / "keys" / "encoder.key", Secret(bytes(32), "encoder"))
    (tmp_path / "keys" / "encoder.key").chmod(0o644)
    command = [sys.executable, "-X", "importtime", "-m", "flows.cli", "doctor", "--out", str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 15
    assert "| prefect" in answer.stderr.replace("  ", "")
    assert "great_expectations" not in answer.stderr  # three seconds, to be told that it sends nothing
    assert "FAIL  key" in answer.stdout
    assert "OPEN to group and others" in answer.stdout
