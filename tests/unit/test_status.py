"""What a monitoring system is told of a workspace: levels, exit codes, figures; what is unknown is never good."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from flows.cli.main import app
from flows.nights import night as night_module
from flows.nights import status as status_module
from flows.nights.night import GOOD, read_record, run_night
from flows.nights.status import EXIT_CODES, MAX_AGE_HOURS, judged, measured, status, write_metrics
from flows.watch.page import gather
from flows.workspace.job import REPORT_PAGE, REPORTS, Job
from pipeline.core.config import Config, parse_config
from pipeline.core.errors import DataError, EnvironmentProblem, Held
from pipeline.core.types.drift import LEVELS
from pipeline.sharing.policy.ledger import Budget, People, reserve

PLAN: dict[str, Any] = {
    "name": "ward",
    "source": {"kind": "embedded", "sets": ["a"]},
    "encode": {"raw": {"kind": "identity"}},
    "condense": {"private": {"kind": "private_moments"}},
    "release": {"artefact": "private", "policy": "strict", "site": "S", "licence": "ODbL-1.0"},
    "night": {"notify_on": "never", "metrics": "decoct.prom"},
}
STATES = ("released", "proposed", "unchanged", "held", "refused", "failed", "interrupted", "killed")


@pytest.fixture
def plan(tmp_path: Path) -> Config:
    return parse_config({**PLAN, "workspace": str(tmp_path / "work")}, "a test", tmp_path)


def ends(error: BaseException) -> Callable[..., None]:
    def road(*_: object) -> None:
        raise error

    return road


def level_of(plan: Config, *, later: timedelta = timedelta(), **more: Any) -> tuple[str, str]:
    found = status(plan.workspace, now=datetime.now(tz=UTC) + later, **more)
    return found.level, "; ".join(finding.told for finding in found.findings if finding.level == found.level)


def test_a_good_night_is_ok_until_it_is_too_old(plan: Config) -> None:
    run_night(plan, ends(Held("nothing new")))
    assert level_of(plan)[0] == "OK"
    assert level_of(plan, later=timedelta(hours=MAX_AGE_HOURS - 0.1))[0] == "OK"
    assert level_of(plan, later=timedelta(hours=MAX_AGE_HOURS + 0.1))[0] == "CRITICAL"
    assert level_of(plan, later=timedelta(hours=30), max_age_hours=31)[0] == "OK"
    level, told = level_of(plan, later=timedelta(hours=-1))
    assert (level, "clock has gone back" in told) == ("CRITICAL", True)


def test_a_retired_configuration_is_left_out_by_name_and_an_unknown_one_is_not_passed_over(plan: Config) -> None:
    run_night(plan.model_copy(update={"name": "old"}), ends(DataError("no records")))
    run_night(plan, ends(Held("nothing new")))
    assert level_of(plan)[0] == "CRITICAL"
    assert level_of(plan, only=["ward"])[0] == "OK"
    assert level_of(plan, only=["ward", "wrad"]) == ("UNKNOWN", "no scheduled run of this name has ended here")


def test_what_a_gate_refused_is_critical_and_keeps_the_time_of_the_last_good_end(plan: Config) -> None:
    run_night(plan, ends(Held("nothing new")))
    run_night(plan, ends(DataError(f"{plan.workspace}/132539.txt: 3 stays have no time")))
    level, told = level_of(plan)
    assert level == "CRITICAL"
    assert "exit code 11" in told
    assert not any(word in told for word in (str(plan.workspace), "132539", "3 stays"))
    assert status(plan.workspace, now=datetime.now(tz=UTC)).runs[0].last_good is not None


def test_nothing_known_is_unknown_and_a_damaged_record_is_critical(plan: Config, tmp_path: Path) -> None:
    plan.workspace.mkdir()
    assert level_of(plan)[0] == "UNKNOWN"
    with pytest.raises(EnvironmentProblem, match="cannot be read"):
        status(tmp_path / "nowhere", now=datetime.now(tz=UTC))
    run_night(plan, ends(Held("nothing new")))
    run_night(plan, ends(Held("nothing new")))
    record = plan.workspace / "nights" / "nights.jsonl"
    record.write_text(record.read_text().replace("held", "good", 1))
    assert level_of(plan)[0] == "CRITICAL"


@settings(max_examples=200)
@given(st.sampled_from(STATES), st.integers(0, 100), st.integers(1, 50), st.sampled_from(("", *LEVELS)))
def test_ok_is_a_good_end_that_is_young_and_has_not_drifted(state: str, age: int, most: int, drift: str) -> None:
    now = datetime(2026, 11, 30, tzinfo=UTC)
    ended = now - timedelta(hours=age)
    good = ended.timestamp() if state in GOOD else None
    found = status_module.RunFigures("ward", state, 0, ended.timestamp(), good, 0.0, {}, 0, drift)
    level = judged(found, "", now, timedelta(hours=most)).level
    calm = state in GOOD and age <= most
    assert (level == "OK") == (calm and drift not in ("warn", "stop"))
    assert calm or level in ("CRITICAL", "WARNING")


def test_a_full_disk_and_a_spent_budget_are_told(plan: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    run_night(plan, ends(Held("nothing new")))
    events = [{"event": "GaussianDpEvent", "noise_multiplier": 2.0}]
    people = People(tuple(f"p{number}" for number in range(20)), "subject")
    reserve(plan.workspace, "q", events, people, Budget(20.0, 1e-5, 365), "house")
    found = status(plan.workspace, now=datetime.now(tz=UTC))
    assert found.epsilon is not None
    left, budget = found.epsilon
    for share, level in ((left / budget - 0.01, "OK"), (left / budget + 0.01, "WARNING")):
        monkeypatch.setattr(status_module, "SHARE_LEFT", share)
        assert level_of(plan)[0] == level
    assert "of 20.00 left" in level_of(plan)[1]
    monkeypatch.setattr(status_module, "FREE_DISK_GIB", 1 << 30)
    assert level_of(plan)[0] == "CRITICAL"


def test_metrics_are_read_by_prometheus_s_own_parser_and_hold_names_and_figures_alone(plan: Config) -> None:
    for error in (Held("nothing new"), DataError("column HR holds 17 values")):
        with measured(plan):
            run_night(plan, ends(error))
    assert plan.night.metrics is not None
    text = plan.night.metrics.read_text()
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["decoct_status",] == EXIT_CODES["CRITICAL"]
    assert found["decoct_night_exit_code", "ward"] == 11
    assert found["decoct_night_state", "ward", "refused"] == 1
    assert (
        found["decoct_night_last_good_timestamp_seconds", "ward"]
        <= found["decoct_night_ended_timestamp_seconds", "ward"]
    )
    assert "HR" not in text
    assert str(plan.workspace) not in text


def test_metrics_that_cannot_be_written_change_no_end(plan: Config, capsys: pytest.CaptureFixture[str]) -> None:
    there = plan.model_copy(update={"night": plan.night.model_copy(update={"metrics": Path("/nowhere/decoct.prom")})})
    with measured(there):
        assert run_night(there, ends(Held("nothing new"))).state == "held"
    assert "/nowhere/decoct.prom" in capsys.readouterr().err
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        write_metrics(status(there.workspace, now=datetime.now(tz=UTC)), Path("/nowhere/decoct.prom"))


def test_the_verb_ends_with_a_plugin_s_code_and_its_first_line_says_why(plan: Config, tmp_path: Path) -> None:
    def asked(*words: str) -> tuple[int, str]:
        answer = CliRunner().invoke(app, ["status", "--out", str(plan.workspace), *words])
        return answer.exit_code, answer.stdout

    code, text = asked()
    assert (code, text.startswith("DECOCT UNKNOWN - ")) == (3, True)
    run_night(plan, ends(Held("nothing new")))
    assert asked()[1].splitlines()[0].startswith("DECOCT OK - ")
    code, text = asked("--max-age", "0", "--json", "--metrics", str(tmp_path / "m.prom"))
    told = json.loads(text)
    assert (code, told["level"], told["runs"][0]["run"]) == (2, "CRITICAL", "ward")
    assert (tmp_path / "m.prom").exists()
    assert dataclasses.asdict(read_record(plan.workspace)[0])["state"] == "held"
    assert "26 if not given" in " ".join(CliRunner().invoke(app, ["status", "--help"]).output.split())
    assert MAX_AGE_HOURS == 26


def test_every_night_s_page_is_kept_and_the_watch_page_leads_to_it(
    plan: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(night_module, "KEPT_REPORTS", 2)
    folder = plan.workspace / "runs" / plan.name

    def reports(job: Job, _: object) -> None:
        job.replace_file(REPORT_PAGE, f"report {len(read_record(plan.workspace))}".encode())
        raise Held("nothing new")

    nights = [run_night(plan, reports).night for _ in range(3)]
    quiet = run_night(plan, ends(Held("nothing new"))).night  # an older page is no page of this night
    kept = {path.stem: path.read_text() for path in (folder / REPORTS).iterdir()}
    assert kept.keys() <= {*nights, quiet}
    assert kept[nights[2]] == "report 2"
    assert nights[0] not in kept
    shown = {row["night"]: row["report"] for row in gather(plan.workspace, now=datetime.now(tz=UTC))["nights"]}
    assert shown[nights[2]] == f"runs/ward/reports/{nights[2]}.html"
    assert shown[nights[0]] == ""
