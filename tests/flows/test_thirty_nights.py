"""Thirty nights of one hospital, unattended: records come, are corrected and withdrawn; a source breaks, values drift,
a night is killed, the budget runs out. Each night ends in the state that it must, and exactly the admissible releases
are published.

The stays are real (PhysioNet 2012, set A); small tables and one small model, so that a whole night takes seconds.
"""

from __future__ import annotations

import json
import math
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from flows.nights.night import Night, read_record, run_night
from flows.run import walk_until
from flows.stages import drift as drift_stage
from flows.stages.attacks import scenes as attacking
from flows.workspace.job import KEY_PURPOSES, key_path, marks_of
from flows.workspace.locks import workspace_lock
from flows.workspace.logs import read_log
from flows.workspace.removing.forgetting import forget
from pipeline.core.config import load_config
from pipeline.core.digest import digest_file
from pipeline.core.errors import EnvironmentProblem
from pipeline.core.files.chained import read_chain
from pipeline.core.keys.secrets import Secret, write_secret
from pipeline.core.types import AttackResult, LeakageReport, Provenance
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.readers import read_source
from pipeline.sharing.policy.budget import Budget
from pipeline.sharing.policy.ledger import ledger_path, spent_by_cohort

pytestmark = pytest.mark.slow
VARIABLES = ("HR", "BUN", "Creatinine", "GCS", "Temp", "WBC")
MIN_NEW = 30
EPSILON, DELTA = 1.0, 1e-6
AFFORDED = 7  # releases about the same people that the budget covers
MAPPING = """
description = "six variables of PhysioNet 2012"
[variables]
HR = { unit = "/min", plausible = [10, 320], scale = [30, 180], normal = 80 }
BUN = { unit = "mg/dL", plausible = [0.5, 300], scale = [0, 120], normal = 14 }
Creatinine = { unit = "mg/dL", plausible = [0.05, 40], scale = [0, 8], normal = 0.9 }
GCS = { unit = "1", plausible = [3, 15], scale = [3, 15], normal = 15 }
Temp = { unit = "C", plausible = [24, 45], scale = [33, 41], normal = 37 }
WBC = { unit = "1000/uL", plausible = [0.1, 500], scale = [0, 40], normal = 8 }
[tasks]
died = { kind = "binary", column = "died", description = "death in hospital" }
"""
CONFIG = """
name = "nightly"
workspace = "work"
[source]
kind = "long_table"
events = "source/events.parquet"
stays = "source/stays.parquet"
subject_column = "subject_id"
[cohort]
mapping = "mapping.toml"
step_hours = 8.0
n_steps = 6
[encode.raw]
kind = "identity"
[condense.private]
kind = "private_moments"
input = "raw"
n_per_class = 10
[utility]
models = ["logistic_regression"]
n_seeds = 1
n_random_draws = 1
{floor}
[audit]
max_targets = 40
n_bootstrap = 60
[release]
artefact = "private"
policy = "trial.toml"
site = "hospital"
licence = "ODbL-1.0"
[night]
min_new_subjects = {min_new}
notify_on = "all"
notify_command = [{python}, "-c", "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10))", {notices}]
"""


def gaussian_epsilon(releases: int) -> float:
    """By hand: what `releases` Gaussian queries cost together, at the budget's delta.

    One query's multiplier s gives (EPSILON, DELTA); k of them are one of s / sqrt(k); both by the exact curve of the
    Gaussian mechanism, delta(eps) = Phi(1 / 2s - eps s) - e^eps Phi(-1 / 2s - eps s) (Balle and Wang, 2018, theorem 8).
    """

    def delta(epsilon: float, s: float) -> float:
        return float(norm.cdf(0.5 / s - epsilon * s) - math.exp(epsilon) * norm.cdf(-0.5 / s - epsilon * s))

    one = brentq(lambda s: delta(EPSILON, s) - DELTA, 0.1, 100)
    together = one / math.sqrt(releases)
    return float(brentq(lambda epsilon: delta(epsilon, together) - BUDGET_DELTA, 0, 100))


