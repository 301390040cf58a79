"""A distribution of somebody else's: its encoder, attack, reader and policy rule, installed and run by Decoct."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.ingest.sources.readers import read_source

EXAMPLE = Path(__file__).parents[2] / "examples" / "own-plugins"
JOB = """
name = "guests"
workspace = "work"
source = { kind = "json_lines", files = { stays = "stays.jsonl" }, options = { subject = "patient" } }
cohort = { tasks = ["in_hospital_death"] }
utility = { models = ["logistic_regression"], n_seeds = 1, n_random_draws = 1 }
audit = { max_targets = 40, n_bootstrap = 40 }
[encode.mirrored]
kind = "plugin"
name = "mirror"
[encode.raw]
kind = "identity"
[condense.private]
kind = "private_moments"
input = "raw"
n_per_class = 20
[release]
artefact = "private"
policy = "trial.toml"
site = "test site"
licence = "ODbL-1.0"
"""
RUN = """
import json, sys
from pathlib import Path
from flows import registry
from flows.run import walk_until
from flows.workspace.job import new_job
from pipeline.core.codec import to_plain
from pipeline.core.config import load_config
from pipeline.core.errors import DecoctError
from pipeline.core.types import EncodedCohort, GateDecision, IngestReport, LeakageReport

job, made, problem = new_job(load_config(Path(sys.argv[1])), resume=True), {}, ""
try:
    walk_until(job, made=made)
except DecoctError as error:
    problem = str(error)
reports = [job.store.get(digest, LeakageReport) for digest in made["audit"].digests]
print(json.dumps({
    "problem": problem,
    "attacks": [attack.name for attack in registry.attacks()],
    "read": job.only(made["ingest"], IngestReport, 1).source,
    "encoded": to_plain(job.only(made["encode mirrored"], EncodedCohort).transforms[-1]),
    "results": [to_plain(result) for report in reports for result in report.results],
    "controls_held": [report.controls_held for report in reports],
    "decision": to_plain(job.only(made["decide"], GateDecision)),
    "keys": {stage: made[stage].first for stage in ("ingest", "audit", "decide")},
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example beside Decoct, without a network and without touching this environment."""
    target, source = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("source") / "own-plugins"
    shutil.copytree(EXAMPLE, source)
    how = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *how, str(source)], check=True, timeout=300)
    return target


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory, small_job: Any) -> Path:
    """A workspace with real stays as lines of JSON."""
    folder = tmp_path_factory.mktemp("hospital")
    small_job(folder)  # for its policy
    tables = read_source("embedded", sets=("a",), max_stays=900)
    events = tables.events.group_by("stay_id").agg(pl.concat_list(pl.struct("hours", "variable", "value")))
    of = {str(stay): [[row["hours"], row["variable"], row["value"]] for (row,) in rows] for stay, rows in events.rows()}
    with (folder / "stays.jsonl").open("w", encoding="utf-8") as file:
        for row in tables.stays.iter_rows(named=True):
            stay, patient = row.pop("stay_id"), row.pop("subject_id")
            line = {"stay": stay, "patient": patient, **row, "events": of.get(stay, [])}
            file.write(json.dumps(line) + "\n")
    (folder / "site.toml").write_text(JOB, encoding="utf-8")
    return folder


def run(folder: Path, installed: Path) -> dict[str, Any]:
    path = os.pathsep.join([str(installed), str(EXAMPLE.parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(folder / "site.toml")],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_a_small_run_goes_through_all_four(installed: Path, hospital: Path) -> None:
    found = run(hospital, installed)
    assert found["read"] == "stays.jsonl"
    assert found["encoded"]["kind"] == "mirror"
    assert found["attacks"][0] == "known_key_inversion"  # the product's own first
    assert found["attacks"][-1] == "repeated_endings"
    (guest,) = [result for result in found["results"] if result["attack"] == "repeated_endings"]
    assert (guest["rate"], guest["positive_control"], guest["gates"], guest["controls_held"]) == (0, 20, True, True)
    assert guest["p_value_of_the_family"] == 1
    (inverted,) = [result for result in found["results"] if result["attack"] == "known_key_inversion"]
    assert inverted["rate"] > 0.99  # a mirror hides nothing from who holds the key
    reasons = [reason for verdict, reason in found["decision"]["reasons"] if verdict == "PASS"]
    assert "rule few_samples: 40 samples, and at most 500 may leave" in reasons
    assert any(reason.startswith("attack repeated_endings") for reason in reasons)

    assert run(hospital, installed)["keys"] == found["keys"]
