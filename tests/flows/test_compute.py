"""The same digests whatever makes them: small blocks, threads, processes, a Dask cluster, and workers that die."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from flows.compute import cluster as dask_engine
from flows.compute import maps, pieces, processes
from flows.compute.maps import map_calls, rows_by_blocks
from flows.environment import code_version
from flows.stages.attacks.scenes import SceneOf, attack_all
from flows.stages.condense import condense
from flows.stages.encode import encode, fitted_encoder
from flows.stages.group import train_by_workers
from flows.stages.ingest import ingest
from flows.stages.prepare import prepare
from flows.stages.utility import utility
from flows.workspace.accounted import noise_source
from flows.workspace.job import Job, new_job
from pipeline.audit.encodings.inversion import KnownKeyInversion
from pipeline.audit.sets.near_copies import NearCopies
from pipeline.audit.sets.shadows import ShadowCondensation
from pipeline.audit.sets.successive import SuccessiveReleases
from pipeline.core.codec import record_digest
from pipeline.core.config import Config
from pipeline.core.config.compute import ComputeConfig
from pipeline.core.errors import DataError, DecoctError, EnvironmentProblem
from pipeline.core.files import mapped
from pipeline.core.threads import blas_kernels
from pipeline.core.types import Cohort, EncodedCohort
from pipeline.grouping.trainings import Training, train_here
from pipeline.ingest.cohort import scaling

STAYS = 300
ENCODERS: dict[str, Any] = {
    "rqe": {"kind": "quantum"},
    "channels": {"kind": "random_projection", "key_scope": "per_channel"},
    "records": {"kind": "random_projection", "axis": "record", "n_components": 30},
    "noisy": {"kind": "random_projection", "noise_sd": 0.1},
}
DIED = ".died"


@pytest.fixture(scope="module")
def job(
    tmp_path_factory: pytest.TempPathFactory,
    small_job: Callable[..., Config],
    fixed_keys: Callable[[Path], None],
) -> Job:
    workspace = tmp_path_factory.mktemp("workspace")
    fixed_keys(workspace)
    source = {"kind": "embedded", "sets": ["a"], "max_stays": STAYS}
    tables = {"private": {"kind": "private_moments", "input": "rqe", "n_per_class": 5}}
    masks = {"observed": "encode", "lengths": "mask"}
    return new_job(small_job(workspace, source=source, encode=ENCODERS, condense=tables, prepare=masks, group=None))


@pytest.fixture(scope="module")
def cluster() -> Iterator[ComputeConfig]:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # no worker can import a test
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "checked", _checked_by_its_own_code)
        patch.setattr(processes, "dumps", cloudpickle.dumps)
        yield ComputeConfig(kind="local", workers=2)
    processes.end()
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def dask_cluster(cluster: ComputeConfig) -> Iterator[tuple[ComputeConfig, Any]]:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", protocol="tcp://", dashboard_address=None, memory_limit=0
    ) as elsewhere:
        table = ComputeConfig(kind="dask", address=elsewhere.scheduler_address)
        yield table, elsewhere
        dask_engine.client(table.address).close()


CHECKED = pieces.checked


def _checked_by_its_own_code(folder: str, told: pieces.Told, function: Callable[..., Any], call: Any) -> Any:
    """As the real one, but for a working tree that somebody edits between the start of two workers."""
    return CHECKED(folder, dataclasses.replace(told, code=code_version()), function, call)


def using(job: Job, table: ComputeConfig) -> Job:
    return dataclasses.replace(job, config=job.config.model_copy(update={"compute": table}))


def made(job: Job) -> dict[str, str]:
    cohort = ingest(job)
    prepared = prepare(job, cohort)
    encoded = {name: encode(job, name, prepared).first for name in ENCODERS}
    return {"cohort": cohort.first, "prepared": prepared.first, **encoded}


@pytest.fixture(scope="module")
def whole(job: Job) -> dict[str, str]:
    return made(job)


def test_one_block_is_what_the_library_makes_of_the_whole(job: Job, whole: dict[str, str]) -> None:
    store = job.store
    raw = store.get(whole["cohort"], Cohort)
    assert len(raw.labels) == STAYS < maps.BLOCK_STAYS
    expected = scaling.prepare(raw, **job.config.prepare.model_dump(mode="json"))
    found = store.get(whole["prepared"], EncodedCohort)
    np.testing.assert_array_equal(found.features, expected.features)
    np.testing.assert_array_equal(found.subject_index, expected.subject_index)
    assert found.channels == expected.channels
    assert list(found.transforms[1:]) == list(expected.transforms)
    for name in ENCODERS:
        fitted = fitted_encoder(job.config.encode[name], found, job.secret("encoder"))
        again = fitted.encode(found, noise=noise_source(job, found))
        kept = store.get(whole[name], EncodedCohort)
        np.testing.assert_array_equal(kept.features, again.features)
        assert kept.channels == again.channels
        assert list(kept.transforms) == list(again.transforms)


@pytest.mark.parametrize("workers", [1, 2])
def test_small_blocks_in_files_have_the_digests_of_the_whole(
    job: Job, whole: dict[str, str], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "BLOCK_STAYS", 37)
    monkeypatch.setattr(mapped, "LARGE_BYTES", 1 << 12)
    assert made(using(job, ComputeConfig(workers=workers))) == whole
    assert not list(job.store.scratch.iterdir())


@pytest.mark.slow
def test_processes_and_a_cluster_have_the_digests_of_one_process(
    job: Job,
    whole: dict[str, str],
    cluster: ComputeConfig,
    dask_cluster: tuple[ComputeConfig, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(maps, "BLOCK_STAYS", STAYS - 50)  # two blocks: one made here, the other's end by a worker
    for table in (cluster, dask_cluster[0]):
        assert made(using(job, table)) == whole


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_changes_nothing(
    job: Job, cluster: ComputeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "BLOCK_STAYS", 4096)
    n = 5 * 4096
    (job.folder / DIED).unlink(missing_ok=True)
    found = rows_by_blocks(using(job, cluster), _rows_of_a_mortal, n, 3)
    assert (job.folder / DIED).exists()
    np.testing.assert_array_equal(found, np.arange(3 * n).reshape(n, 3))


def _rows_of_a_mortal(job: Job, stays: slice, width: int) -> np.ndarray:
    """The third block's first worker dies by the kernel's hand."""
    if stays.start == 2 * 4096:
        try:
            (job.folder / DIED).touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
        except FileExistsError:
            pass
    return np.arange(width * stays.start, width * stays.stop).reshape(-1, width)


def test_a_scheduler_that_does_not_answer_is_one_sentence(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(dask_engine, "ANSWER_SECONDS", 1)
    nowhere = ComputeConfig(kind="dask", address="tcp://127.0.0.1:9")
    with pytest.raises(EnvironmentProblem, match="no Dask scheduler answers"):
        map_calls(using(job, nowhere), str.upper, [("a",)])


def test_processes_begin_with_the_dearest_and_answer_in_order(job: Job, cluster: ComputeConfig, tmp_path: Path) -> None:
    processes.end()
    one, begun = cluster.model_copy(update={"workers": 1}), tmp_path / "begun"
    told = [(str(begun), name) for name in "abcd"]
    assert list(maps.calls(using(job, one), _noted, told, [2, 5, 1, 5])) == list("abcd")
    assert begun.read_text() == "bdac"


def _noted(path: str, name: str) -> str:
    with Path(path).open("a") as stream:
        stream.write(name)
    return name


@pytest.mark.slow
def test_what_a_worker_refuses_is_one_sentence(job: Job, cluster: ComputeConfig) -> None:
    with pytest.raises(DataError, match=r"^3 rows are broken$"):
        map_calls(using(job, cluster), _broken, [(3,), (3,)])

    with pytest.raises(DecoctError, match="ValueError") as refused:
        map_calls(using(job, cluster), _tells, [(187.5,), (187.5,)])
    assert "187" not in str(refused.value)


def _broken(rows: int) -> None:
    raise DataError(f"{rows} rows are broken")


def _tells(value: float) -> None:
    raise ValueError(f"value {value} of a stay")


def test_a_piece_that_no_process_survives_ends_the_run_and_not_the_processes(
    job: Job, cluster: ComputeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "MOST_DEATHS", 1)
    with pytest.raises(EnvironmentProblem, match="2 worker processes died"):
        map_calls(using(job, cluster), os._exit, [(1,), (1,)])
    assert map_calls(using(job, cluster), str.upper, [("a",), ("b",)]) == ["A", "B"]


@pytest.mark.slow
def test_a_piece_that_no_worker_of_a_scheduler_survives_ends_the_run_and_not_the_workers(
    job: Job, dask_cluster: tuple[ComputeConfig, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    table, elsewhere = dask_cluster
    with monkeypatch.context() as patch:  # one deadly piece: a second worker dying late would take innocent ones along
        patch.setattr(elsewhere.scheduler, "allowed_failures", 0)
        with pytest.raises(EnvironmentProblem, match="the cluster failed: KilledWorker"):
            map_calls(using(job, table), os._exit, [(1,)])
    assert map_calls(using(job, table), str.upper, [("a",), ("b",)]) == ["A", "B"]


def test_much_work_is_shared_among_the_cores_where_the_table_leaves_it_open(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
    monkeypatch.setattr(maps, "memory_gib", lambda: 64)
    left_open, said = using(job, ComputeConfig()), using(job, ComputeConfig(kind="threads"))
    chosen = maps.for_much_work(left_open, maps.MANY_STAYS)
    assert (chosen.config.compute.kind, chosen.config.compute.workers) == ("local", 4)
    assert chosen.config_digest == job.config_digest
    assert maps.for_much_work(left_open, maps.MANY_STAYS - 1) is left_open
    assert maps.for_much_work(said, maps.MANY_STAYS) is said
    monkeypatch.setattr(maps, "memory_gib", lambda: 3)
    assert maps.for_much_work(left_open, maps.MANY_STAYS) is left_open


def test_a_worker_without_the_workspace_is_refused_before_anything_is_made(job: Job, tmp_path: Path) -> None:
    told = pieces.tell(job)
    assert CHECKED(str(job.folder), told, str.upper, ("a",)) == "A"
    with pytest.raises(EnvironmentProblem, match="does not see the run's workspace"):
        CHECKED(str(tmp_path), told, str.upper, ("a",))
    assert not list(tmp_path.iterdir())  # above all no new key
    with pytest.raises(EnvironmentProblem, match="another version"):
        CHECKED(str(job.folder), dataclasses.replace(told, code="0.0"), str.upper, ("a",))


def test_a_worker_with_another_blas_kernel_is_refused_in_one_sentence(job: Job) -> None:
    told = pieces.tell(job)
    assert told.kernels == blas_kernels()
    for kernels in ((), ("openblas Z80",), (*told.kernels, "mkl unknown")):
        other = dataclasses.replace(told, kernels=kernels)
        with pytest.raises(EnvironmentProblem, match=r"^a worker computes by other BLAS .* of one kind$"):
            CHECKED(str(job.folder), other, str.upper, ("a",))


def test_blas_kernels_are_named_by_library_and_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    openblas = {"user_api": "blas", "internal_api": "openblas", "architecture": "Haswell", "num_threads": 2}
    found = [openblas, openblas | {"filepath": "another copy"}, {"user_api": "openmp", "internal_api": "openmp"}]
    monkeypatch.setattr("pipeline.core.threads.threadpool_info", lambda: found)
    assert blas_kernels.__wrapped__() == ("openblas Haswell",)
    monkeypatch.setattr("pipeline.core.threads.threadpool_info", lambda: [{"user_api": "blas", "internal_api": "mkl"}])
    assert blas_kernels.__wrapped__() == ("mkl unknown",)


def test_a_worker_opens_its_own_job_and_refuses_another_configuration(job: Job) -> None:
    told = pieces.tell(job)
    seen = CHECKED(str(job.folder), told, _folder_and_seed, (pieces.ItsJob.HERE, "x"))
    assert seen == (job.folder, job.seed("x"))
    with pytest.raises(EnvironmentProblem, match="another configuration in the run's folder"):
        CHECKED(
            str(job.folder), dataclasses.replace(told, config="0" * 64), _folder_and_seed, (pieces.ItsJob.HERE, "x")
        )


def _folder_and_seed(job: Job, name: str) -> tuple[Path, int]:
    return job.folder, job.seed(name)


def test_a_full_disk_is_an_error_and_leaves_nothing(
    job: Job, cluster: ComputeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(maps, "take_room", full)
    with pytest.raises(OSError, match="No space"):
        rows_by_blocks(using(job, cluster), _rows_of_a_mortal, 2 * 4096, 3)
    assert not list(job.store.scratch.glob("*.rows"))


def test_what_runs_a_job_is_no_part_of_what_it_makes(job: Job) -> None:
    other = using(job, ComputeConfig(kind="dask", address="tls://10.0.0.1:8786"))
    assert other.config_digest == job.config_digest
    with pytest.raises(ValueError, match="need each other"):
        ComputeConfig(kind="dask")
    with pytest.raises(ValueError, match="begins with tls://"):
        ComputeConfig(kind="dask", address="tcp://10.0.0.1:8786")


@pytest.mark.slow
def test_attacks_and_shadows_are_made_by_workers_as_by_one_process(
    tmp_path: Path, small_job: Callable[..., Config], fixed_keys: Callable[[Path], None], cluster: ComputeConfig
) -> None:
    """The full audit: every shadow once, by a worker; the same reports, byte for byte."""
    fixed_keys(tmp_path)
    source = {"kind": "embedded", "sets": ["a"], "max_stays": 1500}
    encoders = {"raw": {"kind": "identity"}, "rp": {"kind": "random_projection"}}
    sets = {"private": {"kind": "private_moments", "input": "raw", "n_per_class": 5}}
    audit = {"level": "full", "max_targets": 20, "n_bootstrap": 50}
    job = new_job(small_job(tmp_path, source=source, encode=encoders, condense=sets, audit=audit, group=None))
    prepared = prepare(job, ingest(job))
    raw, rp = (encode(job, name, prepared) for name in encoders)
    private = condense(job, "private", raw, None)
    told = [
        SceneOf("encoding", "rp", rp.first, rp, prepared),
        SceneOf("set", "private", private.first, private, raw),
    ]
    attacks = (KnownKeyInversion(), NearCopies(), ShadowCondensation(), SuccessiveReleases())
    there = attack_all(using(job, cluster), told, 5, attacks)
    shadows = {path.name: path.read_bytes() for path in (job.folder / "shadows").iterdir()}
    shutil.rmtree(job.folder / "shadows")
    here = attack_all(job, told, 5, attacks)
    assert len(shadows) == 16 + 8
    assert shadows == {path.name: path.read_bytes() for path in (job.folder / "shadows").iterdir()}
    assert [record_digest(report) for report in here] == [record_digest(report) for report in there]


@pytest.mark.slow
@pytest.mark.parametrize("n_tasks", [1, 3])
def test_sets_of_a_table_are_made_by_workers_as_by_one_process(
    n_tasks: int,
    tmp_path: Path,
    small_job: Callable[..., Config],
    fixed_keys: Callable[[Path], None],
    cluster: ComputeConfig,
) -> None:
    """A set for each task, by networks: the same digests, and nothing left in the run's folder."""
    fixed_keys(tmp_path)
    source = {"kind": "embedded", "sets": ["a"], "max_stays": 400}
    cohort = {"tasks": ["in_hospital_death", "los_gt_7d", "sofa_ge_10"][:n_tasks]}
    matching = {"kind": "distribution_matching", "n_per_class": 5, "iterations": 4}
    private = {"kind": "private_moments", "input": "raw", "n_per_class": 5}
    sets = {"several": {**matching, "input": "raw", "tasks": "each_task"}, "private": private}
    encoders = {"raw": {"kind": "identity"}}
    job = new_job(small_job(tmp_path, source=source, cohort=cohort, encode=encoders, condense=sets, group=None))
    raw = encode(job, "raw", prepare(job, ingest(job)))
    here = condense(job, "several", raw, None)
    there = condense(using(job, cluster), "several", raw, None)
    assert len(here.digests) == 2 * n_tasks
    assert not there.reused
    assert here.digests == there.digests
    assert not list(job.folder.glob("*.checkpoint"))


