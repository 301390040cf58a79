"""The log for machines: two lines per stage, scrubbed, bounded, readable after a kill."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.workspace import logs
from flows.workspace.job import Job
from flows.workspace.logs import LOG_FILE, OLDER_FILE, labelled, logged, read_log
from pipeline.core.config import parse_config
from pipeline.core.errors import ConfigError, DataError, DecoctError
from pipeline.core.redaction import scrubbed
from pipeline.store import Made

MADE: Made[object] = Made(("ab" * 32, "cd" * 32), 1.5, reused=True)


def test_a_line_tells_stage_digests_and_time(tmp_path: Path) -> None:
    before = datetime.now(tz=UTC)
    with logged(tmp_path, "encode raw") as tell:
        tell(MADE)
    (line,) = read_log(tmp_path)
    assert (line["stage"], line["run"], line["level"]) == ("encode raw", tmp_path.name, "info")
    assert line["digests"] == ["abababababab", "cdcdcdcdcdcd"]
    assert line["reused"] is True
    assert line["exit_code"] == 0
    assert abs((datetime.fromisoformat(line["time"]) - before).total_seconds()) < 60
    assert (tmp_path / LOG_FILE).stat().st_mode & 0o077 == 0


def test_a_failure_is_a_clean_sentence_and_goes_on(tmp_path: Path) -> None:
    with pytest.raises(DataError), logged(tmp_path, "ingest"), scrubbed("ingest"):
        raise DataError("column HR of vitals.csv holds 3 values that are no numbers")
    with pytest.raises(DecoctError), logged(tmp_path, "prepare"), scrubbed("prepare"):
        raise ValueError("patient 132539 has 187.5")
    told = read_log(tmp_path)
    assert [line["exit_code"] for line in told] == [11, 1]
    assert told[0]["sentence"].startswith("column HR")
    assert "132539" not in (tmp_path / LOG_FILE).read_text()
    assert "187.5" not in (tmp_path / LOG_FILE).read_text()


def test_without_redaction_only_the_type_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="secret"), logged(tmp_path, "x"):
        raise ValueError("secret 187.5")
    with pytest.raises(KeyboardInterrupt), logged(tmp_path, "y"):
        raise KeyboardInterrupt
    assert [(line["sentence"], line["exit_code"]) for line in read_log(tmp_path)] == [
        ("ValueError", 1),
        ("interrupted", 130),
    ]


def test_the_log_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 2000)
    for number in range(40):
        with logged(tmp_path, f"stage {number}"):
            pass
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("log*")}
    assert set(sizes) == {LOG_FILE, OLDER_FILE}
    assert max(sizes.values()) <= 2000
    assert read_log(tmp_path)[-1]["stage"] == "stage 39"


def test_a_line_cut_by_a_kill_spoils_no_other(tmp_path: Path) -> None:
    with logged(tmp_path, "one"):
        pass
    path = tmp_path / LOG_FILE
    path.write_bytes(path.read_bytes() + b'{"time": "2026-')
    with logged(tmp_path, "two"):
        pass
    assert [line["stage"] for line in read_log(tmp_path)] == ["one", "two"]


def test_a_log_that_cannot_be_written_stops_no_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / LOG_FILE).mkdir()
    with logged(tmp_path, "ingest") as tell:
        tell(MADE)
    assert "could not be written" in capsys.readouterr().err


def test_a_stage_of_the_road_writes_its_line(tmp_path: Path) -> None:
    from flows.run import execute

    tables = {
        "name": "logged",
        "source": {"kind": "embedded"},
        "encode": {"raw": {"kind": "identity"}},
        "condense": {"private": {"kind": "private_moments"}},
        "release": {"artefact": "private", "licence": "ODbL-1.0"},
    }

    def broken(job: Job) -> None:
        raise ConfigError("a table is missing")

    with pytest.raises(DecoctError):
        execute(Job(parse_config(tables, "the test", tmp_path), tmp_path, resume=False), "ingest", broken, ())
    began, ended = [json.loads(text) for text in (tmp_path / LOG_FILE).read_text().splitlines()]
    assert (began["stage"], began["event"], "exit_code" in began) == ("ingest", "began", False)
    assert (ended["stage"], ended["event"], ended["exit_code"]) == ("ingest", "ended", 10)


def test_every_line_names_the_night_and_the_flow_run_that_it_belongs_to(tmp_path: Path) -> None:
    with labelled(flow_run="f"):
        with labelled(night="n"), logged(tmp_path, "one"):
            pass
        with logged(tmp_path, "two"):
            pass
    with logged(tmp_path, "three"):
        pass
    lines = [json.loads(text) for text in (tmp_path / LOG_FILE).read_text().splitlines()]
    named = [(line["stage"], line.get("night"), line.get("flow_run")) for line in lines]
    assert named == 2 * [("one", "n", "f")] + 2 * [("two", None, "f")] + 2 * [("three", None, None)]
