"""Comparing methods: the same input, size and seed for all, judged on tuning stays, found again in the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.comparing import comparison
from flows.run import walk_until
from flows.workspace.job import new_job, open_job
from pipeline.core.config import Config
from pipeline.core.errors import UsageError
from pipeline.core.types import EncodedCohort, Split

RUN = """
name = "small"
workspace = "work"
source = { kind = "embedded", sets = ["a"], max_stays = 400 }
cohort = { tasks = ["in_hospital_death", "los_gt_7d"] }
encode.raw = { kind = "identity" }
encode.rqe = { kind = "quantum" }
condense.own = { kind = "centroids", n_per_class = 12 }
condense.private = { kind = "private_moments", n_per_class = 12 }
utility = { models = ["logistic_regression"], n_seeds = 1 }
release = { artefact = "private", licence = "CC0-1.0" }
"""


def ask(folder: Path, *words: str) -> Any:
    answer = CliRunner().invoke(app, ["condense", str(folder / "run.toml"), *words], catch_exceptions=False)
    assert answer.exit_code == 0
    return answer.stdout


@pytest.mark.slow
def test_a_comparison_is_made_once_and_taken_from_the_store_after(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    words = ("--compare", "centroids,random,private", "--json")
    found = json.loads(ask(tmp_path, *words))
    assert [row["method"] for row in found["rows"]] == ["centroids", "random_real", "private_teacher"]
    assert [row["epsilon"] is None for row in found["rows"]] == [True, True, False]
    assert [row["starts_from_records"] for row in found["rows"]] == [True, True, False]
    assert not any(row["from_store"] for row in found["rows"])
    again = json.loads(ask(tmp_path, *words, "--resume"))
    assert all(row["from_store"] for row in again["rows"])
    assert [row["scores"] for row in again["rows"]] == [row["scores"] for row in found["rows"]]

    job = open_job(str(tmp_path / "work" / "runs" / "small-compare"), resume=True)
    encoded = job.only(walk_until(job, "encode")["encode raw"], EncodedCohort)
    tested = {score["n_test"] for row in found["rows"] for score in row["scores"]}
    assert tested == {int(np.isfinite(encoded.part(Split.TUNING).labels[:, 0]).sum())}
    assert len(encoded.part(Split.TUNING).labels) != len(encoded.part(Split.HELD_OUT).labels)

    told = ask(tmp_path, "--compare", "centroids,random,private", "--resume")
    assert "outside every privacy guarantee" in told
    assert "tuning stays (not held-out)" in told
    assert "eps 1" in told


@pytest.mark.slow
def test_a_set_that_the_run_made_alike_is_not_made_again(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    ask(tmp_path, "--only", "own")
    found = json.loads(ask(tmp_path, "--compare", "centroids,random", "--resume", "--json"))
    assert [row["from_store"] for row in found["rows"]] == [True, False]
    smaller = json.loads(ask(tmp_path, "--compare", "centroids", "--n-per-class", "5", "--resume", "--json"))
    assert [(row["from_store"], row["n_samples"]) for row in smaller["rows"]] == [(False, 10)]


def test_names_are_short_or_registered_and_unknown_ones_are_refused() -> None:
    assert comparison.methods("dm, kernel,kernel_matching") == ("distribution_matching", "kernel_matching")
    with pytest.raises(UsageError, match=r"'nonsense'.*centroids.*random_real \(random\)"):
        comparison.methods("centroids,nonsense")
    with pytest.raises(UsageError, match="needs the names"):
        comparison.methods(" , ")


def test_size_input_and_tasks_are_the_first_set_s_unless_said(tmp_path: Path, small_job: Callable[..., Config]) -> None:
    config = small_job(
        tmp_path,
        condense={
            "grouped": {"kind": "centroids", "input": "rqe", "n_per_class": 7, "tasks": "group"},
            "private": {"kind": "private_moments"},
        },
    )
    plan, seed_of = comparison.plan(config, ("private_moments", "herding"), None, None)
    assert seed_of == "grouped"
    assert [(t.kind, t.input, t.n_per_class, t.tasks) for t in plan.condense.values()] == [
        ("private_moments", "rqe", 7, "first"),
        ("herding", "rqe", 7, "first"),
    ]
    assert open_job(str(new_job(plan).folder), resume=True).config == plan
    other, _ = comparison.plan(config, ("herding",), "raw", 3)
    assert (other.condense["herding"].input, other.condense["herding"].n_per_class) == ("raw", 3)
    assert list(other.encode) == ["raw"]
    with pytest.raises(UsageError, match="--input nowhere"):
        comparison.plan(config, ("herding",), "nowhere", None)


@pytest.mark.parametrize(
    "words",
    [("--input", "raw"), ("--n-per-class", "3"), ("--compare", "dm", "--only", "own"), ("--compare", "nonsense")],
)
def test_options_that_do_not_belong_together_are_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    with pytest.raises(UsageError):
        CliRunner().invoke(app, ["condense", str(tmp_path / "run.toml"), *words], catch_exceptions=False)
