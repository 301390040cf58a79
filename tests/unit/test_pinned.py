"""What runs under the site's account: the programs that a night's file names are pinned, and no crash leaves keys."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.doctor.examine import examine
from flows.nights.night import read_record, run_night
from flows.nights.pinned import FILE, pin, programs, require_pinned
from pipeline.core.config import Config, parse_config
from pipeline.core.errors import ConfigError, EnvironmentProblem, Held

PLAN: dict[str, Any] = {
    "name": "nightly",
    "source": {"kind": "embedded", "sets": ["a"]},
    "encode": {"raw": {"kind": "identity"}},
    "condense": {"private": {"kind": "private_moments"}},
    "release": {"artefact": "private", "policy": "strict", "site": "S", "licence": "ODbL-1.0"},
}
NEW_PROGRAMS: dict[str, dict[str, Any]] = {
    "a command": {"night": {"notify_command": ["/usr/bin/tee", "notice.json"], "notify_on": "all"}},
    "an encoder": {"encode": {"raw": {"kind": "identity"}, "own": {"kind": "plugin", "name": "own"}}},
    "a condenser": {"condense": {**PLAN["condense"], "own": {"kind": "plugin", "name": "own"}}},
    "a reader": {"source": {"kind": "their_reader"}},
}


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., Config]:
    return lambda **changes: parse_config({**PLAN, "workspace": str(tmp_path / "work"), **changes}, "a test", tmp_path)


def held(*_: object) -> None:
    raise Held("nothing new")


@pytest.mark.parametrize("what", NEW_PROGRAMS)
def test_a_night_that_names_other_programs_begins_nothing_and_tells_nobody(
    what: str, told: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[object] = []
    monkeypatch.setattr("flows.nights.night.notify", lambda *given, **more: sent.append(given) or ())
    run_night(told(), held)  # the first night pins
    changed = told(**NEW_PROGRAMS[what])
    sent.clear()
    for _ in range(2):
        with pytest.raises(ConfigError, match="names other programs than when it was scheduled"):
            run_night(changed, held)
    assert sent == []
    assert len(read_record(changed.workspace)) == 1
    pin(changed)  # somebody has read them
    assert run_night(changed, held).state == "held"
    with pytest.raises(ConfigError):  # and those before are others now
        run_night(told(), held)


def test_other_changes_are_said_and_go_on(told: Callable[..., Config], capsys: pytest.CaptureFixture[str]) -> None:
    require_pinned(told())
    require_pinned(told())
    assert capsys.readouterr().err == ""
    require_pinned(told(seed=7))
    assert "the configuration has changed since the last night" in capsys.readouterr().err
    require_pinned(told(seed=7))
    assert capsys.readouterr().err == ""
    require_pinned(told(name="another", night=NEW_PROGRAMS["a command"]["night"]))  # a run of its own


def test_the_pins_lie_with_the_keys_and_are_not_replaced_when_damaged(told: Callable[..., Config]) -> None:
    require_pinned(told())
    path = told().workspace / "keys" / FILE
    assert path.stat().st_mode & 0o777 == 0o600
    for damage in ("", "[]", '{"nightly": 1}'):
        path.write_text(damage)
        with pytest.raises(EnvironmentProblem, match="damaged"):
            require_pinned(told())
    path.chmod(0o644)
    with pytest.raises(EnvironmentProblem, match="open to group or others"):
        require_pinned(told())


def written(folder: Path, extra: str = "") -> Path:
    path = folder / "night.toml"
    path.write_text(
        'name = "nightly"\nworkspace = "work"\n[source]\nkind = "embedded"\n[encode.raw]\nkind = "identity"\n'
        '[condense.private]\nkind = "private_moments"\n[release]\nartefact = "private"\nlicence = "ODbL-1.0"\n' + extra
    )
    return path


@pytest.mark.parametrize(
    ("mode", "extra", "word"),
    [
        (0o600, "", "ok"),
        (0o644, '[night]\nnotify_command = ["/usr/bin/tee"]\n', "ok"),
        (0o664, "", "warn"),
        (0o646, '[night]\nnotify_command = ["/usr/bin/tee"]\n', "FAIL"),
    ],
)
def test_the_doctor_says_who_may_write_the_file_of_the_nights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, extra: str, word: str
) -> None:
    for check in ("versions", "tested_set", "owners", "memory", "telemetry"):
        monkeypatch.setattr(f"flows.doctor.machine.{check}", tuple)
    monkeypatch.setattr("flows.doctor.machine.device_begun", lambda: tuple)
    path = written(tmp_path, extra)
    path.chmod(mode)
    tmp_path.chmod(0o755)
    found = [finding for finding in examine(tmp_path / "work", path) if finding.check == "configuration"]
    assert [finding.word for finding in found] == [word, "ok"]
    assert ("it names /usr/bin/tee, which run as you" if extra else "it names no program") in found[0].told
    assert ("its owner alone" in found[0].told) == (word == "ok")
    assert not [finding for finding in examine(tmp_path / "work") if finding.check == "configuration"]


def test_no_program_is_named_by_default(told: Callable[..., Config]) -> None:
    assert programs(told()) == {"notify_command": [], "plugins": {}, "reader": ""}


def test_a_crash_of_the_command_line_leaves_no_copy_of_its_memory() -> None:
    script = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
from flows.cli.start import main
sys.argv = ["decoct", "--help"]
try:
    main()
except SystemExit:
    print("LIMIT", *resource.getrlimit(resource.RLIMIT_CORE))
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "LIMIT 0 0"