@pytest.mark.slow
def test_candidate_groups_are_trained_by_workers_as_by_one_process(job: Job, cluster: ComputeConfig) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((200, 6)).astype(np.float32)
    labels = (inputs[:, :3] + rng.standard_normal((200, 3)) > 0).astype(np.float32)
    rows = np.arange(100), np.arange(100, 150), np.arange(150, 200)
    asked = [Training(*rows, np.eye(3, dtype=bool), (seed,), swap=bool(seed % 2)) for seed in range(3)]
    here = list(train_here(inputs, labels, asked, device="cpu"))
    there = list(train_by_workers(using(job, cluster), inputs, labels, asked, device="cpu"))
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)
        np.testing.assert_array_equal(one.at_limit, other.at_limit)
    assert not list(job.store.scratch.iterdir())

    one_class = [Training(*rows, np.ones((1, 3), dtype=bool), (0,))]
    with pytest.raises(DataError, match="fewer than two classes"):
        list(train_by_workers(using(job, cluster), inputs, np.ones_like(labels), one_class, device="cpu"))
    assert not list(job.store.scratch.iterdir())


def test_the_panel_is_trained_by_workers_as_by_one_process(job: Job, cluster: ComputeConfig) -> None:
    cohort = ingest(job)
    prepared = prepare(job, cohort)
    encoded = {"rqe": encode(job, "rqe", prepared)}
    sets = {"private": condense(job, "private", encoded["rqe"], None)}
    here = utility(job, encoded, sets)
    again = dataclasses.replace(using(job, cluster), resume=False)
    assert utility(again, encoded, sets).first == here.first


