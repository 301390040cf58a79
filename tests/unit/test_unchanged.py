"""A night on which nothing is to be made starts no temporary server of Prefect's; any other does, and begins there."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.environment import may_have_server
from flows.nights import unchanged as unchanged_module
from flows.nights.night import read_record, run_night, under_way
from flows.nights.unchanged import run_unchanged
from flows.run import Stage, Walker, execute
from flows.workspace.job import Job
from pipeline.core.config import Config, parse_config
from pipeline.core.errors import DataError
from pipeline.core.types import Provenance, ReleaseRecord
from pipeline.store import Made

PLAN: dict[str, Any] = {
    "name": "ward",
    "source": {"kind": "embedded", "sets": ["a"]},
    "encode": {"raw": {"kind": "identity"}},
    "condense": {"private": {"kind": "private_moments"}},
    "release": {"artefact": "private", "policy": "strict", "site": "S", "licence": "ODbL-1.0"},
    "night": {"notify_on": "never"},
}
NAMES = ("ingest", "audit", "release")
WAYS = ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH", "PREFECT_HOME")


class Road:
    """Three stages of one record each; what each is asked with can change, and any can fail."""

    def __init__(self) -> None:
        self.asked, self.made = dict.fromkeys(NAMES, 0), list[str]()
        self.failing = ""

    def stage(self, name: str) -> Stage[..., Any]:
        def make(_: Provenance) -> tuple[ReleaseRecord]:
            self.made.append(name)
            return (ReleaseRecord(f"{name}-{self.asked[name]}", "0" * 64, 1),)

        make.__module__ = "flows.stages.release"

        def does(job: Job, *parents: Made[Any]) -> Made[Any]:
            if self.failing == name:
                raise DataError("a column is missing")
            digests = tuple(parent.first for parent in parents)
            return job.once(name, digests, {"asked": self.asked[name]}, None, make, [])

        return Stage(name, "release", does)

    def __call__(self, _: Config, step: Walker) -> None:
        first = step(self.stage("ingest"))
        second = step(self.stage("audit"), first)
        step(self.stage("release"), first, second)

    def by_prefect(self, job: Job, made: dict[str, Made[Any]]) -> None:
        self(job.config, Walker(lambda label, stage, inputs: execute(job, label, stage.does, inputs), made))


@pytest.fixture
def plan(tmp_path: Path) -> Config:
    return parse_config({**PLAN, "workspace": str(tmp_path / "work")}, "a test", tmp_path)


@pytest.fixture
def road(monkeypatch: pytest.MonkeyPatch) -> Road:
    found = Road()
    monkeypatch.setattr(unchanged_module, "walk", found)
    return found


def test_what_was_made_before_is_an_unchanged_night_and_nothing_is_made(plan: Config, road: Road) -> None:
    assert run_unchanged(plan) is None
    assert (road.made, read_record(plan.workspace), under_way(plan)) == ([], (), None)
    first = run_night(plan, road.by_prefect)
    road.made.clear()
    second = run_unchanged(plan)
    assert second is not None
    assert (second.state, second.exit_code, road.made) == ("unchanged", 0, [])
    assert (second.digests, set(second.seconds.values())) == (first.digests, {0.0})
    assert read_record(plan.workspace) == (first, second)
    lines = [json.loads(line) for line in (plan.workspace / "runs" / "ward" / "log.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines if line["night"] == second.night and line["event"] == "ended"] == [*NAMES]


@pytest.mark.parametrize("changed", NAMES)
def test_whichever_stage_has_something_to_make_the_night_is_a_flow_run(plan: Config, road: Road, changed: str) -> None:
    run_night(plan, road.by_prefect)
    before = read_record(plan.workspace)
    road.made.clear()
    road.asked[changed] += 1
    assert run_unchanged(plan) is None
    assert (road.made, read_record(plan.workspace), under_way(plan)) == ([], before, None)


@pytest.mark.parametrize("failing", NAMES)
def test_what_fails_is_told_by_the_flow_run_and_not_here(plan: Config, road: Road, failing: str) -> None:
    run_night(plan, road.by_prefect)
    before = read_record(plan.workspace)
    road.failing = failing
    assert run_unchanged(plan) is None
    assert read_record(plan.workspace) == before


def _variable(name: str) -> Callable[[Path, pytest.MonkeyPatch], None]:
    return lambda _, patch: patch.setenv(name, "x")


def _file(name: str, text: str) -> Callable[[Path, pytest.MonkeyPatch], None]:
    def write(folder: Path, _: pytest.MonkeyPatch) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    return write


@pytest.mark.parametrize(
    ("way", "may"),
    [
        (_file("nothing", ""), False),
        *((_variable(name), True) for name in WAYS[:3]),
        (_file("home/profiles.toml", ""), True),
        (_file("prefect.toml", ""), True),
        (_file("pyproject.toml", "[tool.prefect]\n"), True),
        (_file("pyproject.toml", "[tool.ruff]\n"), False),
        (_file(".env", "PREFECT_API_URL=x"), True),
        (_file(".env", "POSTGRES=x"), False),
    ],
)
def test_a_server_is_looked_for_where_prefect_looks(
    way: Callable[[Path, pytest.MonkeyPatch], None], may: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in WAYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    way(tmp_path, monkeypatch)
    assert may_have_server() is may


def test_the_verb_loads_no_prefect_for_an_unchanged_night(
    plan: Config, road: Road, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_night(plan, road.by_prefect)
    for name in WAYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(sys.modules, "flows.nights.scheduled", None)  # it cannot be loaded
    monkeypatch.setattr("pipeline.core.config.load_config", lambda _: plan)
    answer = CliRunner().invoke(app, ["night", "night.toml", "--json"])
    assert (answer.exit_code, json.loads(answer.stdout)["state"]) == (0, "unchanged")
    road.asked["audit"] += 1
    assert isinstance(CliRunner().invoke(app, ["night", "night.toml"]).exception, ImportError)
