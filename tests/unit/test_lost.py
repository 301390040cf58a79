"""Nothing that decides vanishes in silence: a file whose absence would say "nothing yet" is missed by its reader."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.doctor.lost import declare_lost, missing
from flows.nights.night import RECORD_FILE, read_record
from flows.nights.pinned import pin, require_pinned
from flows.workspace import accepted, history
from flows.workspace.job import Job
from flows.workspace.removing.withdrawals import withdraw, withdrawn_of
from pipeline.core.config import Config, parse_config
from pipeline.core.errors import DecoctError, EnvironmentProblem, UsageError
from pipeline.core.files.chained import writing
from pipeline.core.files.seen import SEEN, changing, states
from pipeline.core.keys.custody.keyring import keys_of, make_key
from pipeline.core.keys.custody.log import append_log as key_line
from pipeline.core.keys.custody.log import read_log as key_log
from pipeline.core.types import LeakageReport, Provenance
from pipeline.sharing.policy.budget import Budget
from pipeline.sharing.policy.ledger import People, reserve, reserved_queries
from pipeline.sharing.receive.state import load_state, remember
from pipeline.sharing.trust.keys import TrustRoot
from pipeline.sharing.trust.log import append_log, read_log

EVENT = {"event": "GaussianDpEvent", "noise_multiplier": 5.0}
NIGHT = {
    **dict.fromkeys(("night", "run", "state", "sentence", "config", "release"), "nightly"),
    **dict.fromkeys(("started", "ended"), "2026-01-01"),
    **dict.fromkeys(("exit_code", "wall_seconds"), 0),
    "digests": {},
    "seconds": {},
    "version": 1,
}
RELEASE = "releases/site-set-v1"
RECEIVED = "received"


def config_in(workspace: Path, seed: int = 0) -> Config:
    return parse_config(
        {
            "name": "nightly",
            "workspace": str(workspace),
            "seed": seed,
            "source": {"kind": "embedded"},
            "encode": {"raw": {"kind": "identity"}},
            "condense": {"private": {"kind": "private_moments"}},
            "release": {"artefact": "private", "licence": "ODbL-1.0"},
        },
        "the test's configuration",
        workspace,
    )


def job_in(workspace: Path) -> Job:
    return Job(config_in(workspace), workspace / "runs" / "nightly", resume=True)


def a_day(workspace: Path, day: int) -> None:
    """What a day leaves in every file of the list."""
    job = job_in(workspace)
    people = People(tuple(sorted(f"p{number}" for number in range(5))), "subject")
    reserve(workspace, f"q{day}", [EVENT], people, Budget(9.0, 1e-5, 365), "research")
    append_log(workspace, "send", {"day": day})
    with writing(workspace / "nights" / accepted.ACCEPTED_FILE) as record:
        record.append("accept", {"run": "nightly", "content": f"c{day}", "release": f"r{day}"})
    with writing(workspace / "nights" / RECORD_FILE) as record:
        record.append("night", NIGHT)
    report = LeakageReport("private", f"{day}" * 64, (), (), True, Provenance("audit"))
    history.remember_run(job, [report], again=False)
    pin(config_in(workspace, seed=day))
    withdraw(workspace, [f"p{day}"])
    key_line(keys_of(workspace), "share", {"day": day})
    release = {"site": "s", "name": "set", "version": day, "log": None}
    remember(workspace / RECEIVED / "state.json", TrustRoot(keys=()), b"", release, "0" * 64, None)


READERS: dict[str, Callable[[Path], object]] = {
    "ledger/ledger.jsonl": reserved_queries,
    "log/log.jsonl": read_log,
    "nights/accepted.jsonl": lambda workspace: accepted.newest_content(job_in(workspace)),
    "nights/nights.jsonl": read_record,
    "audits/nightly": lambda workspace: history.last_accepted(job_in(workspace), ""),
    "keys/night.pin": lambda workspace: require_pinned(config_in(workspace, seed=2)),
    "keys/log.jsonl": lambda workspace: key_log(keys_of(workspace)),
    "keys/split.key": lambda workspace: job_in(workspace).secret("split"),
    "withdrawn/list.json": withdrawn_of,
    "received/state.json": lambda workspace: load_state(workspace / RECEIVED / "state.json"),
}
FILES = {name: name for name in READERS} | {"audits/nightly": "audits.sqlite"}
OWN_WAY = {"withdrawn/list.json", "received/state.json"}  # said otherwise, or in another folder


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A workspace as it was yesterday, and as it is."""
    yesterday, today = (tmp_path_factory.mktemp("lived") / name for name in ("yesterday", "today"))
    make_key(keys_of(today), "split")
    a_day(today, 1)
    shutil.copytree(today, yesterday)
    a_day(today, 2)
    return yesterday, today


