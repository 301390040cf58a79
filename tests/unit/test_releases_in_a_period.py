"""Each release tells that the gate passed, a bit of patients that no account covers: the policy bounds how many."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.workspace.releases import _require_room
from pipeline.core.errors import BudgetError
from pipeline.core.files import chained
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.trust.log import append_log

POLICY = dataclasses.replace(load_policy("strict"), most_per_period=2)


def propose(workspace: Path, name: str) -> None:
    append_log(workspace, "propose", {"site": "s", "name": name, "version": 1, "policy": "p"})


def test_a_release_above_the_policys_number_is_refused(tmp_path: Path) -> None:
    _require_room(tmp_path, POLICY)
    propose(tmp_path, "one")
    append_log(tmp_path, "send", {"site": "s", "name": "one", "version": 1})  # not a release
    _require_room(tmp_path, POLICY)
    propose(tmp_path, "two")  # whatever its name: both tell of the same patients
    with pytest.raises(
        BudgetError, match="has made 2 releases in the last 365 days, and policy strict allows 2"
    ) as told:
        _require_room(tmp_path, POLICY)
    assert told.value.exit_code == 17
    assert "\n" not in str(told.value)


def test_releases_before_the_period_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for days in (800, 366, 364):
        made = (datetime.now(tz=UTC) - timedelta(days=days)).isoformat(timespec="seconds")
        monkeypatch.setattr(chained, "now", lambda made=made: made)
        propose(tmp_path, f"{days} days ago")
    _require_room(tmp_path, POLICY)
    propose(tmp_path, "another")  # 364 days ago, too
    with pytest.raises(BudgetError):
        _require_room(tmp_path, POLICY)
