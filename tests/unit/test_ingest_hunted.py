"""Small sources as hospitals spoil them: each gives the cells that a careful person would read, an error, or a word.

A case is the row of one glucose (or another value) among rows of heart rates, or the tables around it. What is told may
be a count of dropped rows, a note, or a label that is missing; nothing may be lost or changed without any of them.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pytest

from pipeline.core.errors import DataError
from pipeline.core.types import Cohort, IngestReport
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.engine.event_tables import read_event_tables
from pipeline.ingest.mapping.load import parse_mapping
from pipeline.ingest.mapping.named_units import named_unit, without_units

Raw = dict[str, Any]
IDS: Final = ("S1", "S2", "S3", "S4")
HEAD: Final = "stay,time,code,value,unit\n"
RATES: Final = "".join(f"{stay},2024-03-01 08:15,HR,80,/min\n" for stay in IDS)
AT: Final = "2024-03-01 09:15"
STAYS: Final = "stay,person,start,end,died,age\n" + "".join(
    f"{stay},P{i},2024-03-01 08:00,2024-03-02 08:00,{i % 2},{40 + 10 * i}\n" for i, stay in enumerate(IDS, start=1)
)
LAB: Final = HEAD + RATES + f"S1,{AT},Glucose,99,mg/dL\n"
UNITS: Final = {
    "HR": "/min", "Glucose": "mg/dL", "Creatinine": "mg/dL", "Temp": "degC", "WBC": "10^9/L", "FiO2": "fraction",
    "HCT": "%", "PaO2": "mmHg", "TroponinT": "ug/L", "Weight": "kg", "Urine": "mL/h",
}  # fmt: skip


def raw() -> Raw:
    wide = {"plausible": [0.001, 5000], "scale": [0, 400], "normal": 50, "optional": True}
    age = {"unit": "years", "plausible": [10, 120], "scale": [15, 95], "normal": 65, "optional": True}
    events = {"file": "lab", "key": "stay", "time": "time", "code": "code", "value": "value", "unit": "unit"}
    stays = {"file": "stays", "stay": "stay", "subject": "person", "start": "start", "end": "end"}
    return {
        "variables": {name: {"unit": unit, **wide} for name, unit in UNITS.items()},
        "unknown_variables": "drop",
        "statics": {"age": age},
        "tasks": {"died": {"kind": "binary", "column": "died"}},
        "layout": {"timezone": "UTC", "stays": stays, "events": [events]},
    }


def ingest(folder: Path, edit: Callable[[Raw], object] | None = None, **files: Any) -> tuple[Cohort, IngestReport]:
    """`files`: name with `__` for the point and `_in_` for the folder -> text, bytes or a frame (parquet)."""
    for name, content in {"stays__csv": STAYS, "lab__csv": LAB, **files}.items():
        path = folder / name.replace("_in_", "/").replace("__", ".")
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, pl.DataFrame):
            content.write_parquet(path)
        elif content is not None:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    said = raw()
    if edit is not None:
        edit(said)
    mapping = parse_mapping(said, "t", "t.toml", "0" * 64)
    tables = read_event_tables(folder=folder, mapping=mapping, until_hours=12.0)
    split = np.zeros(tables.stays.height, np.int8)
    return build_cohort(tables, mapping, step_hours=1.0, n_steps=12, split=split)


def cells(cohort: Cohort, name: str) -> dict[tuple[str, int], float]:
    """Stay and step of a variable's observed cells, with their values."""
    index = [variable.name for variable in cohort.variables].index(name)
    found = np.argwhere(cohort.observed[:, :, index])
    return {(str(cohort.stay_ids[i]), int(k)): round(float(cohort.values[i, k, index]), 3) for i, k in found}


def events(said: Raw) -> Raw:
    table: Raw = said["layout"]["events"][0]
    return table


def layout(**keys: Any) -> Callable[[Raw], object]:
    return lambda said: said["layout"].update(keys)


def told(report: IngestReport, words: str) -> bool:
    return any(words in note for note in report.notes)


