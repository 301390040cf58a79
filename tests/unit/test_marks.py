"""Marks: what may be compared within a workspace, and nowhere else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from flows.workspace.job import STORE_KEY, key_path, marks_of
from pipeline.core.errors import EnvironmentProblem

COHORT = hashlib.sha256(b"a cohort that two sites have").hexdigest()
OTHER = hashlib.sha256(b"another").hexdigest()


def test_one_workspace_marks_an_artefact_alike_and_two_workspaces_differently(tmp_path: Path) -> None:
    here, there = marks_of(tmp_path / "here"), marks_of(tmp_path / "there")
    assert here(COHORT) == marks_of(tmp_path / "here")(COHORT)
    assert len({here(COHORT), there(COHORT), here(OTHER), there(OTHER)}) == 4
    assert {len(here(COHORT)), len(there(OTHER))} == {12}
    unkeyed = (COHORT, hashlib.sha256(COHORT.encode()).hexdigest(), hashlib.sha256(bytes.fromhex(COHORT)).hexdigest())
    assert not any(text.startswith((here(COHORT)[:6], there(COHORT)[:6])) for text in unkeyed)


def test_a_key_that_cannot_be_read_is_no_other_key(tmp_path: Path) -> None:
    path = key_path(tmp_path, STORE_KEY)
    path.parent.mkdir(parents=True)
    path.write_text("damaged")
    path.chmod(0o600)
    with pytest.raises(EnvironmentProblem):
        marks_of(tmp_path)