@pytest.fixture
def here(lived: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(lived[1], tmp_path / "work"))


def cut(path: Path) -> None:
    if path.suffix == ".sqlite":
        with sqlite3.connect(path) as database:
            database.execute("DELETE FROM report WHERE id = (SELECT max(id) FROM report)")
        database.close()
        return
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))


DAMAGE: dict[str, Callable[[Path, Path], object]] = {
    "removed": lambda path, old: path.unlink(),
    "emptied": lambda path, old: path.write_bytes(b""),
    "cut by its last line": lambda path, old: cut(path),
    "yesterday's copy": lambda path, old: shutil.copy2(old, path),
}


def test_a_fresh_workspace_and_a_backup_of_all_of_it_just_work(tmp_path: Path, lived: tuple[Path, Path]) -> None:
    for workspace in (*lived, tmp_path / "new"):
        for name, read in READERS.items():
            if workspace.name != "yesterday" or name != "keys/night.pin":  # that reader names today's programs
                read(workspace)
        assert list(missing(workspace)) == []


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", READERS)
def test_what_is_not_as_it_was_left_stops_its_reader(
    name: str, damage: str, lived: tuple[Path, Path], here: Path
) -> None:
    if name.endswith(".key") and damage == "yesterday's copy":
        return  # the same file
    path, old = here / FILES[name], lived[0] / FILES[name]
    DAMAGE[damage](path, old)
    with pytest.raises(DecoctError) as told:
        READERS[name](here)
    assert name in str(told.value) or name in OWN_WAY or name.endswith(".key")
    assert "\n" not in str(told.value)
    if name in OWN_WAY or (name.endswith(".key") and damage != "removed"):
        return  # a key that was cut says so itself, for ever
    if path.exists() and damage == "emptied" and path.suffix == ".sqlite":
        path.unlink()
    assert name in dict(missing(here))
    if name != "log/log.jsonl":
        with pytest.raises(UsageError, match="is as it was left"):
            declare_lost(here, ["log/log.jsonl"])
    declare_lost(here, [name])
    if path.exists() and name == "keys/night.pin" and not path.read_bytes():
        path.unlink()  # as it says itself
        declare_lost(here, [name])
    READERS[name](here)
    assert list(missing(here)) == []
    assert name in {entry.get("file") for entry in read_log(here).entries if entry["what"] == "lost"}
    a_day(here, 3)
    assert list(missing(here)) == []


@pytest.mark.parametrize("damage", ["removed", "yesterday's copy"])
def test_nor_does_the_note_itself_vanish_in_silence(damage: str, lived: tuple[Path, Path], here: Path) -> None:
    DAMAGE[damage](keys_of(here) / SEEN, keys_of(lived[0]) / SEEN)
    believed = {
        "keys/split.key",
        *(["keys/night.pin", "keys/log.jsonl"] if damage == "removed" else []),
    }  # keys may be copied alone
    for name in sorted({*READERS} - OWN_WAY - believed):
        with pytest.raises(DecoctError):
            READERS[name](here)
    names = sorted(dict(missing(here)))
    assert {*names} >= {*READERS} - OWN_WAY - believed
    result = CliRunner().invoke(app, ["log", "lost", *names, "--out", str(here)])
    assert result.exit_code == 0
    assert "everything else is as it was left" in result.stdout
    a_day(here, 3)


