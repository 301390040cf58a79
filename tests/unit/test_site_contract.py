"""A site's contract: a Great Expectations project drawn up from a cohort, edited by its API, held against the next."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import DataError
from pipeline.core.types import Cohort, IngestReport, Provenance, Task, Variable
from pipeline.validation.contracts import require
from pipeline.validation.expectations import great_expectations
from pipeline.validation.site_columns import stay_frame
from pipeline.validation.site_contract import (
    SiteContract,
    check_site_contract,
    draft_contract,
    project_code,
    read_contract,
    write_contract,
)

REPORT = IngestReport("made up", 100, 95, {"implausible": 5}, {"HR": {"implausible": 5}}, 40, 0, {}, {}, {})
gx = great_expectations()


def cohort(shift: float = 0.0, observed: float = 1.0, stays: int = 40) -> Cohort:
    rng = np.random.default_rng(0)
    values = rng.uniform(60, 100, (stays, 4, 2)).astype(np.float32)
    values[..., 0] += shift
    values[round(stays * observed) :, :, 1] = np.nan
    return Cohort(
        values=values,
        observed=np.isfinite(values),
        static=np.zeros((stays, 0), np.float32),
        labels=(np.arange(stays) % 3 == 0).astype(np.float32)[:, None],
        stay_ids=np.array([f"s{i}" for i in range(stays)]),
        subject_ids=np.array([f"s{i}" for i in range(stays)]),
        split=(np.arange(stays) % 3).astype(np.int8),
        variables=(Variable("HR", "/min", 10, 320, 30, 180, 80), Variable("MAP", "mmHg", 15, 250, 30, 150, 85)),
        static_variables=(),
        tasks=(Task("died"),),
        step_hours=1.0,
        provenance=Provenance("ingest", config={"mapping": "m"}),
    )


@pytest.fixture
def written(tmp_path: Path) -> SiteContract:
    return write_contract(tmp_path, "ward", draft_contract(cohort(), REPORT))


def edited(contract: SiteContract, name: str, *expectations: Any) -> SiteContract:
    context = gx.get_context(mode="file", context_root_dir=str(contract.project))
    suite = context.suites.get(name)
    for expectation in expectations:
        suite.add_expectation(expectation)
    suite.save()
    return read_contract(contract.project.parent)


def broken(contract: SiteContract, held: Cohort) -> list[tuple[str, bool]]:
    outcomes = check_site_contract(held, REPORT, contract).outcomes
    return [(outcome.column, outcome.critical) for outcome in outcomes if not outcome.success]


def test_an_accepted_cohort_keeps_its_own_contract_which_is_written_once(written: SiteContract, tmp_path: Path) -> None:
    result = check_site_contract(cohort(), REPORT, written)
    require(result)
    assert all(outcome.success for outcome in result.outcomes)
    assert len(result.outcomes) > 10
    assert write_contract(tmp_path, "ward", draft_contract(cohort(), REPORT)).digest == written.digest
    moved = write_contract(tmp_path, "ward", draft_contract(cohort(shift=5), REPORT))
    assert moved.digest != written.digest
    assert read_contract(tmp_path).digest == read_contract(tmp_path / "gx").digest == moved.digest


def test_what_was_lost_on_the_way_is_told(written: SiteContract) -> None:
    assert broken(written, cohort(observed=0.3)) == [("MAP: stays observed", True)]
    assert broken(written, cohort(observed=0.2)) == [("MAP: stays observed", True)]  # of so few stays no median is told
    assert broken(written, cohort(shift=60)) == [("HR: median", False)]  # remarked on, and not critical
    other = dataclasses.replace(cohort(), tasks=(Task("sepsis"),))
    with pytest.raises(DataError, match=r"died: .*is part of the cohort"):
        require(check_site_contract(other, REPORT, written))


def test_a_site_edits_a_suite_by_the_library_s_own_interface_and_is_obeyed(written: SiteContract) -> None:
    e = gx.expectations
    changed = edited(
        written,
        "ward stays",
        e.ExpectColumnValuesToBeBetween(column="HR: max", max_value=80, mostly=0.5),
        e.ExpectColumnPairValuesAToBeGreaterThanB(column_A="HR: max", column_B="HR: min", or_equal=True),
        e.ExpectColumnMeanToBeBetween(column="label:died", min_value=0.5, severity="warning"),
        e.ExpectTableRowCountToBeBetween(min_value=41),
    )
    assert changed.digest != written.digest
    assert broken(changed, cohort()) == [("HR: max", True), ("label:died", False), ("(table)", True)]
    assert ("HR: max", True) not in broken(changed, cohort(shift=-20))


def test_an_expectation_that_cannot_be_judged_stops_the_run(written: SiteContract) -> None:
    e = gx.expectations
    absent = edited(written, "ward stays", e.ExpectColumnMeanToBeBetween(column="SpO2: mean", min_value=0.5))
    assert broken(absent, cohort()) == [("SpO2: mean", True)]
    dates = e.ExpectColumnValuesToBeDateutilParseable(column="stays", severity="info")
    strange = edited(absent, "ward profile", dates)
    found = [o for o in check_site_contract(cohort(), REPORT, strange).outcomes if "could not be evaluated" in o.rule]
    assert [(outcome.column, outcome.critical, outcome.success) for outcome in found] == [("stays", True, False)]
    path = written.project / "expectations" / "ward stays.json"
    raw = json.loads(path.read_text())
    raw["expectations"][0]["type"] = "expect_magic"
    path.write_text(json.dumps(raw))
    with pytest.raises(DataError, match="does not take the expectation expect_magic"):
        check_site_contract(cohort(), REPORT, read_contract(written.project))


def test_data_docs_and_stored_results_hold_no_small_count_and_no_value(written: SiteContract) -> None:
    e = gx.expectations
    few = cohort()
    few.values[:3, 0, 0] = 317.25
    rules = edited(
        written,
        "ward stays",
        e.ExpectColumnValuesToBeBetween(column="HR: max", max_value=200),
        e.ExpectColumnMaxToBeBetween(column="HR: max", max_value=400),  # whose figure is one stay's value
        e.ExpectColumnDistinctValuesToBeInSet(column="HR: max", value_set=[1.0], severity="info"),
        e.ExpectColumnValuesToBeDateutilParseable(column="HR: max", severity="info"),  # whose error names a value
    )
    assert broken(rules, few)[0] == ("HR: max", True)
    docs = written.project / "uncommitted"
    results = [path.read_text() for path in docs.rglob("validations/**/*.json")]
    pages = [path.read_text() for path in docs.rglob("*.html")]
    assert len(results) == 2
    assert len(pages) >= 3
    assert not any("317.25" in text or "fingerprint" in text for text in (*results, *pages))
    assert not any(re.search(r'"(unexpected|missing)_count": [1-9]\b', text) for text in results)
    assert not any("observed_value" in text for text in results)
    assert any('"unexpected_count": 0' in text for text in results)
    assert not any("3 unexpected" in text for text in pages)
    for path in docs.rglob("validations/**/*.json"):
        path.unlink()
    check_site_contract(cohort(stays=9), REPORT, rules)  # of so few stays no figure at all
    told = json.loads(next(docs.rglob("validations/ward stays/**/*.json")).read_text())
    assert all(set(result["result"]) <= {"element_count"} for result in told["results"])


def test_the_columns_of_a_stay() -> None:
    held = cohort(observed=0.5, stays=4)
    held.values[0, :, 0], held.observed[0, 0, 0] = [1, 2, 5, 3], False
    wanted = {f"{name}: {what}" for name in ("HR", "MAP") for what in ("steps", "first", "last", "min", "max", "mean")}
    frame = stay_frame(held, frozenset(wanted | {"split", "label:died", "elsewhere"}))
    assert set(frame) == wanted | {"split", "label:died"}
    of_first = [float(frame[f"HR: {what}"][0]) for what in ("steps", "first", "last", "min", "max")]
    assert of_first == [3, 2, 3, 2, 5]
    assert frame["HR: mean"][0] == pytest.approx(10 / 3)
    assert frame["MAP: steps"][3] == 0
    assert all(np.isnan(frame[f"MAP: {what}"][3]) for what in ("first", "last", "min", "max", "mean"))


def test_few_stays_give_no_figure() -> None:
    columns = {rule.column for rule in draft_contract(cohort(observed=0.2), REPORT)}
    assert "HR: median" in columns
    assert not {"MAP: median", "MAP: smallest", "MAP: largest"} & columns


def test_a_suite_of_another_purpose_is_named_and_a_project_without_one_of_ours_is_refused(tmp_path: Path) -> None:
    context = gx.get_context(mode="file", project_root_dir=str(tmp_path))
    context.suites.add(gx.ExpectationSuite(name="billing"))
    with pytest.raises(DataError, match="has no suite with expectations"):
        read_contract(tmp_path)
    write_contract(tmp_path, "ward", draft_contract(cohort(), REPORT))
    assert read_contract(tmp_path).others == ("billing",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no json", "is damaged"),
        ("{}", "is damaged"),
        ('{"name": "a", "meta": {"decoct": "beds"}, "expectations": []}', 'its meta says decoct = "beds"'),
        ('{"name": "a", "meta": {"decoct": "stays"}, "expectations": [{"type": "expect"}]}', "is damaged"),
    ],
)
def test_broken_contracts_are_named(written: SiteContract, text: str, told: str, tmp_path: Path) -> None:
    (written.project / "expectations" / "x.json").write_text(text)
    with pytest.raises(DataError, match=told):
        read_contract(tmp_path)
    with pytest.raises(DataError, match="is no Great Expectations project"):
        read_contract(tmp_path / "nowhere")


def test_what_the_library_would_run_of_a_project_is_pinned(written: SiteContract) -> None:
    before = project_code(written.project.parent)
    check_site_contract(cohort(), REPORT, written)
    assert project_code(written.project) == before
    (written.project / "plugins" / "own.py").write_text("raise SystemExit")
    assert set(project_code(written.project)) - set(before) == {"plugins/own.py"}
    listed = written.project / "great_expectations.yml"
    listed.write_text(listed.read_text() + "\n# another")
    assert project_code(written.project)["great_expectations.yml"] != before["great_expectations.yml"]
