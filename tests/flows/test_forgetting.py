"""A patient withdraws: left out from then on, out of all that was made with them, whenever the command is killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from flows.stages.encode import encode
from flows.stages.ingest import ingest
from flows.stages.prepare import prepare
from flows.workspace.job import Job, new_job
from flows.workspace.locks import workspace_lock
from flows.workspace.removing import forgetting, purge
from flows.workspace.removing.forgetting import Forgotten, forget, read_ids
from flows.workspace.removing.graph import graph_of
from flows.workspace.removing.purge import Plan, carry_out, pending
from flows.workspace.removing.withdrawals import list_path, withdraw, withdrawn_of
from pipeline.core.config import Config, parse_config
from pipeline.core.errors import EnvironmentProblem, UsageError
from pipeline.core.files.seen import SEEN
from pipeline.core.types import Cohort, EncodedCohort, GateDecision, IngestReport, ReleaseRecord
from pipeline.ingest.sources.embedded import DATA
from pipeline.ingest.withdrawn import WITHDRAWN
from pipeline.sharing.bundle.write import ReleaseNotes, bundle_name
from pipeline.sharing.policy.budget import Budget
from pipeline.sharing.policy.ledger import People, ledger_path, reserve, spent_by_cohort
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.trust.log import append_log, read_log
from pipeline.store import Made

STAYS = 150
PUBLISHED = ReleaseNotes("raw", "St. Test", 1, "ODbL-1.0")
WAITING = ReleaseNotes("raw", "St. Test", 2, "ODbL-1.0")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embedded stays, written as the text files that a hospital would export."""
    root = tmp_path_factory.mktemp("export")
    table = pl.read_parquet(DATA / "set-a.parquet").with_columns(pl.col("variable").cast(pl.String))
    ids = table["stay_id"].unique(maintain_order=True).head(STAYS)
    (root / "records").mkdir()
    for (stay,), rows in table.filter(pl.col("stay_id").is_in(ids.implode())).group_by("stay_id", maintain_order=True):
        lines = [f"{m // 60:02d}:{m % 60:02d},{v},{x}" for m, v, x in rows.drop("stay_id").iter_rows()]
        (root / f"records/{stay}.txt").write_text("Time,Parameter,Value\n" + "\n".join(lines) + "\n")
    wanted = {str(name) for name in ids.to_list()}
    head, *outcomes = (DATA / "Outcomes-a.txt").read_text().splitlines()
    kept = [line for line in outcomes if line.split(",")[0] in wanted]
    (root / "outcomes.txt").write_text("\n".join([head, *kept]) + "\n")
    return root