def test_a_bundle_that_cannot_be_asked_stops_the_ledger(here: Path) -> None:
    """It was skipped: who could write one byte of a manifest could take its checkpoint away."""
    manifest = here / RELEASE / "manifest.json"
    manifest.parent.mkdir(parents=True)
    whole = json.dumps({"log": append_log(here, "propose", {}).plain()})
    manifest.write_text(whole)
    reserved_queries(here)
    for text in ("", "{", "[]", "null", '{"log": 1}', '{"log": {}}', "[" * 9999, '{"log": "' + "x" * 99 + '"}'):
        manifest.write_text(text)
        with pytest.raises(DecoctError, match=f"site-set-v1.* decoct log lost {RELEASE}"):
            reserved_queries(here)
    manifest.unlink()
    (here / RELEASE / "card.md").touch()
    with pytest.raises(DecoctError, match="cannot be read"):
        withdrawn_of(here)
    declare_lost(here, [RELEASE])
    reserved_queries(here)
    withdrawn_of(here)


def test_a_log_that_is_lost_takes_the_word_of_its_bundles_with_it(here: Path) -> None:
    manifest = here / RELEASE / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"log": append_log(here, "propose", {}).plain()}))
    (here / "log" / "log.jsonl").unlink()
    declare_lost(here, ["log/log.jsonl"])
    reserved_queries(here)
    files = [entry.get("file") for entry in read_log(here).entries]
    assert files[:2] == ["log/log.jsonl", RELEASE]


@pytest.mark.parametrize("line", ["not there", "there"])
def test_a_kill_while_a_line_is_written_loses_nothing(here: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both states are good until the next writer settles on the one that is there, and then only that one."""

    class Killed(BaseException):
        pass

    @contextmanager
    def killed(*of: Any) -> Iterator[None]:
        with changing(*of):
            if line == "there":
                yield
            raise Killed

    before = read_log(here)
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.core.files.chained.changing", killed)
        with pytest.raises(Killed):
            append_log(here, "send", {})
    assert len(states(keys_of(here))["log/log.jsonl"]) == 2
    assert len(read_log(here).lines) == len(before.lines) + (line == "there")
    assert list(missing(here)) == []
    append_log(here, "send", {})
    assert states(keys_of(here))["log/log.jsonl"] == (read_log(here).state,)


def test_a_key_that_was_made_is_not_made_anew(here: Path) -> None:
    """With another split key everybody would be new, and a set would be tested on those whom it was made of."""
    (keys_of(here) / "split.key").unlink()
    for making in (lambda: job_in(here).secret("split"), lambda: make_key(keys_of(here), "split")):
        with pytest.raises(EnvironmentProblem, match=r"decoct log lost keys/split\.key"):
            making()
    assert not (keys_of(here) / "split.key").exists()


def test_the_drill_of_the_page_tells_the_loss_and_ends_as_it_began(lived: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(lived[1], tmp_path / "decoct-work")
    make_key(keys_of(tmp_path / "decoct-work"), "noise")
    page = Path(__file__).parents[2] / "docs" / "how-to" / "every-night.md"
    (drill,) = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    verb = f'decoct() {{ "{sys.executable}" -m flows.cli "$@"; }}\n'
    done = subprocess.run(["bash", "-c", verb + drill], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *lost, last = done.stdout.splitlines()
    assert first == last == "everything is as it was left"
    assert any("ledger/ledger.jsonl" in line for line in lost), lost
    assert any("noise.key" in line for line in lost), lost
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "decoct-work"]