@pytest.mark.slow
def test_a_terminals_signals_are_left_to_the_process_that_has_the_workers(job: Job, cluster: ComputeConfig) -> None:
    assert set(map_calls(using(job, cluster), _ignored, [(0,), (1,)])) == {(True, True, False)}


def _ignored(_: int) -> tuple[bool, ...]:
    return tuple(signal.getsignal(one) == signal.SIG_IGN for one in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM))


@pytest.mark.slow
def test_workers_end_with_the_process_that_began_them(tmp_path: Path) -> None:
    """Killed, it can tell them nothing."""
    told = tmp_path / "pids"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(told)])
    _until(lambda: told.exists() and len(told.read_text().split()) == 2)
    pids = [int(pid) for pid in told.read_text().split()]
    parent.kill()
    parent.wait()
    _until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


PARENT = """
import sys, time
from flows.compute import processes
crew = processes.by_processes(2, time.sleep, [(0,), (0,), (600,), (600,)])
next(crew), next(crew)
with open(sys.argv[1], "w") as told:
    told.write(" ".join(str(worker.process.pid) for worker in processes._crew))
next(crew)
"""


def _until(held: Callable[[], bool]) -> None:
    for _ in range(600):
        if held():
            return
        time.sleep(0.1)
    raise AssertionError("a minute was not enough")
