"""A site's contract: drawn up from a cohort, written, read back, and held against the next cohort."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import DataError
from pipeline.core.types import Cohort, IngestReport, Provenance, Task, Variable
from pipeline.validation.contracts import require
from pipeline.validation.site_contract import (
    SiteContract,
    check_site_contract,
    draft_contract,
    read_contract,
    write_contract,
)

REPORT = IngestReport("made up", 100, 95, {"implausible": 5}, {"HR": {"implausible": 5}}, 40, 0, {}, {}, {})


def cohort(shift: float = 0.0, observed: float = 1.0) -> Cohort:
    rng = np.random.default_rng(0)
    values = rng.uniform(60, 100, (40, 4, 2)).astype(np.float32)
    values[..., 0] += shift
    values[round(40 * observed) :, :, 1] = np.nan
    return Cohort(
        values=values,
        observed=np.isfinite(values),
        static=np.zeros((40, 0), np.float32),
        labels=(np.arange(40) % 3 == 0).astype(np.float32)[:, None],
        stay_ids=np.array([f"s{i}" for i in range(40)]),
        subject_ids=np.array([f"s{i}" for i in range(40)]),
        split=(np.arange(40) % 3).astype(np.int8),
        variables=(Variable("HR", "/min", 10, 320, 30, 180, 80), Variable("MAP", "mmHg", 15, 250, 30, 150, 85)),
        static_variables=(),
        tasks=(Task("died"),),
        step_hours=1.0,
        provenance=Provenance("ingest", config={"mapping": "m"}),
    )


def test_an_accepted_cohort_keeps_its_own_contract_after_a_round_trip(tmp_path: Path) -> None:
    path, written = write_contract(tmp_path / "contracts", draft_contract("ward", cohort(), REPORT))
    assert read_contract(path) == written
    assert read_contract(path).digest == written.digest
    result = check_site_contract(cohort(), REPORT, written)
    require(result)
    assert all(outcome.success for outcome in result.outcomes)
    assert "version 1" in result.suite


def test_the_suite_is_one_that_great_expectations_reads(tmp_path: Path) -> None:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx

    path, written = write_contract(tmp_path, draft_contract("ward", cohort(), REPORT))
    suite = gx.ExpectationSuite(**json.loads(path.read_text())["suite"])
    assert len(suite.expectations) == len(written.rules) > 10


def test_versions_count_what_changed_and_digests_tell_it(tmp_path: Path) -> None:
    path, first = write_contract(tmp_path, draft_contract("ward", cohort(), REPORT))
    assert write_contract(tmp_path, draft_contract("ward", cohort(), REPORT))[1] == first
    _, second = write_contract(tmp_path, draft_contract("ward", cohort(shift=5), REPORT))
    assert (first.version, second.version) == (1, 2)
    assert read_contract(path).digest == second.digest != first.digest
    edited = json.loads(path.read_text())
    edited["suite"]["expectations"][0]["kwargs"]["min_value"] = 39
    path.write_text(json.dumps(edited))
    assert read_contract(path).digest != second.digest


def test_a_stricter_rule_stops_the_run_with_a_sentence(tmp_path: Path) -> None:
    path, _ = write_contract(tmp_path, draft_contract("ward", cohort(), REPORT))
    raw = json.loads(path.read_text())
    rule = next(item for item in raw["suite"]["expectations"] if item["kwargs"]["column"] == "HR: largest")
    rule["kwargs"]["max_value"], rule["meta"]["demands"] = 90, "is at most 90"
    path.write_text(json.dumps(raw))
    with pytest.raises(DataError, match=r"HR: largest.*is at most 90"):
        require(check_site_contract(cohort(), REPORT, read_contract(path)))


def test_what_was_lost_on_the_way_is_told() -> None:
    contract = draft_contract("ward", cohort(), REPORT)
    lost = check_site_contract(cohort(observed=0.3), REPORT, contract)
    assert [outcome.column for outcome in lost.outcomes if not outcome.success] == ["MAP: stays observed"]
    with pytest.raises(DataError, match="MAP: stays observed"):
        require(lost)
    fewer = check_site_contract(cohort(observed=0.2), REPORT, contract)  # of so few stays no median is told
    assert [outcome.column for outcome in fewer.outcomes if not outcome.success] == ["MAP: stays observed"]
    moved = check_site_contract(cohort(shift=60), REPORT, contract)
    assert [outcome.column for outcome in moved.outcomes if not outcome.success] == ["HR: median"]
    require(moved)  # remarked on, and not critical
    other = dataclasses.replace(cohort(), tasks=(Task("sepsis"),))
    with pytest.raises(DataError, match=r"died: .*is part of the cohort"):
        require(check_site_contract(other, REPORT, contract))


def test_few_stays_give_no_figure() -> None:
    columns = {rule.column for rule in draft_contract("ward", cohort(observed=0.2), REPORT).rules}
    assert "HR: median" in columns
    assert not {"MAP: median", "MAP: smallest", "MAP: largest"} & columns


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no json", "cannot be read as JSON"),
        ("{}", "is damaged"),
        ('{"format": "other/1"}', "is of another format"),
        ('{"format": "decoct-contract/1", "version": 1, "mapping_digest": "", "suite": {"name": "x", "expectations": '
         '[{"type": "expect_magic", "kwargs": {"column": "a"}, "meta": {}}]}}', "of a kind that is not known"),
    ],
)  # fmt: skip
def test_broken_contracts_are_named(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=told):
        read_contract(tmp_path / "x.json")
    with pytest.raises(DataError, match="not found"):
        read_contract(tmp_path / "y.json")


def test_a_contract_is_a_plain_record() -> None:
    assert SiteContract("a", 1, "", ()).digest == SiteContract("a", 1, "", ()).digest