@pytest.mark.parametrize(
    ("name", "code", "value", "expected"),
    [
        ("Glucose", "GLU (mmol/L)", 5.5, 99.086),
        ("Glucose", "glucose_mmol", 5.5, 99.086),
        ("Creatinine", "creatinine_umol_l", 88.4, 1.0),
        ("Creatinine", "LAB//5//umol/L", 88.4, 1.0),
        ("Temp", "temp_f", 98.6, 37.0),
        ("Temp", "Temperature °F", 98.6, 37.0),
        ("TroponinT", "TropT [ng/L]", 14, 0.014),
        ("Weight", "weight_lb", 180, 81.647),
        ("FiO2", "FiO2 %", 40, 0.4),
        ("PaO2", "pO2(kPa)", 12, 90.007),
        ("PaO2", "PaO2_PA", 90, 90.0),
        ("HCT", "HCT 1", 42, 42.0),
        ("Urine", "urine_L", 40, 40.0),
        ("WBC", "WBC x10^9/L", 8.2, 8.2),
    ],
)
def test_a_unit_that_a_name_says_serves_values_without_one(
    tmp_path: Path, name: str, code: str, value: float, expected: float
) -> None:
    def edit(said: Raw) -> None:
        said["codes"] = {"HR": ["HR"], name: [code]}

    cohort, report = ingest(tmp_path, edit, lab__csv=f"{HEAD}{RATES}S1,{AT},{code},{value},\n")
    assert cells(cohort, name) == {("S1", 1): pytest.approx(expected, rel=1e-3)}
    assert told(report, "its name says") == (expected != value)
    row, _ = ingest(tmp_path, edit, lab__csv=f"{HEAD}{RATES}S1,{AT},{code},{value},{UNITS[name]}\n")
    assert cells(row, name) == {("S1", 1): pytest.approx(value)}  # the row's own goes first

    def wide(said: Raw) -> None:
        edit(said)
        said["layout"]["events"] = [{"file": "lab", "key": "stay", "time": "time"}]

    lines = "".join(f"{stay},{AT},80,\n" for stay in IDS[1:])
    column, _ = ingest(tmp_path, wide, lab__csv=f"stay,time,HR,{code}\n{lines}S1,{AT},80,{value}\n")
    assert cells(column, name) == {("S1", 1): pytest.approx(expected, rel=1e-3)}


def test_a_declared_unit_that_the_name_contradicts_is_told(tmp_path: Path) -> None:
    def edit(said: Raw) -> None:
        said["codes"] = {"HR": ["HR"], "Temp": [{"code": "temp_f", "unit": "degC"}, {"code": "t_f", "unit": "degF"}]}

    _, report = ingest(tmp_path, edit, lab__csv=f"{HEAD}{RATES}S1,{AT},temp_f,98.6,\nS1,{AT},t_f,98.6,\n")
    assert [note for note in report.notes if "its name says" in note and "declared" in note] == [
        "temp_f is declared to be in degC, and its name says degF"
    ]


def test_names_and_what_is_left_without_their_units() -> None:
    assert named_unit("age", "age_months", "years") == "months"
    assert named_unit("Mg", "mg", "mg/dL") is None
    assert without_units("Creatinine [umol/L]")[1] == "Creatinine "
    assert without_units("crea_umol_l") == ("crea_umol_l", "crea_umol", "crea")


def test_a_static_whose_column_says_months(tmp_path: Path) -> None:
    stays = STAYS.replace(",age", ",age_months").replace(",50\n", ",600\n").replace(",60\n", ",720\n")
    cohort, report = ingest(tmp_path, lambda said: said["statics"]["age"].update(source="age_months"), stays__csv=stays)
    assert cohort.static[:2, 0].tolist() == [50.0, 60.0]
    assert told(report, "converted from months")


GLUCOSE: Final = {("S1", 1): 99.0}


