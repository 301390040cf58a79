"""Drift: silent on other stays of the same hospital, loud on a slip of unit, a silent device, sicker patients.

All on real stays (PhysioNet 2012, set A), halves of which stand for the accepted and the present cohort.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipeline.core.config import DriftConfig
from pipeline.core.errors import DriftError
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import Cohort, Provenance
from pipeline.core.types.drift import CohortProfile, Counts, DriftRow
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.task_labels import latest_hour
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.readers import read_source
from pipeline.ingest.splits import keyed_hash_split
from pipeline.validation import drift

TASKS = ("in_hospital_death", "los_gt_7d")
CONFIG = DriftConfig()
MADE_BY = Provenance("test")


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    mapping = load_mapping("physionet2012")
    tables = read_source(
        "embedded", mapping=mapping, until_hours=latest_hour(mapping, 48, TASKS), sets=("a",), max_stays=1800
    )
    split = keyed_hash_split(tables.stays["subject_id"].to_numpy(), Secret(bytes(32), "split"), 0.16, 0.2)
    return build_cohort(tables, mapping, step_hours=1.0, n_steps=48, tasks=TASKS, split=split)[0]


def limits(table: Counts) -> drift.Limits:
    kind = "prevalence" if table.what == "label" else "distance" if table.ordered else "share"
    return drift.Limits(*getattr(CONFIG, kind))


def profile(cohort: Cohort, rows: np.ndarray | None = None) -> CohortProfile:
    return drift.cohort_profile(cohort, content="test", provenance=MADE_BY, rows=rows)


def compared(before: CohortProfile, now: CohortProfile) -> dict[tuple[str, str], DriftRow]:
    rows = drift.compare(before, now, among="all", limits=limits, false_alarm=CONFIG.false_alarm)
    return {(row.what, row.item): row for row in rows}


def halves(cohort: Cohort, seed: int, sizes: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(cohort.values))
    return np.sort(order[: sizes[0]]), np.sort(order[sizes[0] : sum(sizes)])


@pytest.mark.parametrize("sizes", [(900, 900), (1400, 300), (1700, 60)])
def test_other_stays_of_the_same_hospital_raise_no_alarm(cohort: Cohort, sizes: tuple[int, int]) -> None:
    """At a rate of 0.001 per night, three nights alarm with probability 0.003 at most; the seeds are fixed."""
    for seed in range(3):
        before, now = halves(cohort, seed, sizes)
        rows = compared(profile(cohort, before), profile(cohort, now))
        assert len(rows) > 80
        assert {row.level for row in rows.values()} == {"none"}


def test_a_unit_slip_of_one_variable_is_found_and_named(cohort: Cohort) -> None:
    before, now = halves(cohort, 1, (900, 900))
    column = [variable.name for variable in cohort.variables].index("BUN")
    values = np.array(cohort.values)
    values[:, :, column] *= np.float32(0.357)  # mg/dL -> mmol/L: every value stays plausible
    rows = compared(profile(cohort, before), profile(dataclasses.replace(cohort, values=values), now))
    assert [key for key, row in rows.items() if row.level == "stop"] == [("value", "BUN")]


def test_a_device_that_fell_silent_is_found(cohort: Cohort) -> None:
    before, now = halves(cohort, 2, (900, 900))
    column = [variable.name for variable in cohort.variables].index("SysABP")
    values, observed = np.array(cohort.values), np.array(cohort.observed)
    half = now[: len(now) // 2]
    values[half, :, column], observed[half, :, column] = np.nan, False
    silent = dataclasses.replace(cohort, values=values, observed=observed)
    rows = compared(profile(cohort, before), profile(silent, now))
    assert rows["measured", "SysABP"].level == "stop"
    assert rows["value", "SysABP"].level == "none"
    values, observed = np.array(cohort.values), np.array(cohort.observed)
    values[:, 12:, column], observed[:, 12:, column] = np.nan, False  # from the twelfth hour on
    rows = compared(
        profile(cohort, before), profile(dataclasses.replace(cohort, values=values, observed=observed), now)
    )
    assert rows["measured", "SysABP"].level == "none"
    assert rows["cells", "SysABP"].level == "stop"


def test_a_doubled_prevalence_is_found_and_a_third_more_is_noted(cohort: Cohort) -> None:
    ill = np.flatnonzero(cohort.labels[:, 0] == 1)
    well = np.flatnonzero(cohort.labels[:, 0] == 0)
    share = len(ill) / (len(ill) + len(well))

    def sicker(factor: float) -> np.ndarray:
        return np.sort(np.concatenate([ill, well[: round(len(ill) / (factor * share)) - len(ill)]]))

    assert compared(profile(cohort), profile(cohort, sicker(2.0)))["label", "in_hospital_death"].level == "stop"
    assert compared(profile(cohort), profile(cohort, sicker(1.02)))["label", "in_hospital_death"].level == "none"


def test_effects_are_those_of_the_textbook() -> None:
    def one(ordered: bool, *counts: int) -> CohortProfile:
        return CohortProfile("", sum(counts), sum(counts), (Counts("value", "x", ordered, counts),), MADE_BY)

    row = compared(one(True, 500, 300, 200), one(True, 200, 300, 500))["value", "x"]
    assert row.effect == pytest.approx(0.3)
    assert row.chance == pytest.approx(np.sqrt(np.log(np.e / 0.001) / 2 * (1 / 1000 + 1 / 1000)))
    row = compared(one(False, 500, 500), one(False, 250, 750))["value", "x"]
    assert row.effect == pytest.approx(np.pi / 6)  # 2 asin sqrt .75 - 2 asin sqrt .5 = 2 pi / 3 - pi / 2


def test_few_stays_are_not_compared_and_repeated_stays_count_once() -> None:
    few = CohortProfile("", 19, 19, (Counts("value", "x", True, (10, 9)),), MADE_BY)
    many = CohortProfile("", 400, 400, (Counts("value", "x", True, (200, 200)),), MADE_BY)
    assert not compared(many, few)
    repeated = dataclasses.replace(many, subjects=100)
    alone, together = (compared(many, other)["value", "x"].chance for other in (many, repeated))
    assert together == pytest.approx(alone * np.sqrt((1 / 400 + 1 / 100) / (2 / 400)))


def test_the_contract_names_what_stops_and_a_code_accepts_it(cohort: Cohort) -> None:
    ill = np.flatnonzero(cohort.labels[:, 0] == 1)
    rows = drift.compare(
        profile(cohort), profile(cohort, ill), among="all", limits=limits, false_alarm=CONFIG.false_alarm
    )
    report = drift.judged(rows, against="v3", subjects=(1, 1, 0, 0), notes=(), provenance=MADE_BY)
    contract = drift.as_contract(report)
    assert report.level == "stop"
    assert not contract.success
    critical = next(item for item in contract.outcomes if item.critical and item.column.startswith("drift"))
    assert "label in_hospital_death" in critical.column
    with pytest.raises(DriftError, match=f'drifted from that of v3: label in_hospital_death .*"{report.code}"'):
        drift.require(report, contract, accepted="")
    drift.require(report, contract, accepted=report.code)
    calm = drift.judged((), against="", subjects=(0, 1, 1, 0), notes=(), provenance=MADE_BY)
    drift.require(calm, drift.as_contract(calm), accepted="")
    assert calm.code == ""


def test_a_changed_mapping_is_told(cohort: Cohort) -> None:
    before = profile(cohort)
    now = dataclasses.replace(before, tables=before.tables[:-1])
    assert drift.changed_tables(before, now) == ("los_gt_7d",)
    assert drift.changed_tables(before, before) == ()