BUDGET_DELTA = 1e-5


def policy(epsilon: float, max_upper: float = 0.99) -> str:
    """The demo's policy, whose limits on attacks a few hundred stays cannot reach, and a budget of our own."""
    text = (files("pipeline.sharing") / "policies" / "demo.toml").read_text(encoding="utf-8")
    text = text.replace("min_n = 200", "min_n = 50")
    for old, new in (
        ('name = "demo"', 'name = "trial"'),
        ("max_upper = 0.60", f"max_upper = {max_upper}"),
        ("epsilon = 10.0", f"epsilon = {epsilon:.6f}"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


def as_it_is(events: pl.DataFrame) -> pl.DataFrame:
    return events


def slipped(events: pl.DataFrame) -> pl.DataFrame:
    """Urea in mmol/L under the name of urea nitrogen in mg/dL: every value stays plausible."""
    value = pl.when(pl.col("variable") == "BUN").then(pl.col("value") * 0.357).otherwise(pl.col("value"))
    return events.with_columns(value.alias("value"))


@dataclass
class Hospital:
    """A folder with a source, a configuration and a workspace; real stays come and go in a fixed order."""

    folder: Path
    events: pl.DataFrame
    stays: pl.DataFrame
    present: list[str] = field(default_factory=list)
    corrected: set[str] = field(default_factory=set)
    arrived: int = 0
    change: Callable[[pl.DataFrame], pl.DataFrame] = as_it_is

    def arrive(self, number: int) -> None:
        self.present += self.stays["stay_id"].to_list()[self.arrived : self.arrived + number]
        self.arrived += number

    def withdraw(self, number: int) -> None:
        del self.present[:number]

    def write(self) -> None:
        """The source as the hospital's export leaves it tonight."""
        events = self.events.filter(pl.col("stay_id").is_in(self.present))
        value = pl.when(pl.col("stay_id").is_in(list(self.corrected)) & (pl.col("variable") == "HR"))
        events = events.with_columns(value.then(pl.col("value") + 1).otherwise(pl.col("value")).alias("value"))
        self.change(events).write_parquet(self.folder / "source" / "events.parquet")
        rows = self.stays.filter(pl.col("stay_id").is_in(self.present))
        rows.write_parquet(self.folder / "source" / "stays.parquet")

    def configure(self, floor: str = "", min_new: int = MIN_NEW) -> None:
        told = {
            "floor": floor,
            "min_new": min_new,
            "python": json.dumps(sys.executable),
            "notices": json.dumps(str(self.folder / "notices")),
        }
        text = CONFIG
        for name, value in told.items():
            text = text.replace(f"{{{name}}}", str(value))
        (self.folder / "night.toml").write_text(text, encoding="utf-8")

    @property
    def workspace(self) -> Path:
        return self.folder / "work"

    def night(self) -> Night:
        return run_night(load_config(self.folder / "night.toml"), lambda job, made: walk_until(job, made=made))

    def releases(self) -> dict[str, str]:
        """Digest of every file of every release, in one, by the release's name."""
        folder = self.workspace / "releases"
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        return {path.name: "".join(digest_file(file) for file in sorted(path.iterdir())) for path in found}

    def queries(self) -> int:
        return sum(entry["what"] == "reserve" for entry in read_chain(ledger_path(self.workspace)).entries)


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    mapping = load_mapping("physionet2012")
    tables = read_source("embedded", mapping=mapping, until_hours=48, sets=("a",), max_stays=1100)
    names = {source: name for source, name in mapping.source_names.items() if name in VARIABLES}
    plain = tables.events.with_columns(pl.col("stay_id").cast(pl.String), pl.col("variable").cast(pl.String))
    events = plain.filter(pl.col("variable").is_in(list(names))).with_columns(pl.col("variable").replace(names))
    there = events["stay_id"].unique()
    labels = tables.stays.select(
        pl.col("stay_id").cast(pl.String),
        pl.col("subject_id").cast(pl.String),
        pl.col("In-hospital_death").alias("died"),
    )
    stays = labels.filter(pl.col("stay_id").is_in(there.implode()))
    (tmp_path / "source").mkdir()
    (tmp_path / "mapping.toml").write_text(MAPPING, encoding="utf-8")
    (tmp_path / "trial.toml").write_text(policy(10.0), encoding="utf-8")
    found = Hospital(tmp_path, events, stays)
    found.configure()
    for number, purpose in enumerate(KEY_PURPOSES, start=1):
        write_secret(key_path(found.workspace, purpose), Secret(bytes([number]) * 32, purpose))
    return found


@pytest.fixture
def leak(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The attacks are tested elsewhere and take a minute a night; here they find what the list's last entry says."""
    found = [False]
    monkeypatch.setattr(attacking, "audit", lambda scenes, **_: tuple(told_of(scene, found[-1]) for scene in scenes))
    return found


def told_of(scene: Any, leaks: bool) -> LeakageReport:
    """A report in which every attack that the policy asks for has run, and found nothing, or members."""
    figures = (("near_copies", "count", 0.0), ("density_membership", "auroc", 1.0 if leaks else 0.55))
    results = tuple(
        AttackResult(
            attack,
            "T6",
            scene.artefact,
            statistic,
            high / 2,
            0.0,
            high,
            1000,
            0.0,
            1.0,
            1.0,
            True,
            "s",
            True,
            True,
            False,
            None,
        )
        for attack, statistic, high in figures
    )
    return LeakageReport(scene.artefact, scene.artefact_digest, results, (), True, Provenance("audit"))


def killed_night(hospital: Hospital, stages: int, delay: float) -> None:
    """A night in a process of its own, killed by the system some time after so many stages have ended."""
    code = (
        "import sys, importlib.util as u; "
        "s = u.spec_from_file_location('thirty', sys.argv[2]); m = u.module_from_spec(s); sys.modules['thirty'] = m; "
        "s.loader.exec_module(m); m.attacking.audit = lambda scenes, **_: tuple(m.told_of(x, False) for x in scenes); "
        "m.run_night(m.load_config(m.Path(sys.argv[1])), lambda job, made: m.walk_until(job, made=made))"
    )
    log = hospital.workspace / "runs" / "nightly"
    before = len(read_log(log))
    command = [sys.executable, "-c", code, str(hospital.folder / "night.toml"), __file__]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while len(read_log(log)) < before + stages and process.poll() is None:
            time.sleep(0.01)
        time.sleep(delay)
        process.kill()
    assert process.returncode == -signal.SIGKILL


@dataclass
class Script:
    """Runs the nights and holds each against what must be: state, exit code, releases, ledger, record."""

    hospital: Hospital
    expected: list[tuple[str, int]] = field(default_factory=list)
    versions: int = 0

    def tonight(
        self, state: str, exit_code: int, why: str, *, write: bool = True, run: Callable[[], Night] | None = None
    ) -> Night:
        if write:
            self.hospital.write()
        before = self.hospital.releases()
        found = (run or self.hospital.night)()
        assert (found.state, found.exit_code) == (state, exit_code), f"{why}: {found.sentence}"
        self.expected.append((state, exit_code))
        after = self.hospital.releases()
        assert {name: after.get(name) for name in before} == before, f"{why}: an earlier release was touched"
        self.versions += state == "released"
        assert sorted(after) == [f"hospital-private-v{number + 1}" for number in range(self.versions)], why
        assert found.version == (self.versions if state in ("released", "unchanged") else 0)
        assert read_record(self.hospital.workspace)[-1] == found
        return found


def test_thirty_nights(hospital: Hospital, leak: list[bool]) -> None:
    budget = Budget(round(gaussian_epsilon(AFFORDED) * 1.01, 6), BUDGET_DELTA, 365)
    (hospital.folder / "trial.toml").write_text(policy(budget.epsilon), encoding="utf-8")
    dice = random.Random(20261123)
    script = Script(hospital)
    tonight = script.tonight

    hospital.arrive(500)
    tonight("released", 0, "the first night")
    tonight("unchanged", 0, "nothing new")
    hospital.arrive(10)
    tonight("held", 0, "ten newcomers are too few")
    hospital.arrive(20)
    tonight("released", 0, "thirty are enough")
    hospital.corrected |= set(hospital.present[:5])
    tonight("held", 0, "five corrected")
    hospital.arrive(MIN_NEW)
    tonight("released", 0, "the corrections leave with thirty newcomers")

    hospital.arrive(MIN_NEW)
    (hospital.folder / "source" / "events.parquet").write_bytes(b"PAR1 and then the disk was full")
    tonight("refused", 11, "a broken source", write=False)
    tonight("released", 0, "repaired")
    tonight("unchanged", 0, "nothing new")

    hospital.change = slipped
    told = tonight("refused", 16, "a slip of unit")
    assert "value BUN" in told.sentence
    tonight("refused", 16, "it is still there")
    hospital.change = as_it_is
    tonight("unchanged", 0, "repaired")

    hospital.withdraw(8)
    tonight("held", 0, "eight are gone from the source")
    with workspace_lock(hospital.workspace, "decoct forget"):
        forget(hospital.workspace, tuple(hospital.present[:4]))  # a stay's id is its subject's here
    tonight("held", 0, "four withdrew; the source still has them")
    hospital.withdraw(4)
    hospital.arrive(MIN_NEW)
    hospital.configure(floor="floor_auroc = 0.999")
    tonight("refused", 12, "the utility floor")
    assert "NOT JUDGED" in (hospital.workspace / "runs" / "nightly" / "report.html").read_text()
    hospital.configure()
    leak.append(True)
    tonight("refused", 13, "the audit finds members")
    leak.append(False)
    tonight("refused", 13, "that audit stands as long as the cohort does")
    hospital.arrive(MIN_NEW)
    tonight("released", 0, "another cohort, another audit")

    hospital.arrive(MIN_NEW)
    hospital.write()
    killed_night(hospital, stages=dice.randrange(1, 9), delay=dice.random() * 0.1)
    script.expected.append(("killed", 137))
    tonight("released", 0, "the night after goes on")
    tonight("unchanged", 0, "nothing new")

    assert hospital.queries() == AFFORDED
    hospital.arrive(MIN_NEW)
    tonight("refused", 17, "the budget is spent")
    tonight("refused", 17, "it still is")
    assert hospital.queries() == AFFORDED
    budget = Budget(round(gaussian_epsilon(AFFORDED + 1) * 1.01, 6), BUDGET_DELTA, 365)
    (hospital.folder / "trial.toml").write_text(policy(budget.epsilon), encoding="utf-8")
    tonight("released", 0, "the site gives more")
    while len(script.expected) < 30:
        tonight("unchanged", 0, "quiet nights")

    record = read_record(hospital.workspace)
    assert [(night.state, night.exit_code) for night in record] == script.expected
    assert len({night.night for night in record}) == 30
    assert hospital.queries() == AFFORDED + 1
    spent = max(row.epsilon for row in spent_by_cohort(hospital.workspace, budget))
    assert spent == pytest.approx(gaussian_epsilon(AFFORDED + 1), rel=5e-3)
    notices = [json.loads(line) for line in (hospital.folder / "notices").read_text().splitlines()]
    assert [(told["state"], told["exit_code"]) for told in notices] == script.expected
    names_nobody(hospital, (hospital.folder / "notices").read_text())
    names_no_artefact(hospital, (hospital.folder / "notices").read_text())
    names_nobody(hospital, (hospital.workspace / "nights" / "nights.jsonl").read_text())


def names_nobody(hospital: Hospital, text: str) -> None:
    """No stay's id stands in a text as a number of its own."""
    words = set(re.findall(r"(?<![0-9a-f])[0-9]+(?![0-9a-f])", text))
    assert not words & set(hospital.stays["stay_id"].to_list())


def names_no_artefact(hospital: Hospital, text: str) -> None:
    """No beginning of a digest of what any night made, nor of a configuration, stands in a text; marks do."""
    nights = read_record(hospital.workspace)
    digests = {digest for night in nights for found in night.digests.values() for digest in found}
    assert digests
    assert [digest for digest in digests | {night.config for night in nights} if digest[:8] in text] == []
    mark = marks_of(hospital.workspace)
    assert mark(nights[0].digests["ingest"][0]) in text


def test_a_slip_among_the_newcomers_alone_is_found_and_can_be_accepted(hospital: Hospital, leak: list[bool]) -> None:
    """In the whole cohort it is diluted to a distance below every limit."""
    script = Script(hospital)
    hospital.arrive(700)
    script.tonight("released", 0, "the first night")
    known = list(hospital.present)
    hospital.arrive(60)

    def lately(events: pl.DataFrame) -> pl.DataFrame:
        old = pl.col("stay_id").is_in(known)
        return pl.concat([events.filter(old), slipped(events.filter(~old))])

    hospital.change = lately
    told = script.tonight("refused", 16, "sixty newcomers with another unit")
    assert "from that of hospital-private-v1: value BUN of new subjects (distance" in told.sentence
    report = json.loads((hospital.workspace / "runs" / "nightly" / "drift.json").read_text())
    assert {row["among"] for row in report["rows"] if row["level"] != "none"} == {"new"}
    text = (hospital.folder / "night.toml").read_text()
    (hospital.folder / "night.toml").write_text(f'{text}\n[drift]\naccepted = "{report["code"]}"\n')
    script.tonight("released", 0, "somebody has read it")


def test_two_nights_at_once_are_one(hospital: Hospital) -> None:
    hospital.arrive(100)
    hospital.write()
    code = (
        "import sys, time; from pathlib import Path; from flows.workspace.locks import workspace_lock\n"
        "with workspace_lock(Path(sys.argv[1]), 'decoct night'): print('here', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(hospital.workspace)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"here\n"
        with pytest.raises(EnvironmentProblem, match=f"in use by decoct night .process {other.pid}, since") as error:
            hospital.night()
        other.kill()
    assert error.value.exit_code == 15
    assert read_record(hospital.workspace) == ()


def test_an_interrupted_night_is_on_record(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    hospital.arrive(100)
    hospital.write()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(drift_stage.drift, "__code__", interrupted.__code__)
    with pytest.raises(KeyboardInterrupt):
        hospital.night()
    (night,) = read_record(hospital.workspace)
    assert (night.state, night.exit_code, list(night.digests)) == ("interrupted", 130, ["ingest", "validate cohort"])
    assert not (hospital.workspace / "nights" / "open.json").exists()


def test_nights_through_prefect_say_how_they_ended(prefect_server: None, hospital: Hospital, leak: list[bool]) -> None:
    from prefect.client.orchestration import get_client

    from flows.nights.scheduled import night_through_prefect

    def through_prefect() -> Night:
        return night_through_prefect(hospital.folder / "night.toml")

    script = Script(hospital)
    hospital.arrive(500)
    script.tonight("released", 0, "the first night", run=through_prefect)
    hospital.arrive(5)
    script.tonight("held", 0, "too few", run=through_prefect)
    hospital.change = slipped
    script.tonight("refused", 16, "a slip of unit", run=through_prefect)
    with get_client(sync_client=True) as client:
        runs = [run for run in client.read_flow_runs(limit=200) if run.parameters.get("config", "").startswith(
            str(hospital.folder))]  # fmt: skip
        artifacts = [item for item in client.read_artifacts(limit=200) if (item.key or "").startswith("decoct-night-")]
        names_no_artefact(hospital, "\n".join(str(item.data) for item in client.read_artifacts(limit=200)))
    ended = {(run.state.type.value, run.state.name) for run in runs if run.state}
    assert ended == {("COMPLETED", "Released"), ("COMPLETED", "Held"), ("FAILED", "Refused")}
    refused = next(run for run in runs if run.state and run.state.name == "Refused")
    assert refused.state is not None
    assert "value BUN" in str(refused.state.message)
    assert all(set(run.parameters) <= {"config", "min_new_subjects", "look_only"} for run in runs)
    assert len(artifacts) >= 3
    for item in artifacts:
        names_nobody(hospital, str(item.data))
