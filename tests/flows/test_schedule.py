"""The schedule: checked before anything starts, and a prefect.yaml that Prefect reads as it was meant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prefect.exceptions import TerminationSignal
from prefect.flows import load_flow_from_entrypoint
from typer.testing import CliRunner

from flows.cli.main import app
from flows.environment import TELEMETRY_OFF, code_version
from flows.nights.clock import checked_schedule
from flows.nights.night import read_record, run_night
from flows.nights.pinned import FILE
from flows.nights.scheduled import ENTRYPOINT, deployment, night_flow
from flows.tasks import StageStopped
from flows.templates import commented_config
from pipeline.core.config import load_config
from pipeline.core.errors import ConfigError, ReleaseRefused, UsageError

RUNNER = CliRunner()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A path with everything in it that YAML could trip over."""
    folder = tmp_path / 'a: "folder" #1'
    folder.mkdir()
    path = folder / "night.toml"
    path.write_text(commented_config().replace('licence = ""', 'licence = "CC0-1.0"'), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "cron", ["61 * * * *", "0 2 * *", "every night", "", "@daily", "5 0 2 * * *", "0 2 30 2 *", "0 2 31 4,6 *"]
)
def test_what_is_no_cron_expression_is_refused(cron: str) -> None:
    with pytest.raises(UsageError, match="is no cron expression"):
        checked_schedule(cron, "UTC")


def test_what_is_no_time_zone_is_refused() -> None:
    with pytest.raises(UsageError, match="'Mars/Phobos' is no time zone"):
        checked_schedule("0 2 * * *", "Mars/Phobos")
    checked_schedule("0 2 * * *", "Europe/Berlin")


def test_a_schedule_that_names_no_day_is_a_sentence_before_anything_starts(config: Path) -> None:
    """Case 43: it said that it waits, and then that there is a bug in Decoct."""
    words = [sys.executable, "-m", "flows.cli", "schedule", "--config", str(config), "--cron", "0 2 30 2 *"]
    asked = subprocess.run(words, capture_output=True, text=True, check=False)
    assert asked.returncode == 2
    assert asked.stderr.startswith("decoct: '0 2 30 2 *' is no cron expression of a day that there is")
    assert len(asked.stderr.splitlines()) == 1
    assert not load_config(config).workspace.exists()
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('cron = "0 2 * * *"', 'cron = "0 2 30 2 *"'), encoding="utf-8")
    with pytest.raises(UsageError, match="is no cron expression of a day"):
        RUNNER.invoke(app, ["config", "check", str(config)], standalone_mode=False, catch_exceptions=False)


def test_what_prefect_does_not_read_is_not_given_to_it(config: Path) -> None:
    checked_schedule("0 2 LW * *", "UTC")
    with pytest.raises(UsageError, match="no cron expression that Prefect reads"):
        deployment(config, "0 2 LW * *", "UTC", "pool")


def test_the_deployment_says_what_was_asked_and_nothing_else_of_the_site(config: Path) -> None:
    text = deployment(config, "0 2 * * 1-5", "Europe/Berlin", "ward-7")
    assert "<" not in text
    (told,) = yaml.safe_load(text)["deployments"]
    assert told["parameters"] == {"config": str(config.resolve())}
    assert told["schedules"] == [{"cron": "0 2 * * 1-5", "timezone": "Europe/Berlin", "active": True}]
    assert told["work_pool"] == {"name": "ward-7", "job_variables": {"env": dict(TELEMETRY_OFF)}}
    assert told["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert told["entrypoint"] == ENTRYPOINT
    assert told["version"] == code_version()
    plan = load_config(config)
    site = [f"site:{plan.release.site}"] if plan.release.site else []
    assert told["tags"] == [*site, f"configuration:{plan.name}", f"policy:{plan.release.policy}"]
    assert told["name"] == load_config(config).name  # or two configurations would replace each other at a server
    # without, `prefect deploy` asks questions, clones a repository, or copies the worker's folder, records included
    assert yaml.safe_load(text)["pull"] == [{"prefect.deployments.steps.set_working_directory": {"directory": "/"}}]
    assert load_flow_from_entrypoint(ENTRYPOINT).name == night_flow.name


def test_a_broken_configuration_is_told_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "night.toml").write_text("name = 1", encoding="utf-8")
    with pytest.raises(ConfigError):
        deployment(tmp_path / "night.toml", "0 2 * * *", "UTC", "pool")


def test_the_verb_writes_the_file_once(config: Path, tmp_path: Path) -> None:
    words = ["schedule", "--config", str(config), "--write", str(tmp_path / "prefect.yaml")]
    assert RUNNER.invoke(app, words).exit_code == 0
    assert (load_config(config).workspace / "keys" / FILE).exists()  # the programs that its nights may run
    before = (tmp_path / "prefect.yaml").read_bytes()
    with pytest.raises(UsageError, match=r"prefect\.yaml cannot be written: File exists"):
        RUNNER.invoke(app, words, standalone_mode=False, catch_exceptions=False)
    assert (tmp_path / "prefect.yaml").read_bytes() == before
    with pytest.raises(UsageError, match="no cron expression"):
        RUNNER.invoke(app, [*words, "--cron", "x"], standalone_mode=False, catch_exceptions=False)


def test_what_prefect_keeps_of_a_failed_stage_has_no_figure_and_no_path() -> None:
    failure = ReleaseRefused("/data/132539.csv: auroc: 0.613 [0.502, 0.724], n = 122; fewer than 7 stays")
    stopped = StageStopped(failure)
    assert str(stopped) == "exit code 14: … auroc: … [… …], n = …; fewer than … stays"
    assert stopped.error is failure


def test_a_night_that_prefect_cancels_is_interrupted(config: Path, tmp_path: Path) -> None:
    plan = load_config(config).model_copy(update={"workspace": tmp_path / "work"})

    def cancelled(_: object, __: object) -> None:
        raise TerminationSignal(signal=15)

    with pytest.raises(TerminationSignal):
        run_night(plan, cancelled)
    (night,) = read_record(plan.workspace)
    assert (night.state, night.exit_code) == ("interrupted", 130)