@pytest.mark.parametrize(
    ("time", "keys", "step"),
    [
        ("2024-03-01 09:15 AM", {}, 1),
        ("2024-03-01 01:15 p.m.", {}, 5),
        ("2024-03-01 12:15 PM", {}, 4),
        ("03/01/2024 9:15:00 AM", {"dates": "month_first"}, 1),
        ("24-03-01 09:15", {}, None),
        ("24-03-01 09:15:00", {}, None),
        ("01.03.24 09:15", {"dates": "day_first"}, None),
        ("1709284500", {}, None),
        ("1709284500000", {}, None),
        ("45352.385416667", {}, None),
        ("2024-03-01 13:15 AM", {}, None),
        ("2024-03-01 09:15 EST", {}, None),
        ("01-Mar-2024 09:15", {}, None),
    ],
)
def test_times_are_read_or_counted(tmp_path: Path, time: str, keys: Raw, step: int | None) -> None:
    cohort, report = ingest(tmp_path, layout(**keys), lab__csv=LAB.replace(AT, time))
    assert cells(cohort, "Glucose") == ({} if step is None else {("S1", step): 99.0})
    assert report.rows_dropped == ({"unreadable time": 1} if step is None else {})


@pytest.mark.parametrize("clock", ["09:15", "9:15", "0915", "915", "091500", "9:15 AM"])
def test_times_of_day_in_a_column_of_their_own(tmp_path: Path, clock: str) -> None:
    rates = RATES.replace("2024-03-01 08:15", "2024-03-01,08:15")
    lab = f"stay,day,at,code,value,unit\n{rates}S1,20240301,{clock},Glucose,99,mg/dL\n"
    cohort, _ = ingest(tmp_path, lambda said: events(said).update(time="day", clock="at"), lab__csv=lab)
    assert cells(cohort, "Glucose") == GLUCOSE


def test_dates_alone_are_told(tmp_path: Path) -> None:
    _, report = ingest(tmp_path, stays__csv=STAYS.replace("S1,P1,2024-03-01 08:00", "S1,P1,2024-03-01"))
    assert told(report, "1 times are a date without a time of day")
    (tmp_path / "lab.csv").unlink()
    frame = pl.read_csv(LAB.encode(), infer_schema=False)
    days = frame.with_columns(time=pl.Series([date(2024, 3, 2)] * 5))
    stays = STAYS.replace("2024-03-01 08:00", "2024-03-01 20:00")
    _, report = ingest(tmp_path, lab__csv=None, lab__parquet=days, stays__csv=stays)
    assert told(report, "5 times are a date without a time of day")


def test_an_hour_that_comes_twice_is_told(tmp_path: Path) -> None:
    stays = STAYS.replace("2024-03-01 08:00", "2024-10-27 00:00").replace("2024-03-02 08:00", "2024-10-28 00:00")
    lab = LAB.replace("2024-03-01 08:15", "2024-10-27 01:15").replace(AT, "2024-10-27 02:15")
    cohort, report = ingest(tmp_path, layout(timezone="Europe/Berlin"), stays__csv=stays, lab__csv=lab)
    assert cells(cohort, "Glucose") == {("S1", 2): 99.0}
    assert told(report, "1 times lie in an hour that a clock change repeats")


def test_a_stay_whose_end_cannot_be_read_is_excluded(tmp_path: Path) -> None:
    spoilt = STAYS.replace("S3,P3,2024-03-01 08:00,2024-03-02 08:00", "S3,P3,2024-03-01 08:00,01.03.2024 10:00")
    cohort, report = ingest(tmp_path, stays__csv=spoilt)
    assert cohort.stay_ids.tolist() == ["S1", "S2", "S4"]
    assert told(report, "1 stays excluded: no readable end")
    open_end = STAYS.replace("S3,P3,2024-03-01 08:00,2024-03-02 08:00", "S3,P3,2024-03-01 08:00,")
    assert len(ingest(tmp_path, stays__csv=open_end)[0].stay_ids) == 4


