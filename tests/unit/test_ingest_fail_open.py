"""What is wrong and could pass: a code for missing inside the plausible range, the wrong order of dates, of hours."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.types import Cohort, IngestReport, Variable
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.doubts.slips import Values, code_notes
from pipeline.ingest.engine.event_tables import read_event_tables
from pipeline.ingest.engine.instants import ClockKinds, instants
from pipeline.ingest.mapping.load import parse_mapping
from pipeline.ingest.number_text import COMMA, read_numbers

GLUCOSE = Variable("Glucose", "mg/dL", plausible_low=5, plausible_high=2000, scale_low=40, scale_high=400, normal=110)


def values(numbers: np.ndarray) -> Values:
    return Values(*np.unique(numbers.astype(np.float32).astype(np.float64), return_counts=True))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([999.0, 888.0, 777.0, 99.0, 77.0, 99.9, 9.0]), st.integers(0, 10_000), st.integers(200, 400))
def test_a_number_that_stands_for_missing_is_told_and_an_ordinary_column_is_not(code: float, seed: int, n: int) -> None:
    ordinary = np.round(np.random.default_rng(seed).normal(130, 35, 4000).clip(20, 600), 1)
    assert code_notes(GLUCOSE, values(ordinary)) == ()
    spoilt = np.append(ordinary, np.full(n, code))
    told = code_notes(GLUCOSE, values(spoilt))
    assert [f" are {code:g}, ten times as many" in note for note in told] == [True]


def test_whole_numbers_and_volumes_without_a_code_are_left_alone() -> None:
    points = Variable("GCS", "points", plausible_low=3, plausible_high=15, scale_low=3, scale_high=15, normal=15)
    assert code_notes(points, values(np.repeat(np.arange(3.0, 16), 500))) == ()
    urine = Variable("Urine", "mL", plausible_low=0, plausible_high=9000, scale_low=0, scale_high=500, normal=60)
    assert code_notes(urine, values(np.append(np.zeros(900), np.arange(900)))) == ()
    flag = Variable("MechVent", "1", plausible_low=0, plausible_high=1, scale_low=0, scale_high=1, normal=0)
    assert code_notes(flag, values(np.zeros(50))) == ()
    saturation = Variable("SaO2", "%", plausible_low=20, plausible_high=100, scale_low=80, scale_high=100, normal=98)
    assert code_notes(saturation, values(np.repeat([97.0, 98, 99, 100], [300, 500, 600, 400]))) == ()


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.dates(min_value=date(1900, 1, 1), max_value=date(2200, 1, 1)), min_size=1, max_size=8),
    st.sampled_from(["day_first", "month_first"]),
)
def test_dates_of_the_other_order_are_told(days: list[date], order: str) -> None:
    form, other = ("%d/%m/%Y", "%m/%d/%Y") if order == "day_first" else ("%m/%d/%Y", "%d/%m/%Y")
    seen = ClockKinds()
    read = instants(pl.Series([day.strftime(form) for day in days], dtype=pl.String), None, seen, order)
    assert (read.null_count(), seen.contrary) == (0, 0)
    instants(pl.Series([day.strftime(other) for day in days], dtype=pl.String), None, seen, order)
    assert seen.contrary == sum(day.day > 12 for day in days)
    assert any("which is it?" in note for note in seen.notes()) == (seen.contrary > 0)


@pytest.mark.parametrize("text", ["1.234,5", "12.345,67", "1,5", "-1.000,0"])
def test_a_decimal_comma_beside_marks_of_thousands_is_called_one(text: str) -> None:
    assert read_numbers(pl.Series([text]))[1].to_list() == [COMMA]


def hourly(folder: Path, times: list[float]) -> tuple[Cohort, IngestReport]:
    (folder / "stays.csv").write_text("stay,died\nA,0\nB,1\n")
    rows = [f"{stay},{time},HR,80" for stay in "AB" for time in times]
    (folder / "lab.csv").write_text("\n".join(["stay,time,code,value", *rows]))
    raw = {
        "variables": {"HR": {"unit": "/min", "plausible": [10, 300], "scale": [30, 180], "normal": 75}},
        "tasks": {"died": {"kind": "binary", "column": "died"}},
        "layout": {
            "stays": {"file": "stays", "stay": "stay"},
            "events": [
                {"file": "lab", "key": "stay", "time": "time", "time_unit": "hours", "code": "code", "value": "value"}
            ],
        },
    }
    mapping = parse_mapping(raw, "t", "t.toml", "0" * 64)
    tables = read_event_tables(folder=folder, mapping=mapping, until_hours=24.0)
    return build_cohort(tables, mapping, step_hours=1.0, n_steps=24, split=np.zeros(2, np.int8))


@pytest.mark.parametrize("every", [60, 900, 3600])
def test_minutes_or_seconds_that_are_said_to_be_hours_are_told(tmp_path: Path, every: int) -> None:
    _, report = hourly(tmp_path, [float(every * step) for step in range(24)])
    assert any("multiples of 60: are they minutes?" in note for note in report.notes)
    _, report = hourly(tmp_path, [step + 0.5 for step in range(24)])
    assert not any("multiples of 60" in note for note in report.notes)
