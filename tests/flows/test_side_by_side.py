"""Stages of which none needs another's result: on workers they make what they make one after the other."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.compute import processes
from flows.run import CONDENSE, ENCODE, VALIDATE, Taking, on_workers, walk_until
from flows.workspace.job import Job, new_job
from pipeline.core.config import Config
from pipeline.core.config.compute import ComputeConfig
from pipeline.store import Made

WORKERS = ComputeConfig(kind="local", workers=2)
SETS = {
    "private": {"kind": "private_moments", "n_per_class": 5},
    "centroids": {"kind": "centroids", "n_per_class": 5},
    "several": {"kind": "centroids", "n_per_class": 5, "tasks": "each_task"},
}


def job_of(make: Callable[..., Config], workspace: Path, compute: ComputeConfig, sets: list[str]) -> Job:
    source = {"kind": "embedded", "sets": ["a"], "max_stays": 300}
    chosen = {name: SETS[name] for name in sets}
    terms = {"artefact": "private", "policy": "demo", "site": "test site", "licence": "ODbL-1.0"}
    changes = {"encode": {"raw": {"kind": "identity"}}, "condense": chosen, "group": None, "release": terms}
    config = make(workspace, source=source, cohort={"tasks": ["in_hospital_death"], "n_steps": 6}, **changes)
    return new_job(config.model_copy(update={"compute": compute}))


@pytest.fixture
def ended() -> Iterator[None]:
    yield
    processes.end()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="nothing is kept there")
def test_workers_make_what_one_process_makes(
    tmp_path: Path, small_job: Callable[..., Config], fixed_keys: Callable[[Path], None], ended: None
) -> None:
    found = []
    for folder, table in (("here", ComputeConfig()), ("there", WORKERS)):
        (tmp_path / folder).mkdir()
        fixed_keys(tmp_path / folder)
        made = walk_until(job_of(small_job, tmp_path / folder, table, ["private", "centroids"]), "condense")
        found.append({label: one.digests for label, one in made.items()})
    assert found[0] == found[1]
    assert list(found[0]) == list(found[1])  # in the road's order


def test_only_whole_stages_on_something_new_are_given_to_workers(
    tmp_path: Path, small_job: Callable[..., Config]
) -> None:
    new, known = Made[object](("a",), 1.0, False), Made[object](("a",), 1.0, True)
    job = job_of(small_job, tmp_path, WORKERS, ["private", "centroids", "several"])

    def asked(stage: object, made: Made[object], *names: str) -> bool:
        return on_workers(job, [Taking(stage, (name, made)) for name in names])  # type: ignore[arg-type]

    assert asked(CONDENSE, new, "private", "centroids")
    assert not asked(CONDENSE, new, "private")
    assert not asked(CONDENSE, known, "private", "centroids")
    assert not asked(CONDENSE, new, "private", "several")  # its sets are pieces already
    assert asked(VALIDATE, new, "raw", "private")
    assert not asked(ENCODE, new, "raw", "rqe")  # so are blocks of its stays
    alone = job.config.model_copy(update={"compute": ComputeConfig()})
    job = dataclasses.replace(job, config=alone)
    assert not asked(VALIDATE, new, "raw", "private")