def test_hours_with_a_decimal_comma_and_hours_that_are_days(tmp_path: Path) -> None:
    rates = "".join(f'{stay},"0,5",HR,80,/min\n' for stay in IDS)

    def hours(said: Raw) -> None:
        events(said).update(time_unit="hours")
        said["layout"].update(decimal_comma=True)

    cohort, report = ingest(tmp_path, hours, lab__csv=f'{HEAD}{rates}S1,"1,25",Glucose,99,mg/dL\n')
    assert cells(cohort, "Glucose") == GLUCOSE
    assert not told(report, "is it hours?")
    _, report = ingest(tmp_path, hours, lab__csv=f'{HEAD}{rates}S1,"0,05",Glucose,99,mg/dL\n')
    assert told(report, "table lab: no row lies after hour 0.5 of 12; is it hours?")


@pytest.mark.parametrize("other", ["p1", "01", "1.0", " 1"])
def test_people_who_may_be_one_are_told(tmp_path: Path, other: str) -> None:
    first = "P1" if other == "p1" else "1"
    stays = STAYS.replace("P1", first).replace("P2", other)
    try:
        cohort, report = ingest(tmp_path, stays__csv=stays)
    except DataError:
        return
    assert told(report, "1 subjects have an id that differs") or len(np.unique(cohort.subject_ids)) == 3


def test_a_row_of_another_subject_than_its_stays_is_dropped(tmp_path: Path) -> None:
    rows = [f"{stay},P{i},2024-03-01 08:15,HR,80,/min" for i, stay in enumerate(IDS, start=1)]
    rows += [f"S1,p01,{AT},Glucose,99,mg/dL", f"S1,P2,{AT},Glucose,50,mg/dL", f"S2,,{AT},Glucose,70,mg/dL"]
    stays = STAYS.replace("P1", "p1")
    lab = "stay,Person,time,code,value,unit\n" + "\n".join(rows).replace("p01", "P1").replace("S1,P1,2", "S1,p1,2")
    cohort, report = ingest(tmp_path, stays__csv=stays, lab__csv=lab + "\n")
    assert cells(cohort, "Glucose") == {("S1", 1): 99.0, ("S2", 1): 70.0}
    assert report.rows_dropped == {"another subject than the stay's": 1}
    assert not told(report, "whom no stay has")
    _, report = ingest(tmp_path, stays__csv=stays, lab__csv=lab.replace("P3", "Q9") + "\n")
    assert told(report, "1 rows that were read by their stay name a subject whom no stay has")


def test_codes_and_texts_in_another_form_are_told(tmp_path: Path) -> None:
    _, report = ingest(tmp_path, lab__csv=LAB.replace("Glucose", "GLUCOSE"))
    assert told(report, "1 rows with unknown variable have a code that is a known one but for zeros in front")
    assert told(report, "no table has a code of Glucose, ")
    stays = (
        STAYS.replace("age", "ward").replace(",50\n", ",icu\n").replace(",60\n", ",ICU\n").replace(",70\n", ",ICU\n")
    )
    _, report = ingest(tmp_path, lambda said: said["layout"]["stays"].update(where={"ward": ["ICU"]}), stays__csv=stays)
    assert told(report, "1 rows of stays hold a text of `where` but for its case")


@pytest.mark.parametrize("lead", ["sep=;\n", '"sep=;"\r\n', "\n", "  \n\r\n", "SEP=;\n\n"])
def test_lines_before_the_header_that_say_nothing_or_the_delimiter(tmp_path: Path, lead: str) -> None:
    cohort, report = ingest(tmp_path, lab__csv=lead + LAB.replace(",", ";"))
    assert cells(cohort, "Glucose") == GLUCOSE
    assert not told(report, "within quotes")


def test_each_table_may_have_an_encoding(tmp_path: Path) -> None:
    def edit(said: Raw) -> None:
        joined(said)
        said["layout"]["stays"]["join"][0]["encoding"] = "utf-16-le"
        events(said)["encoding"] = "cp1252"
        said["codes"] = {"HR": ["HR"], "Creatinine": ["Kreatinin \u00e4"]}

    stays = "\n".join(line.rsplit(",", 1)[0] for line in STAYS.replace("S4", "\u00dc4").splitlines()) + "\n"
    lab = f"{HEAD}{RATES}S1,{AT},Kreatinin \u00e4,88.4,\u00b5mol/l\n\u00dc4,{AT},HR,90,\n".encode("cp1252")
    people = "person,years\n" + "".join(f"P{i},{40 + i}\n" for i in range(1, 5))
    cohort, report = ingest(tmp_path, edit, stays__csv=stays, lab__csv=lab, people__csv=people.encode("utf-16-le"))
    assert cells(cohort, "Creatinine") == {("S1", 1): pytest.approx(1.0, rel=1e-3)}
    assert cells(cohort, "HR")["\u00dc4", 1] == 90
    assert cohort.static[:, 0].tolist() == [41, 42, 43, 44]
    assert report.rows_dropped == {"no such stay or subject": 1}


