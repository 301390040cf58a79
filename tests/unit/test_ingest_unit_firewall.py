"""No value is used whose unit is not established: texts, concepts, what the mapping says, and any two known units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError, DataError
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.engine.coded import Coded
from pipeline.ingest.engine.event_tables import read_event_tables
from pipeline.ingest.engine.event_units import UNIT_REASONS, Conversions, in_units, shown, unit_uses
from pipeline.ingest.mapping.load import SourceMapping, load_mapping, parse_mapping
from pipeline.ingest.mapping.unit_text import meanings, plain
from pipeline.ingest.mapping.units import UNITS, conversion, read_unit
from pipeline.ingest.number_text import NO_VALUE
from pipeline.ingest.source_tables import SourceTables

BASE = {variable.name: variable.unit for variable in load_mapping("physionet2012").variables}


@pytest.mark.parametrize(
    ("texts", "unit"),
    [
        (("\u03bcmol/l", "\u00b5mol/L", "UMOL/L", "mcmol/L", "micromol/l", "\u00b5mol\u00b7L\u207b\u00b9"), "umol/L"),
        (("mmol/L.", "[mmol/L]", "(mmol/l)", " mmol / l ", "mmol.l-1", "mmol L-1", "mmol/l{total}"), "mmol/L"),
        (("mg%", "mg/100 ml", "MG/DL", "mg/deciliter"), "mg/dL"),
        (("mm Hg", "mm[Hg]", "mm(hg)", "Torr", "mm/Hg"), "mmHg"),
        (("U/l", "[IU]/L", "IE/l", "UI/L", "U.I./L", "E/L", "Units/L"), "IU/L"),
        (("Gpt/l", "/nl", "1/nl", "Tsd/ul", "Tsd./\u00b5l", "K/uL", "10*3/uL"), "10^9/L"),
        (("x10^9/L", "10E9/L", "10\u2079/L", "103/mm3"), "10^9/L"),
        (("T/l", "/pl", "Mio/\u00b5l", "M/uL", "10*12/L"), "10^12/L"),
        (("/mm3", "cells/uL", "/cumm", "10*6/L"), "/uL"),
        (("\u00b0C", "\u2103", "Grad C", "Cel", "deg C"), "degC"),
        (("[degF]", "\u00b0F", "deg. F"), "degF"),
        (("{beats}/min", "1/min", "min-1", "bpm", "Schl\u00e4ge/min"), "/min"),
        (("[lb_av]", "lbs", "8739"), "lb"),
        (("44777602", "kPa", "44777602.0"), "kPa"),
        (("ml/Std", "mL/hr"), "mL/h"),
        (("Vol%", "%", "8554"), "%"),
    ],
)  # fmt: skip
def test_spellings(texts: tuple[str, ...], unit: str) -> None:
    assert {text: meanings(text)[:1] for text in texts} == dict.fromkeys(texts, (unit,))


def test_every_unit_spells_itself_and_nothing_else_is_guessed() -> None:
    assert [unit for unit in UNITS if unit not in meanings(unit)] == []
    assert [text for text in ("umol/l (S)", "furlong", "?", "0", "mL/kg", "mg", "12", "mg/dL/h") if meanings(text)] == [
        "mg"
    ]


def test_case_that_is_lost_is_settled_by_the_variable() -> None:
    assert read_unit("WBC", "G/l", "10^9/L") == ("10^9/L", (1.0, 0.0))
    assert read_unit("Albumin", "G/l", "g/dL") == ("g/L", (0.1, 0.0))
    assert read_unit("FiO2", "1", "fraction") == ("fraction", (1.0, 0.0))
    assert read_unit("pH", "1", "pH") == ("pH", (1.0, 0.0))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(BASE)), st.sampled_from(UNITS), st.sampled_from(UNITS), st.floats(0.1, 500.0))
def test_any_two_units_give_the_same_value(variable: str, one: str, other: str, value: float) -> None:
    """A value scaled by the ratio of two units that the table knows is the same value in the variable's unit."""
    to_one, to_other = conversion(variable, BASE[variable], one), conversion(variable, BASE[variable], other)
    if to_one is None or to_other is None:
        return
    codes = parse_mapping(raw(variable), "test", "test.toml", "0" * 64).codes
    values = np.array([value * line[0] + line[1] for line in (to_one, to_other)])
    units = Coded(np.array([0, 1], np.int32), pl.Series([one, other], dtype=pl.String))
    found, why = in_units(values, np.zeros(2, np.int64), units, ("x",), codes, Conversions())
    assert not why.any()
    assert found == pytest.approx([value, value], rel=1e-9, abs=1e-9)


