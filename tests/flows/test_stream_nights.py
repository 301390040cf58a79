"""A stream through the flow: a set a night for one price, who enters, and what a night asked again gives."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.run import walk_until
from flows.streams import tonight
from flows.workspace.job import Job, new_job
from pipeline.core.config import parse_config
from pipeline.core.digest import digest_array
from pipeline.core.errors import BudgetError, ConfigError
from pipeline.core.types import CondensedSet
from pipeline.sharing.policy.accounting import mismatch, recomputed_epsilon, unreserved
from pipeline.sharing.policy.budget import Budget
from pipeline.sharing.policy.ledger import reserved_queries, spent_by_cohort
from pipeline.sharing.policy.rules import LEDGER_QUERIES

STRICT = Budget(4.0, 1e-5, 365)
FEW, MORE = 240, 300  # keys are new in every run: of 60 stays, eight deaths, one run in six held out none


def job_of(workspace: Path, stays: int, *, resume: bool = True, **stream: Any) -> Job:
    private = {"kind": "private_stream", "begins": "2026-03-01", "n_per_class": 4, "horizon": 20, "backlog_nights": 1}
    plan = {
        "name": "nightly",
        "source": {"kind": "embedded", "sets": ["a"], "max_stays": stays},
        "cohort": {"tasks": ["in_hospital_death"], "step_hours": 12.0, "n_steps": 4},
        "encode": {"raw": {"kind": "identity"}},
        "condense": {"private": private | stream},
        "release": {"artefact": "private", "licence": "CC0-1.0"},
    }
    config = parse_config(plan, "a test", workspace)
    return new_job(config.model_copy(update={"workspace": workspace / "work"}), resume=resume)


def set_of(job: Job) -> CondensedSet:
    return job.only(walk_until(job, "condense")["condense private"], CondensedSet)


def test_every_night_has_a_set_and_all_have_one_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on(day: int) -> None:
        monkeypatch.setattr(tonight, "today", lambda _: date(2026, 3, day))

    on(1)
    first = set_of(job_of(tmp_path, FEW))
    (row,) = spent_by_cohort(tmp_path / "work", STRICT)
    entered = row.people
    assert FEW / 2 < entered <= FEW  # the training stays whose outcome is known
    assert (row.unit, row.nights) == ("stay", 1)
    made_anew = set_of(job_of(tmp_path, FEW, resume=False))
    assert digest_array(made_anew.features) == digest_array(first.features)

    on(2)  # nobody came: another night all the same, whoever is curious
    second = set_of(job_of(tmp_path, FEW))
    assert digest_array(second.features) != digest_array(first.features)
    on(4)  # the machine was off for a night, and stays came
    third = set_of(job_of(tmp_path, MORE))
    (row,) = spent_by_cohort(tmp_path / "work", STRICT)
    assert row.nights == 3
    assert row.people > entered
    assert row.epsilon <= 2.0

    # the gate finds the guarantee on the ledger, and the price that its event has
    ledger = reserved_queries(tmp_path / "work")
    for made in (first, second, third):
        assert made.guarantee is not None
        assert made.guarantee == first.guarantee
        queries = made.provenance.config[LEDGER_QUERIES]
        assert unreserved(made.guarantee, queries, ledger) == ""
        assert mismatch(made.guarantee.epsilon, recomputed_epsilon(made.guarantee)) is None
    assert len(ledger) == 1

    # other terms are another stream: the same people cannot pay for both
    with pytest.raises(BudgetError, match="above the 4"):
        set_of(job_of(tmp_path, MORE, epsilon=4.5))
    other = set_of(
        job_of(tmp_path, MORE, epsilon=3.9)
    )  # nobody may enter it: all are left out, and the set says nothing
    assert np.isfinite(other.features).all()
    rows = spent_by_cohort(tmp_path / "work", STRICT)
    assert [row.people for row in rows][1:] == [0]
    assert max(row.epsilon for row in rows) <= 2.0

    on(21)
    with pytest.raises(ConfigError, match="not among the 20 nights that begin on 2026-03-01"):
        set_of(job_of(tmp_path, MORE))
    with pytest.raises(ConfigError, match="the day of its first night"):
        set_of(job_of(tmp_path, MORE, begins="tomorrow"))