def test_utf_16_without_a_mark_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="null bytes in its header; if it is UTF-16"):
        ingest(tmp_path, lab__csv=LAB.encode("utf-16-le"))


def test_lines_that_quotes_swallow_are_told(tmp_path: Path) -> None:
    rates = RATES.replace("/min\n", "/min,\n")
    for notes, words in (
        (['"5 cm', "ok", '"see"', ""], "a quote is not closed, and 2 of 9 lines lie within quotes"),
        (['"5 cm', "ok", 'see"', ""], "2 of 9 lines lie within quotes, and most of them are rows by their fields"),
    ):
        rows = "".join(f"{stay},{AT},Glucose,9{i},mg/dL,{notes[i]}\n" for i, stay in enumerate(IDS))
        with pytest.raises(DataError, match=words):
            ingest(tmp_path, lab__csv=HEAD.replace("\n", ",note\n") + rates + rows)
    texts = "".join(f'{stay},{AT},Glucose,9{i},mg/dL,"pale, cold\nat ease, no pain\n"\n' for i, stay in enumerate(IDS))
    _, report = ingest(tmp_path, lab__csv=HEAD.replace("\n", ",note\n") + rates + texts)
    assert told(report, "8 lines lie within quotes")  # texts of several lines are no rows
    assert report.rows_used == 8
    once = LAB.replace("Glucose", 'Glucose 5" tube', 1)  # within a text no quote opens one
    assert not told(ingest(tmp_path, lab__csv=once)[1], "within quotes")
    for text in (LAB, LAB + "\n\n\n", LAB.replace("\n", "\r\n\r\n"), LAB.replace("Glucose", '"Glucose"')):
        assert not told(ingest(tmp_path, lab__csv=text)[1], "within quotes")


@pytest.mark.parametrize("seed", range(8))
def test_two_open_quotes_never_take_rows_in_silence(tmp_path: Path, seed: int) -> None:
    """A quote before one remark and one behind a later one, wherever they are: an error, or a word."""
    rng = random.Random(seed)
    first, last = sorted(rng.sample(range(200), 2))
    remarks = [f'"{i} cm' if i == first else f'{i} cm"' if i == last else "ok" for i in range(200)]
    cells = [f"{IDS[i % 4]},2024-03-01 09:{i % 60:02d},Glucose,9{i % 10},mg/dL" for i in range(200)]
    rows = "".join(f"{cell},{remark}\n" for cell, remark in zip(cells, remarks, strict=True))
    text = HEAD.replace("\n", ",note\n") + RATES.replace("/min\n", "/min,\n") + rows
    if last - first > 2:
        with pytest.raises(DataError, match="lie within quotes, and most of them are rows"):
            ingest(tmp_path, lab__csv=text)
    else:
        assert told(ingest(tmp_path, lab__csv=text)[1], f"{last - first} lines lie within quotes")


def two_tables(said: Raw) -> None:
    said["layout"]["events"].append({**events(said), "file": "vit"})


def test_tables_and_columns_that_hold_nothing_are_told(tmp_path: Path) -> None:
    assert told(ingest(tmp_path, two_tables, vit__csv=HEAD)[1], "table vit holds no row")
    (tmp_path / "lab.csv").unlink()

    def wide(said: Raw) -> None:
        said["layout"]["events"] = [{"file": "lab", "key": "stay", "time": "time"}]

    one, other = (f"stay,time,HR,{name}\n{stay},{AT},80,99\n" for name, stay in (("Glucose", "S1"), ("gluc", "S2")))
    _, report = ingest(tmp_path, wide, lab__csv=None, lab_in_a__csv=one, lab_in_b__csv=other)
    assert told(report, "table lab: not all of its 2 files have the columns Glucose")