@pytest.fixture(scope="module")
def made_once(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after a night: cohort, encodings, a decision, a release, a proposal, a query on the ledger."""
    workspace = tmp_path_factory.mktemp("site") / "work"
    config = configuration(source, workspace)
    job = Job(config, new_job(config).folder, resume=True)
    cohort, _, encoded = night(job)
    decision = job.once("decide", (encoded.first,), {}, None, lambda _: (GateDecision("PASS", "demo", "0" * 64, ()),))
    for notes, folder in ((PUBLISHED, "releases"), (WAITING, "proposals")):
        record = ReleaseRecord(bundle_name(notes), "0" * 64, notes.version)
        job.once("release", (encoded.first, decision.first), {"v": notes.version}, None, lambda _, r=record: (r,))
        (workspace / folder / record.name).mkdir(parents=True)
        told: dict[str, str | int] = {"site": notes.site, "name": notes.name, "version": notes.version}
        append_log(workspace, "propose", told | {"policy": "0" * 64})
    for name in ("report.html", "report.json", "raw-0123.checkpoint", "log.jsonl"):
        (job.folder / name).write_text("aggregates")
    (job.folder / "shadows").mkdir()
    (job.folder / "shadows/one.npy").write_bytes(b"\x00" * 64)
    ids = tuple(sorted(job.only(cohort, Cohort).subject_ids.tolist()))
    reserve(
        workspace,
        "1" * 64,
        [{"event": "GaussianDpEvent", "noise_multiplier": 4.0}],
        People(ids, "stay"),
        budget(),
        "demo",
    )
    return workspace


@pytest.fixture
def site(made_once: Path, tmp_path: Path) -> Path:
    """That workspace, for one test."""
    shutil.copytree(made_once, tmp_path / "work")
    return tmp_path / "work"


def budget() -> Budget:
    found = load_policy("strict").budget
    assert found is not None
    return found


def configuration(source: Path, workspace: Path) -> Config:
    raw: dict[str, Any] = {
        "name": "nightly",
        "workspace": str(workspace),
        "source": {
            "kind": "physionet2012",
            "records": [str(source / "records")],
            "outcomes": [str(source / "outcomes.txt")],
        },
        "encode": {"raw": {"kind": "identity"}},
        "condense": {"centroids": {"kind": "centroids", "input": "raw", "n_per_class": 5}},
        "release": {"artefact": "raw", "kind": "encoded", "policy": "demo", "licence": "ODbL-1.0", "site": "St. Test"},
    }
    return parse_config(raw, "the test's configuration", workspace.parent)


def night(job: Job) -> tuple[Made, Made, Made]:
    cohort = ingest(job)
    prepared = prepare(job, cohort)
    return cohort, prepared, encode(job, "raw", prepared)


def again(source: Path, workspace: Path) -> tuple[Job, Made, Made, Made]:
    config = configuration(source, workspace)
    job = Job(config, new_job(config).folder, resume=True)
    return (job, *night(job))


def subjects(job: Job, cohort: Made) -> list[str]:
    return [str(name) for name in job.only(cohort, Cohort).subject_ids]


def state(workspace: Path) -> dict[str, bytes | None]:
    """Every file of the workspace but the log, whose lines are dated, what is noted of it, and locks."""
    apart = {"locks", "log"}
    there = (path for path in sorted(workspace.rglob("*")) if path.name != SEEN)
    files = (path for path in there if path.relative_to(workspace).parts[0] not in apart)
    return {path.relative_to(workspace).as_posix(): path.read_bytes() if path.is_file() else None for path in files}


@pytest.mark.parametrize("damage", ["{", "[]", '{"kind": "Cohort"}', '{"kind": "Cohort", "meta": {}, "arrays": {}}'])
def test_a_cohort_that_cannot_be_read_goes_with_all_that_came_from_it(source: Path, site: Path, damage: str) -> None:
    """It was passed over, and so was whoever had withdrawn and was in it."""
    job, cohort, _, _ = again(source, site)
    gone = subjects(job, cohort)[:1]
    (site / "store" / "objects" / cohort.first[:2] / cohort.first / "meta.json").write_text(damage)
    done = forget(site, tuple(gone))
    assert done.purged["damaged"] == 1
    assert graph_of(job.store).unread == frozenset()
    assert "EncodedCohort" not in graph_of(job.store).kinds.values()
    assert not (site / "proposals" / bundle_name(WAITING)).exists()


def test_what_was_made_with_them_goes_and_what_must_stay_stays(source: Path, site: Path) -> None:
    job, cohort, _, _ = again(source, site)
    gone = subjects(job, cohort)[:2]
    ledger, spent = ledger_path(site).read_bytes(), spent_by_cohort(site, budget())
    before = len(read_log(site).lines)
    (site / "store/tmp/left-by-a-killed-process.npz").write_bytes(b"what it was about to make")

    done = forget(site, (*gone, "no such person"))

    assert (done.asked, done.new, done.not_found, done.cohorts) == (3, 3, 1, 1)
    kinds = {"Cohort": 1, "ContractResult": 1, "EncodedCohort": 2, "GateDecision": 1, "IngestReport": 1}
    assert {kind: count for kind, count in done.purged.items() if kind in kinds} == kinds
    assert done.purged["proposals"] == 1
    assert done.released == ({"bundle": bundle_name(PUBLISHED), "published": True, "release": "St. Test/raw/1"},)
    assert (site / "releases" / bundle_name(PUBLISHED)).is_dir()
    assert not (site / "proposals" / bundle_name(WAITING)).exists()
    assert graph_of(job.store).kinds == {}
    assert list((site / "store/index").iterdir()) == []
    assert sorted(path.name for path in job.folder.iterdir()) == ["config.json", "log.jsonl"]
    assert [path for name in ("pieces", "tmp") for path in (site / "store" / name).rglob("*") if path.is_file()] == []
    assert done.bytes_freed > 100_000
    assert ledger_path(site).read_bytes() == ledger
    assert spent_by_cohort(site, budget()) == spent
    assert [entry["what"] for entry in read_log(site).entries[before:]] == ["forget", "purge"]
    everything = b"".join(path.read_bytes() for path in (site / "withdrawn").iterdir()) + b"".join(read_log(site).lines)
    assert not any(name.encode() in everything for name in gone)
    assert {path.stat().st_mode & 0o077 for path in (site / "withdrawn").iterdir()} == {0}


def test_the_next_night_leaves_them_out_and_says_so(source: Path, site: Path) -> None:
    job, cohort, _, encoded = again(source, site)
    everybody, before = subjects(job, cohort), job.only(cohort, IngestReport, 1)
    forget(site, (everybody[3],))
    job, after, _, new = again(source, site)
    assert subjects(job, after) == everybody[:3] + everybody[4:]
    assert not after.reused
    report = job.only(after, IngestReport, 1)
    assert report.rows_read == before.rows_read
    assert report.rows_dropped[WITHDRAWN] > 0
    assert any("fewer than 10 stays of subjects who have withdrawn" in note for note in report.notes)
    assert new.first != encoded.first
    assert len(job.only(new, EncodedCohort).features) == STAYS - 1
    fresh, scratch, _, _ = again(source, site)  # unchanged: found
    assert scratch.digests == after.digests
    assert fresh.store.root == job.store.root
    whole = Job(job.config, job.folder, resume=False)
    assert ingest(whole).digests == after.digests  # and nothing but a full reading


def test_again_it_does_nothing_more(source: Path, site: Path) -> None:
    job, cohort, _, _ = again(source, site)
    gone = tuple(subjects(job, cohort)[:2])
    forget(site, gone)
    log, files = read_log(site).lines, state(site)
    done = forget(site, gone)
    assert (done.new, done.cohorts, done.purged, done.released) == (0, 0, {}, ())
    assert (read_log(site).lines, state(site)) == (log, files)


@pytest.mark.parametrize("moment", range(0, 24, 3))
def test_killed_anywhere_and_run_again_it_ends_in_the_same_state(
    source: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    shutil.copytree(site, tmp_path / "other")
    ids = read_ids(path.stem for path in sorted((source / "records").iterdir())[:2])
    undisturbed = forget(tmp_path / "other", ids)

    class Killed(BaseException):
        pass

    countdown = moment

    def dying(does: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any) -> Any:
            nonlocal countdown
            countdown -= 1
            if countdown < 0:
                raise Killed
            return does(*args)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(purge, "_remove", dying(purge._remove))
        with pytest.raises(Killed):
            forget(site, ids)
    assert pending(site) != Plan()
    store = Job(configuration(source, site), site, resume=True).store
    for key in (path.name for path in (store.root / "index").iterdir()):
        assert store.made(key) is not None, "a note points to an artefact that is gone"
    done = forget(site, ids)
    assert pending(site) == Plan()
    assert done.released == undisturbed.released
    here, there = state(site), state(tmp_path / "other")
    secrets = {"withdrawn/list.key", "withdrawn/list.json"}  # keys are drawn
    assert {name: here[name] for name in here if name not in secrets} == {
        name: there[name] for name in there if name not in secrets
    }


def test_killed_between_log_and_list_nothing_is_read_until_it_is_finished(
    source: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def full(path: Path, target: Path) -> Path:
        if target == list_path(site):
            raise OSError(28, "No space left on device")
        return replace(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(EnvironmentProblem, match="cannot be written: No space left"):
            forget(site, ("132539",))
    with pytest.raises(EnvironmentProblem, match="run decoct forget again with the same ids"):
        again(source, site)
    with pytest.raises(EnvironmentProblem, match="same ids"):
        withdraw(site, ["somebody else"])
    forget(site, ("132539",))
    again(source, site)


def test_a_lost_or_older_list_stops_every_reading(source: Path, site: Path) -> None:
    withdraw(site, ["132539"])
    older = list_path(site).read_bytes()
    withdraw(site, ["132540"])
    assert withdrawn_of(site).holds(["132539", "132540", "132541"]) == [True, True, False]
    list_path(site).write_bytes(older)
    with pytest.raises(EnvironmentProblem, match="a backup was restored"):
        again(source, site)
    list_path(site).unlink()
    with pytest.raises(EnvironmentProblem, match="the audit log knows one"):
        again(source, site)


def test_a_full_disk_while_it_purges_is_told_and_loses_nothing(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    before = state(site)
    with monkeypatch.context() as patched:
        patched.setattr(purge, "put_whole", full)
        with pytest.raises(EnvironmentProblem, match="No space left on device; the same command goes on from there"):
            carry_out(site, Plan(notes=("nothing",)))
    assert state(site) == before


def command(*words: str, ids: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", "forget", *words],
        input=ids,
        capture_output=True,
        text=True,
        check=False,
    )


def test_on_the_command_line(source: Path, site: Path, tmp_path: Path) -> None:
    toml = tmp_path / "night.toml"
    config = configuration(source, site).model_dump(mode="json")
    toml.write_text(
        f'name = "nightly"\nworkspace = "{site}"\n[source]\nkind = "physionet2012"\n'
        f"records = {json.dumps(config['source']['records'])}\noutcomes = {json.dumps(config['source']['outcomes'])}\n"
        '[encode.raw]\nkind = "identity"\n[condense.centroids]\nkind = "centroids"\ninput = "raw"\n'
        '[release]\nartefact = "raw"\nkind = "encoded"\npolicy = "demo"\nlicence = "ODbL-1.0"\n'
    )
    for words in ((str(toml), "132539"), ("132539",), (str(toml), "--ids", "132539")):
        told = command(*words)
        assert told.returncode == UsageError.exit_code
        assert "never given on the command line" in told.stderr
        assert "132539" not in told.stderr + told.stdout
    assert command(str(toml)).returncode == UsageError.exit_code  # no id at all
    with workspace_lock(site, "decoct run", shared=True):
        told = command(str(toml), ids="132539\n")
        assert (told.returncode, "in use by decoct run" in told.stderr) == (EnvironmentProblem.exit_code, True)
    told = command(str(toml), "--json", ids="132539\n\n999\n")
    assert told.returncode == 0, told.stderr
    done = Forgotten(**json.loads(told.stdout))
    assert (done.asked, done.new, done.not_found) == (2, 2, 1)
    assert "132539" not in told.stderr + told.stdout
    ids = tmp_path / "withdrawn.txt"
    ids.write_text("132540\n")
    told = command(str(toml), "--ids", str(ids))
    assert told.returncode == 0, told.stderr
    assert "1 given, 1 new on the list" in told.stdout
    assert f"delete {ids}" in told.stdout


def test_other_cohorts_are_left_alone(source: Path, site: Path) -> None:
    """A second run of the same workspace, on other stays, keeps its artefacts, its notes and its report."""
    root = site.parent / "export"
    shutil.copytree(source, root)
    for path in sorted((root / "records").iterdir())[:10]:
        path.unlink()
    head, *rows = (root / "outcomes.txt").read_text().splitlines()
    kept = {path.stem for path in (root / "records").iterdir()}
    (root / "outcomes.txt").write_text("\n".join([head, *(row for row in rows if row.split(",")[0] in kept)]) + "\n")
    config = configuration(root, site).model_copy(update={"name": "other"})
    job = Job(config, new_job(config).folder, resume=True)
    made = night(job)
    (job.folder / "report.json").write_text("{}")
    gone = sorted((source / "records").iterdir())[0].stem
    assert forget(site, (gone,)).cohorts == 1
    assert (job.folder / "report.json").exists()
    assert set(graph_of(job.store).kinds) >= {digest for item in made for digest in item.digests}
    assert np.isin(gone, job.only(made[0], Cohort).subject_ids).item() is False
    assert night(job)[1].reused is False  # the list is longer: the cohort is made anew, and is another one
    assert forgetting.forget(site, (gone,)).cohorts == 0
