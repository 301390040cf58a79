"""Each release tells that the gate passed, a bit of patients that no account covers: the policy bounds how many."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from flows.charging import foresee
from flows.workspace.releases import no_room
from pipeline.core.config import parse_config
from pipeline.core.files import chained
from pipeline.core.types import Task
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.trust.log import append_log

POLICY = dataclasses.replace(load_policy("strict"), most_per_period=2)


def propose(workspace: Path, name: str) -> None:
    append_log(workspace, "propose", {"site": "s", "name": name, "version": 1, "policy": "p"})


def test_a_release_above_the_policys_number_is_refused(tmp_path: Path) -> None:
    assert not no_room(tmp_path, POLICY)
    propose(tmp_path, "one")
    append_log(tmp_path, "send", {"site": "s", "name": "one", "version": 1})  # not a release
    assert not no_room(tmp_path, POLICY)
    propose(tmp_path, "two")  # whatever its name: both tell of the same patients
    assert no_room(tmp_path, POLICY) == (
        "this workspace has made 2 releases in the last 365 days, and policy strict allows 2"
    )


def test_releases_before_the_period_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for days in (800, 366, 364):
        made = (datetime.now(tz=UTC) - timedelta(days=days)).isoformat(timespec="seconds")
        monkeypatch.setattr(chained, "now", lambda made=made: made)
        propose(tmp_path, f"{days} days ago")
    assert not no_room(tmp_path, POLICY)
    propose(tmp_path, "another")  # 364 days ago, too
    assert no_room(tmp_path, POLICY)


def test_a_release_too_many_is_foreseen_before_anything_is_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse_config(
        {
            "name": "n",
            "workspace": str(tmp_path),
            "source": {"kind": "embedded"},
            "encode": {"raw": {"kind": "identity"}},
            "condense": {"private": {"kind": "private_moments", "input": "raw"}},
            "release": {"artefact": "private", "policy": "strict", "site": "s", "licence": "x"},
        },
        "the test's configuration",
        tmp_path,
    )
    monkeypatch.setattr(foresee, "load_policy", lambda _: POLICY)
    many = np.zeros(6000, int)
    known = foresee.Known(np.tile([[0.0], [1.0]], (3000, 1)), many, np.arange(6000), (Task("death"),))
    assert not any("releases in the last" in why for why in foresee.stops(config, known))
    propose(tmp_path, "one")
    propose(tmp_path, "two")
    assert any("releases in the last" in why for why in foresee.stops(config, known))