@example("0\x1f")  # a blank to one library and not to another
@given(st.text(max_size=12))
def test_no_text_is_an_error_and_only_known_texts_are_used(text: str) -> None:
    codes = parse_mapping(raw("Glucose"), "test", "test.toml", "0" * 64).codes
    units = Coded(np.zeros(1, np.int32), pl.Series([text], dtype=pl.String))
    _, why = in_units(np.array([5.0]), np.zeros(1, np.int64), units, ("x",), codes, Conversions())
    nothing = not plain(text) or text.strip() in ("0", *NO_VALUE)
    assert (UNIT_REASONS[why[0]] == "unknown unit") == (not nothing and not meanings(text))


def raw(variable: str, **layout: Any) -> dict[str, Any]:
    rows: dict[str, Any] = {
        variable: {"unit": BASE[variable], "plausible": [-1e9, 1e9], "scale": [0, 500], "normal": 1, "sources": ["x"]}
    }
    table = {"file": "lab", "key": "stay", "time": "hour", "time_unit": "hours", "code": "code", "value": "value"}
    return {
        "variables": rows,
        "tasks": {"d": {"kind": "binary", "column": "d"}},
        "layout": {"stays": {"file": "stays", "stay": "stay"}, "events": [{**table, "unit": "unit"}], **layout},
    }


def read(folder: Path, rows: list[tuple[str, str]], variable: str = "Glucose", **layout: Any) -> SourceTables:
    (folder / "stays.csv").write_text("stay,d\na,0\nb,1\n")
    lines = [f"a,{hour},x,{value},{unit}" for hour, (value, unit) in enumerate(rows)]
    (folder / "lab.csv").write_text("stay,hour,code,value,unit\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return read_event_tables(folder=folder, mapping=mapping(variable, **layout))


def mapping(variable: str, **layout: Any) -> SourceMapping:
    return parse_mapping(raw(variable, **layout), "test", "test.toml", "0" * 64)


def test_an_unknown_unit_stops_until_the_mapping_explains_or_drops_it(tmp_path: Path) -> None:
    rows = [("100", "mg/dL"), ("6.1", "mmol/l (S)"), ("99", "Meier 12345678"), ("5.5", "")]
    with pytest.raises(DataError, match=r"2 rows have an unknown unit .*'mmol/l \(S\)'.*'\(other text\)'"):
        read(tmp_path, rows)
    explained = {"mmol/l (S)": "mmol/L", "Meier 12345678": "drop"}
    tables = read(tmp_path, rows, units=explained)
    assert tables.events["value"].round(1).to_list() == [100.0, 109.9, 5.5]
    assert tables.rows_dropped == {"unit that the mapping drops": 1}
    dropped = read(tmp_path, rows, criticality={"unknown unit": "drop"})
    assert dropped.events["value"].to_list() == [100.0, 5.5]
    assert dropped.rows_dropped == {"unknown unit": 2}
    with pytest.raises(ConfigError, match=r"layout\.units: 'x' leads to no unit such as"):
        read(tmp_path, rows, units={"x": "furlong"})


def test_rows_without_a_unit_are_taken_as_the_variables_own_and_told(tmp_path: Path) -> None:
    tables = read(tmp_path, [("100", "0"), ("90", ""), ("90", "mg/dL")])
    assert tables.n_events == 3
    assert "2 rows of 2 codes carry no unit and were taken to be in the variable's own" in tables.notes


def test_the_report_has_a_row_for_every_code_and_text_with_a_median_of_ten_or_more(tmp_path: Path) -> None:
    rows = [(str(value), "mmol/L") for value in range(1, 12)] + [("90", "mg/dL")] * 3
    tables = read(tmp_path, rows)
    cohort, report = build_cohort(tables, mapping("Glucose"), step_hours=1.0, n_steps=20, split=np.zeros(2, np.int8))
    assert report.units == tables.units
    assert [(use.code, use.unit, use.rows, use.median, use.verdict) for use in report.units] == [
        ("x", "mg/dL", 3, None, "is mg/dL"),
        ("x", "mmol/L", 11, 6.0, "is mmol/L, converted to mg/dL"),
    ]
    assert cohort.values[0, 0, 0] == pytest.approx(18.0156)


def test_medians_of_several_files_weigh_rows() -> None:
    parts = []
    for rows, value in ((4000, 1.0), (40, 9.0)):
        done = Conversions()
        codes = mapping("Glucose").codes
        in_units(np.full(rows, value), np.zeros(rows, np.int64), None, ("x",), codes, done)
        parts.append(done)
    assert [(use.rows, use.median) for use in unit_uses(parts)] == [(4040, 1.0)]


def test_what_is_no_unit_is_not_shown() -> None:
    texts = ("mg/dL", "\u00b5mol/l (S)", "%", "0", "1950-03-01", "123456", "A long name of somebody and more")
    assert [shown(text) for text in texts] == [*texts[:4], *["(other text)"] * 3]