@pytest.mark.parametrize(
    ("name", "content"), [("lab_in_a__csv__gz", gzip.compress(LAB.encode())), ("lab_in_A__psv", LAB)]
)
def test_one_shard_in_two_formats_is_refused(tmp_path: Path, name: str, content: Any) -> None:
    with pytest.raises(DataError, match="lie in one folder under one name; leave one"):
        ingest(tmp_path, lab__csv=None, lab_in_a__csv=LAB, **{name: content})


def joined(said: Raw) -> None:
    said["layout"]["stays"]["join"] = [{"file": "people", "on": ["person"], "columns": {"age": "years"}}]


@pytest.mark.parametrize(
    ("people", "words"),
    [
        ("P1,50\np2,60\nP3,70\nP4,80\n", "1 of 4 stays have no row of people by person"),
        ("P1,50\np2,60\nP3,70\nP4,80\n", "1 rows of people name no stay, but one whose key differs only by"),
        ("P1,50\nP3,70\nP4,80\n", "1 of 4 stays have no row of people by person"),
        ("P1,50\nP2,60,1\nP3,70\nP4,80\n", "1 lines of people do not have the header's number of fields"),
        ("", "people holds no row: no stay has age"),
        ("Q1,50\n", "none of 1 rows of people belongs to a stay by person"),
    ],
)
def test_what_a_join_does_not_bring_is_told(tmp_path: Path, people: str, words: str) -> None:
    stays = "\n".join(line.rsplit(",", 1)[0] for line in STAYS.splitlines()) + "\n"
    assert told(ingest(tmp_path, joined, stays__csv=stays, people__csv=f"person,years\n{people}")[1], words)


@pytest.mark.parametrize(
    ("rule", "entry", "age"),
    [
        ({"kind": "age", "born": "x"}, "1974", 50),
        ({"kind": "age", "born": "x"}, "01.03.1974", 50),
        ({"kind": "age", "born": "x"}, "19740301", 50),
        ({"kind": "age", "born": "x"}, "74", None),
        ({"kind": "codes", "column": "x", "codes": {"F": 20}}, "F ", 20),
        ({"kind": "codes", "column": "x", "codes": {"F": 20}}, "female", None),
        ({"kind": "number", "column": "x"}, "fifty", None),
        ({"kind": "number", "column": "x"}, "> 89", 89),
    ],
)
def test_entries_that_a_derived_column_makes_nothing_of_are_told(
    tmp_path: Path, rule: Raw, entry: str, age: float | None
) -> None:
    stays = STAYS.replace(",age", ",x").replace(",50\n", f",{entry}\n").replace(",60\n", ",\n")
    stays = stays.replace(",70\n", ",\n").replace(",80\n", ",\n")

    def edit(said: Raw) -> None:
        said["layout"]["stays"]["derived"] = {"age": rule}

    cohort, report = ingest(tmp_path, edit, stays__csv=stays)
    assert (None if np.isnan(cohort.static[0, 0]) else cohort.static[0, 0]) == age
    assert told(report, "1 stays have an entry of x that gives no age") == (age is None)


def test_malformed_lines_of_the_stays_are_told(tmp_path: Path) -> None:
    _, report = ingest(tmp_path, stays__csv=STAYS.replace("S4,P4", "S4,P4,x"))
    assert told(report, "1 lines of stays do not have the header's number of fields")


def test_a_blank_is_no_entry(tmp_path: Path) -> None:
    stays = STAYS.replace(",50\n", ", \n")

    def edit(said: Raw) -> None:
        said["layout"]["stays"]["derived"] = {"there": {"kind": "present", "column": "age"}}
        said["statics"] = {"there": {"unit": "0 or 1", "plausible": [0, 1], "scale": [0, 1], "normal": 0}}

    assert ingest(tmp_path, edit, stays__csv=stays)[0].static[:, 0].tolist() == [0, 1, 1, 1]
