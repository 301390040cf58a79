"""A verb keeps its job: the run's folder is written once, and read by nobody but Prefect's tasks and workers."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.workspace import job as job_module
from pipeline.core.config import Config

RUN = """
name = "ward"
workspace = "work"
[source]
kind = "long_table"
events = "events.csv"
stays = "stays.csv"
subject_column = "subject_id"
split_column = "split"
[cohort]
mapping = "mapping.toml"
n_steps = 4
split = { kind = "given" }
[encode.raw]
kind = "identity"
[condense.c]
kind = "centroids"
n_per_class = 2
[condense.h]
kind = "herding"
n_per_class = 2
[release]
artefact = "c"
licence = "CC0-1.0"
"""
MAPPING = """
description = "test"
[variables]
HR = { unit = "/min", plausible = [10, 320], scale = [30, 180], normal = 80 }
[tasks]
died = { kind = "binary", column = "died", description = "death" }
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    events, stays = [["stay_id", "hours", "variable", "value"]], [["stay_id", "subject_id", "died", "split"]]
    for stay in range(60):
        split = ("train", "train", "train", "tuning", "held_out")[stay % 5]
        events += [[f"s{stay}", str(hour), "HR", str(60 + stay + hour)] for hour in (0.5, 1.5, 2.5)]
        stays.append([f"s{stay}", f"p{stay}", str(int(stay % 3 == 0)), split])
    for name, rows in (("events", events), ("stays", stays)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows(rows)
    (tmp_path / "mapping.toml").write_text(MAPPING)
    (tmp_path / "run.toml").write_text(RUN)
    return tmp_path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often a run's configuration was read from its folder."""
    count = [0]

    class Counting:
        @staticmethod
        def model_validate(raw: object) -> Config:
            count[0] += 1
            return Config.model_validate(raw)

    monkeypatch.setattr(job_module, "Config", Counting)
    return lambda: count[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["ingest", "run.toml", "--report", "--to-meds", "meds", "--write-contract", "contracts"],
        ["encode", "run.toml"],
        ["condense", "run.toml", "--json"],
        ["condense", "run.toml", "--compare", "centroids,herding"],
        ["validate", "run.toml"],
    ],
    ids=lambda words: " ".join(words[:3]),
)
def test_no_verb_reads_its_configuration_back(
    site: Path, reads: Callable[[], int], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site)
    (site / "run.toml").write_text(
        RUN + '[utility]\nmodels = ["logistic_regression"]\nn_seeds = 1\nn_random_draws = 1\n'
    )
    answer = CliRunner().invoke(app, words, catch_exceptions=False)
    assert answer.exit_code == 0
    assert reads() == 0


def test_a_worker_opens_it_once(site: Path, reads: Callable[[], int]) -> None:
    from flows.compute import pieces
    from pipeline.core.config import load_config

    job = job_module.new_job(load_config(site / "run.toml"))
    told = pieces.tell(job)
    for name in ("a", "b", "a"):
        seed = pieces.checked(str(job.folder), told, job_module.Job.seed, (pieces.ItsJob.HERE, name))
        assert seed == job.seed(name)
    assert reads() == 1
