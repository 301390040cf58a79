"""Units: conversions against figures worked out by hand, slips that a distribution gives away, times and zones."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.types import Variable
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.engine.coded import Coded
from pipeline.ingest.engine.event_units import UNIT_REASONS, Conversions, in_units, unit_uses
from pipeline.ingest.engine.event_values import mend
from pipeline.ingest.engine.instants import ClockKinds, instants
from pipeline.ingest.mapping.load import SourceMapping, load_mapping, parse_mapping
from pipeline.ingest.mapping.unit_text import spell
from pipeline.ingest.mapping.units import conversion
from pipeline.ingest.source_tables import EVENT_SCHEMA, SourceTables


@pytest.mark.parametrize(
    ("variable", "source", "target", "value", "expected"),
    [
        ("Temp", "degF", "degC", 98.6, 37.0),
        ("Temp", "degF", "degC", 32.0, 0.0),
        ("PaCO2", "kPa", "mmHg", 5.333, 40.0),
        ("Creatinine", "umol/L", "mg/dL", 88.4, 1.0),
        ("Glucose", "mmol/L", "mg/dL", 5.55, 100.0),
        ("BUN", "mmol/L", "mg/dL", 7.14, 20.0),
        ("Bilirubin", "umol/L", "mg/dL", 17.1, 1.0),
        ("Lactate", "mg/dL", "mmol/L", 9.01, 1.0),
        ("Cholesterol", "mmol/L", "mg/dL", 5.17, 200.0),
        ("Mg", "mmol/L", "mg/dL", 0.823, 2.0),
        ("Mg", "mEq/L", "mg/dL", 1.646, 2.0),
        ("Na", "mEq/L", "mmol/L", 140.0, 140.0),
        ("Albumin", "g/L", "g/dL", 40.0, 4.0),
        ("FiO2", "%", "fraction", 40.0, 0.4),
        ("TroponinT", "ng/mL", "ug/L", 0.3, 0.3),
        ("TroponinT", "ng/L", "ug/L", 300.0, 0.3),
        ("Weight", "lb", "kg", 176.37, 80.0),
        ("height", "in", "cm", 70.0, 177.8),
        ("Platelets", "/uL", "10^9/L", 250000.0, 250.0),
    ],
)
def test_conversions_by_hand(variable: str, source: str, target: str, value: float, expected: float) -> None:
    line = conversion(variable, source, target)
    assert line is not None
    assert value * line[0] + line[1] == pytest.approx(expected, rel=2e-3, abs=1e-9)
    back = conversion(variable, target, source)
    assert back is not None
    assert (value * line[0] + line[1]) * back[0] + back[1] == pytest.approx(value, rel=1e-9)


def test_what_has_no_way_has_none() -> None:
    assert conversion("HR", "mmol/L", "mg/dL") is None  # no analyte
    assert conversion("Creatinine", "kPa", "mg/dL") is None
    assert conversion("Creatinine", "furlong", "mg/dL") is None
    assert [spell(text) for text in (" mmHg ", "MG/DL", "K/uL", "8840", "°F", "?")] == [
        "mmHg", "mg/dL", "10^9/L", "mg/dL", "degF", None
    ]  # fmt: skip


def codes_mapping(**changes: Any) -> SourceMapping:
    raw = {
        "variables": {
            "Temp": {"unit": "degC", "plausible": [20, 45], "scale": [32, 42], "normal": 37},
            "Glucose": {"unit": "mg/dL", "plausible": [1, 2000], "scale": [40, 400], "normal": 110, "optional": True},
        },
        "codes": {"Temp": ["t", {"code": "tf", "unit": "degF"}], "Glucose": ["g"]},
        "tasks": {"d": {"kind": "binary", "column": "d"}},
        **changes,
    }
    return parse_mapping(raw, "test", "test.toml", "0" * 64)


Rows = list[tuple[str, float, str | None]]
NAMES = ("t", "tf", "g")


def arrays(rows: Rows) -> tuple[np.ndarray, np.ndarray, Coded]:
    """Values, names and units as `in_units` takes them."""
    texts = sorted({unit for _, _, unit in rows if unit is not None})
    units = np.array([-1 if unit is None else texts.index(unit) for _, _, unit in rows], dtype=np.int32)
    names = np.array([NAMES.index(name) for name, _, _ in rows], dtype=np.int32)
    return np.array([value for _, value, _ in rows]), names, Coded(units, pl.Series(texts, dtype=pl.String))


def test_a_rows_own_unit_goes_before_the_declared_one() -> None:
    done = Conversions()
    rows: Rows = [
        ("t", 98.6, "°F"),
        ("t", 37.0, "C"),
        ("t", 37.0, None),
        ("tf", 37.0, "C"),
        ("tf", 98.6, None),
        ("tf", 98.6, " "),
        ("g", 5.0, "mmol/L"),
        ("t", 37.0, "odd"),
        ("g", 5.0, "kPa"),
        ("g", 5.0, "0"),
    ]
    value, why = in_units(*arrays(rows), NAMES, codes_mapping().codes, done)
    assert value.round(2).tolist()[:7] == [37.0, 37.0, 37.0, 37.0, 37.0, 37.0, 90.08]
    assert [UNIT_REASONS[code] for code in why] == [
        *[""] * 7,
        "unknown unit",
        "unit without a conversion",
        "",
    ]
    assert dict(done.converted) == {("Temp", "degF"): 1, ("Temp", "the declared unit"): 2, ("Glucose", "mmol/L"): 1}
    assert [(use.code, use.unit, use.rows, use.verdict) for use in unit_uses([done])] == [
        ("g", "0", 1, "no unit: taken as mg/dL"),
        ("g", "kPa", 1, "dropped: kPa does not convert to mg/dL"),
        ("g", "mmol/L", 1, "is mmol/L, converted to mg/dL"),
        ("t", "(none)", 1, "no unit: taken as degC"),
        ("t", "C", 1, "is degC"),
        ("t", "odd", 1, "unknown"),
        ("t", "°F", 1, "is degF, converted to degC"),
        ("tf", "(none)", 2, "no unit: degF, as declared, converted to degC"),
        ("tf", "C", 1, "is degC"),
    ]


def test_mending_needs_the_mapping_and_an_implausible_value() -> None:
    ranges = {"t": (20.0, 45.0)}
    value, name, _ = arrays([("t", 98.6, None), ("t", 36.0, None), ("t", 500.0, None)])
    done = Conversions()
    assert mend(value, name, NAMES, codes_mapping().codes, ranges, done).tolist() == [98.6, 36.0, 500.0]
    mended = mend(value, name, NAMES, codes_mapping(mend={"Temp": ["degF"]}).codes, ranges, done)
    assert mended.round(6).tolist() == [37.0, 36.0, 500.0]
    assert value.tolist() == [98.6, 36.0, 500.0]
    assert dict(done.mended) == {"Temp": 1}


def test_faulty_codes_are_named() -> None:
    with pytest.raises(ConfigError, match=r"codes\.Pulse is no variable"):
        codes_mapping(codes={"Pulse": ["p"]})
    with pytest.raises(ConfigError, match="no public conversion from furlong to degC"):
        codes_mapping(codes={"Temp": [{"code": "t", "unit": "furlong"}]})
    with pytest.raises(ConfigError, match=r"mend\.Pulse is no variable"):
        codes_mapping(mend={"Pulse": ["degF"]})


def report_notes(name: str, values: np.ndarray) -> list[str]:
    mapping = load_mapping("physionet2012")
    mapping = SourceMapping(
        **{
            **vars(mapping),
            "optional": frozenset(v.name for part in (mapping.variables, mapping.static_variables) for v in part),
        }
    )
    rows = [(str(i % 20), 0.5 + i // 20, name, float(value)) for i, value in enumerate(values)]
    stays = pl.DataFrame({"stay_id": [str(i) for i in range(20)]}).with_columns(
        pl.col("stay_id").alias("subject_id"), (pl.int_range(20) % 2).alias("In-hospital_death")
    )
    events = pl.DataFrame(rows, schema=EVENT_SCHEMA, orient="row")
    tables = SourceTables(
        events=events, stays=stays, rows_read=len(rows), rows_dropped={}, dropped_by_variable={}, subjects_known=True,
        source="test",
    )  # fmt: skip
    split = np.zeros(20, dtype=np.int8)
    tasks = ("in_hospital_death",)
    return list(build_cohort(tables, mapping, step_hours=1.0, n_steps=48, tasks=tasks, split=split)[1].notes)


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("Temp", np.r_[np.full(60, 37.0), np.linspace(97, 101, 30)], "30 of 30 implausible values of Temp"),
        ("FiO2", np.r_[np.full(60, 0.4), np.linspace(30, 60, 30)], "in %: declare"),
        ("Creatinine", np.r_[np.full(60, 1.0), np.linspace(60, 120, 30)], "in umol/L: declare"),
        ("Glucose", np.linspace(5, 12, 90), "Glucose lies outside its clinical range in mg/dL"),
        ("PaCO2", np.linspace(5.1, 7, 90), "PaCO2 lies outside its clinical range in mmHg"),
    ],
)
def test_slips_are_told(name: str, values: np.ndarray, told: str) -> None:
    assert any(told in note for note in report_notes(name, values)), told


def test_ordinary_and_merely_wrong_values_are_no_slip() -> None:
    for name, values in (
        ("Temp", np.linspace(35, 40, 90)),
        ("Temp", np.r_[np.full(80, 37.0), np.full(9, 98.6)]),  # too few to tell
        ("Temp", np.r_[np.full(60, 37.0), np.zeros(30)]),
        ("HR", np.linspace(0, 9, 90)[10:] + 400),
    ):
        notes = report_notes(name, values) if name != "HR" else report_notes(name, np.r_[values, np.full(20, 80.0)])
        assert not any("ordinary in" in note or "lies outside" in note for note in notes), (name, notes)


HOUR = 3_600_000_000


def at(texts: list[str | None], zone: str | None = None) -> list[int | None]:
    return instants(pl.Series("t", texts, dtype=pl.String), zone, ClockKinds()).to_list()


def test_times_in_their_forms() -> None:
    day = at(["2020-01-01 10:00:00"])[0]
    assert day is not None
    same = ["2020-01-01T10:00:00", "2020-01-01 10:00", " 2020-01-01 10:00:00.000 "]
    assert at(list(same)) == [day] * 3
    assert at(["2020-01-01"]) == [day - 10 * HOUR]
    offsets: list[str | None] = ["2020-01-01 10:00:00Z", "2020-01-01T12:00:00+02:00", "2020-01-01 05:30:00-0430"]
    assert at(offsets) == [day] * 3
    assert at(["01/02/2020 10:00", "2020-02-30", "soon", None]) == [None] * 4


def test_a_clock_change_neither_adds_nor_loses_an_hour() -> None:
    night: list[str | None] = ["2020-03-29 01:30:00", "2020-03-29 03:30:00", "2020-03-29 02:30:00"]
    before, after, never = at(night, "Europe/Berlin")
    assert before is not None
    assert after == before + HOUR  # one hour passed, though the clock says two
    assert never is None
    autumn: list[str | None] = ["2020-10-25 01:30:00", "2020-10-25 03:30:00"]
    first, last = at(autumn, "Europe/Berlin")
    assert first is not None
    assert last == first + 3 * HOUR


def test_offsets_and_local_times_are_not_mixed_by_guess() -> None:
    mixed: list[str | None] = ["2020-01-01 10:00:00", "2020-01-01 10:00:00+01:00"]
    with pytest.raises(DataError, match=r"layout\.timezone"):
        at(mixed)
    first, second = at(mixed, "Europe/Berlin")
    assert first == second


def test_units_of_the_shipped_mapping_are_known() -> None:
    lacking = [v.name for v in load_mapping("physionet2012").variables if not _known(v)]
    assert lacking == ["MechVent"]


def _known(variable: Variable) -> bool:
    unit = variable.unit
    return spell(unit) is not None or conversion(variable.name, unit, "mg/dL") is not None
