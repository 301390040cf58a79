"""A draft of a mapping reads the tables that it was made of, without an edit, to the cells that a person would read."""

from __future__ import annotations

import tomllib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.core.types import Cohort, IngestReport
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.task_labels import latest_hour
from pipeline.ingest.drafting.meds import Draft
from pipeline.ingest.drafting.suggest import suggest
from pipeline.ingest.drafting.toml_text import toml_text
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.sources.readers import read_source

START = datetime(2024, 3, 1, 8)


def runs(folder: Path, scratch: Path, n_steps: int = 48) -> tuple[Draft, Cohort, IngestReport]:
    """The draft, written to a file as it is, and the cohort that the file reads."""
    draft = suggest(folder)
    (scratch / "draft.toml").write_text(draft.toml, encoding="utf-8")
    mapping = load_mapping(str(scratch / "draft.toml"))
    tables = read_source("tables", folder=folder, mapping=mapping, until_hours=latest_hour(mapping, float(n_steps)))
    split = np.zeros(tables.stays.height, np.int8)
    cohort, report = build_cohort(tables, mapping, step_hours=1.0, n_steps=n_steps, split=split)
    return draft, cohort, report


def cell(cohort: Cohort, stay: int, step: int, name: str) -> float:
    return float(cohort.values[stay, step, [variable.name for variable in cohort.variables].index(name)])


def static(cohort: Cohort, stay: int, name: str) -> float:
    return float(cohort.static[stay, [item.name for item in cohort.static_variables].index(name)])


def tasks(cohort: Cohort) -> list[str]:
    return [task.name for task in cohort.tasks]


def clock(hours: float, stay: int = 0) -> str:
    return f"{START + timedelta(days=stay, hours=hours):%Y-%m-%d %H:%M:%S}"


@pytest.fixture
def src(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    return tmp_path / "src"


def write(folder: Path, name: str, header: str, rows: list[str], encoding: str = "utf-8") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\n".join([header, *rows]) + "\n").encode(encoding))


def test_meds_with_births_sexes_and_deaths(src: Path, tmp_path: Path) -> None:
    rows: list[Any] = []
    for number in range(12):
        person, start = 100 + number, START + timedelta(days=number)
        rows += [(person, datetime(1950 + number, 1, 1), "MEDS_BIRTH", None)]
        rows += [(person, None, f"GENDER//{'FM'[number % 2]}", None), (person, start, "ICU_ADMISSION//MICU", None)]
        rows += [(person, start + timedelta(hours=2), "LAB//Creatinine//umol/L", 88.4)]
        rows += [(person, start + timedelta(hours=1), "HR", 80.0), (person, start, "Mystery", 1.0)]
        rows += [(person, start + timedelta(days=5), "MEDS_DEATH", None)] if number % 3 == 0 else []
    schema = {"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float64}
    (src / "data" / "train").mkdir(parents=True)
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(src / "data" / "train" / "0.parquet")
    draft, cohort, _ = runs(src, tmp_path)
    assert tasks(cohort) == ["death_30d"]
    assert cohort.labels[:, 0].tolist() == [1, 0, 0] * 4
    assert static(cohort, 3, "age") == 2024 - 1953
    assert [static(cohort, stay, "sex") for stay in (0, 1)] == [0, 1]
    assert cell(cohort, 0, 2, "Creatinine") == pytest.approx(1.0, rel=1e-3)
    assert any(note.startswith("not placed: ") and "Mystery" in note for note in draft.notes)


def test_meds_without_an_outcome_asks_for_a_later_measurement(src: Path, tmp_path: Path) -> None:
    rows: list[Any] = []
    for person in range(6):
        rows += [(person, START, "ICU_ADMISSION", None)]
        rows += [(person, START + timedelta(hours=hour), "HR", 70.0 + 30 * (person % 2)) for hour in (1, 50)]
    schema = {"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float64}
    (src / "data").mkdir()
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(src / "data" / "0.parquet")
    draft, cohort, _ = runs(src, tmp_path)
    assert tasks(cohort) == ["HR_above_90_later"]
    assert cohort.labels[:, 0].tolist() == [0, 1] * 3
    assert any("say what is to be predicted" in note for note in draft.notes)


def omop(src: Path, *, details: bool, death: bool = True) -> None:
    head = "person_id,{0}_id,{0}_concept_id,{0}_start_datetime,{0}_end_datetime".format
    visit = "visit_detail" if details else "visit_occurrence"
    concept = 32037 if details else 9201
    rows = [f"{i},{100 + i},{concept},{clock(0, i)},{clock(72 + 48 * (i % 2), i)}" for i in range(12)]
    columns = head("visit_detail") if details else head("visit").replace("visit_id", "visit_occurrence_id")
    write(src, f"{visit}.csv", columns, rows)
    write(src, "person.csv", "person_id,gender_concept_id,year_of_birth",
          [f"{i},{8507 if i % 2 else 8532},{1950 + i}" for i in range(12)])  # fmt: skip
    if death:
        write(src, "death.csv", "person_id,death_date,death_datetime",
              [f"{i},2024-03-20,2024-03-20 10:00:00" for i in range(0, 12, 3)])  # fmt: skip
    lab = "measurement_id,person_id,measurement_concept_id,measurement_datetime,value_as_number,unit_concept_id"
    rows = [f"{i},{i},3027018,{clock(1, i)},80,8541" for i in range(12)]
    rows += [f"{i},{i},3016723,{clock(2, i)},88.4,8749" for i in range(12)]
    rows += [f"{i},{i},999999,{clock(2, i)},1,0" for i in range(12)]
    write(src, "measurement.csv", f"{lab},visit_occurrence_id", [f"{row},{100 + n % 12}" for n, row in enumerate(rows)])


@pytest.mark.parametrize("details", [True, False])
@pytest.mark.parametrize("death", [True, False])
def test_omop_with_and_without_details_and_deaths(src: Path, tmp_path: Path, details: bool, death: bool) -> None:
    omop(src, details=details, death=death)
    draft, cohort, report = runs(src, tmp_path)
    assert cell(cohort, 0, 2, "Creatinine") == pytest.approx(1.0, rel=1e-3)
    assert cell(cohort, 5, 1, "HR") == 80
    assert [static(cohort, stay, "sex") for stay in (0, 1)] == [0, 1]
    assert static(cohort, 4, "age") == 2024 - 1954
    concepts = ["999999,Lactate [Moles/volume] in Blood,2524-7", "3027018,Heart rate,8867-4"]
    write(src, "concept.csv", "concept_id,concept_name,concept_code", [] if details else concepts)
    assert ("Lactate" in tomllib.loads(suggest(src).toml)["codes"]) != details
    assert tasks(cohort) == (["death_30d"] if death else ["longer_than_72_h"])
    assert cohort.labels[:, 0].tolist() == ([1, 0, 0] * 4 if death else [0, 1] * 6)
    assert report.rows_dropped == {"unknown variable": 12}
    assert any("omop" in note for note in draft.notes) == details
    assert any("999999" in note for note in draft.notes) or details


def test_clif(src: Path, tmp_path: Path) -> None:
    zone = "+00:00"
    write(src, "clif_patient.csv", "patient_id,sex_category,birth_date,death_dttm",
          [f"P{i},{'Female' if i % 2 else 'Male'},19{50 + i}-01-01," for i in range(12)])  # fmt: skip
    write(src, "clif_hospitalization.csv",
          "hospitalization_id,patient_id,admission_dttm,discharge_dttm,age_at_admission,discharge_category",
          [f"H{i},P{i},{clock(-24, i)}{zone},{clock(99, i)}{zone},{60 + i},{'Expired' if i % 3 == 0 else 'Home'}"
           for i in range(12)])  # fmt: skip
    adt = [f"H{i},{clock(-24, i)}{zone},{clock(0, i)}{zone},ward" for i in range(12)]
    adt += [f"H{i},{clock(0, i)}{zone},{clock(90, i)}{zone},icu" for i in range(12)]
    write(src, "clif_adt.csv", "hospitalization_id,in_dttm,out_dttm,location_category", adt)
    vitals = [f"H{i},{clock(1, i)}{zone},{name},{value}" for i in range(12)
              for name, value in (("heart_rate", 80), ("temp_c", 37), ("odd_vital", 1))]  # fmt: skip
    write(src, "clif_vitals.csv", "hospitalization_id,recorded_dttm,vital_category,vital_value", vitals)
    labs = [f"H{i},{clock(2, i)}{zone},{clock(3, i)}{zone},{name},{value},{unit}" for i in range(12)
            for name, value, unit in (("creatinine", 1.5, "mg/dL"), ("platelet_count", 200, "10*3/uL"))]  # fmt: skip
    columns = "hospitalization_id,lab_collect_dttm,lab_result_dttm,lab_category,lab_value_numeric,reference_unit"
    write(src, "clif_labs.csv", columns, labs)
    draft, cohort, report = runs(src, tmp_path)
    assert len(cohort.stay_ids) == 12
    assert sorted(set(cohort.subject_ids.tolist())) == sorted(f"P{i}" for i in range(12))
    by_person = {str(who): row for row, who in enumerate(cohort.subject_ids)}
    wanted = ((1, "HR", 80), (1, "Temp", 37), (2, "Creatinine", 1.5))
    assert all(cell(cohort, by_person["P1"], step, name) == value for step, name, value in wanted)
    assert cohort.labels[by_person["P3"], 0] == 1
    assert cohort.labels[by_person["P1"], 0] == 0
    assert static(cohort, by_person["P2"], "age") == 62
    assert static(cohort, by_person["P2"], "sex") == 1
    assert report.rows_dropped == {"unknown variable": 12}
    assert "not placed: clif_vitals/odd_vital" in draft.notes


@pytest.mark.parametrize("as_durations", [True, False])
def test_a_triple_of_dynamic_static_and_outcome(src: Path, tmp_path: Path, as_durations: bool) -> None:
    stays = list(range(1, 13))
    hours = pl.Series([float(hour) for _ in stays for hour in range(30)])
    time = hours if not as_durations else (hours * 3_600_000_000).cast(pl.Int64).cast(pl.Duration("us"))
    ids = [stay for stay in stays for _ in range(30)]
    dyn = {"stay_id": ids, "time": time, "hr": [80.0] * 360, "fio2": [40.0] * 360, "glu": [100.0] * 360,
           "crp": [5.0] * 360, "temp": [None] * 359 + [37.0]}  # fmt: skip
    pl.DataFrame(dyn).write_parquet(src / "dyn.parquet")
    sex = ["Female", "Male"] * 6
    pl.DataFrame({"stay_id": stays, "age": [60.0] * 12, "sex": sex, "height": [170.0] * 12}).write_parquet(
        src / "sta.parquet"
    )
    pl.DataFrame({"stay_id": stays, "label": [0, 1] * 6}).write_parquet(src / "outc.parquet")
    draft, cohort, report = runs(src, tmp_path, 24)
    assert cell(cohort, 0, 23, "HR") == 80
    assert cell(cohort, 0, 0, "FiO2") == pytest.approx(0.4)
    assert static(cohort, 0, "height") == 170
    assert [static(cohort, stay, "sex") for stay in (0, 1)] == [0, 1]
    assert tasks(cohort) == ["label"]
    assert cohort.labels[:, 0].tolist() == [0, 1] * 6
    assert any("so % is declared: check it" in note for note in draft.notes)
    assert any(note.startswith("not placed: ") and "crp" in note for note in draft.notes)
    assert report.rows_dropped["unknown variable"] == 360


def test_a_file_of_psv_for_every_stay(src: Path, tmp_path: Path) -> None:
    for stay in range(12):
        rows = [f"{70 + stay}|NaN|98|{60 + stay}|{stay % 2}|{hour}|{int(stay % 3 == 0 and hour > 30)}"
                for hour in range(1, 40)]  # fmt: skip
        write(src, f"p{stay:06d}.psv", "HR|Temp|O2Sat|Age|Gender|ICULOS|SepsisLabel", rows)
    draft, cohort, _ = runs(src, tmp_path, 24)
    assert cell(cohort, 2, 0, "HR") == 72
    assert static(cohort, 2, "age") == 62
    assert cohort.labels[:, 0].tolist() == [1, 0, 0] * 4
    assert any("cohort.n_steps = 24 or fewer" in note for note in draft.notes)


def german(src: Path, *, clocks: bool = False) -> None:
    stamp = "%d.%m.%Y %H:%M"
    stays = [
        f"{1000 + i};{i:03d};{START + timedelta(days=i):{stamp}};{START + timedelta(days=i + 4):{stamp}};"
        f"12.05.{1950 + i};{'wm'[i % 2]};{'ja' if i % 3 == 0 else 'nein'}"
        for i in range(24)
    ]
    write(src, "Fälle.csv", "Fall-Nr.;Patientennummer;Aufnahme;Entlassung;Geburtsdatum;Geschlecht;Verstorben", stays,
          "cp1252")  # fmt: skip
    rows = []
    for i in range(24):
        at = START + timedelta(days=i, hours=2)
        when = f"{at:%d.%m.%Y};{at:%H:%M}" if clocks else f"{at:{stamp}}"
        for name, value, unit in (
            ("Kreatinin", "88,4", "µmol/l"), ("Hämatokrit", "0,42", "l/l"), ("Leukozyten", "8,2", "G/l"),
            ("Thrombozyten", "180", "Tsd/µl"), ("Glukose", "5,5", "mmol/l"), ("Bilirubin gesamt", "<0,3", "mg/dl"),
            ("Laktat", "1,2", "mmol/l (S)"), ("Prokalzitonin", "0,5", "µg/l"),
        ):  # fmt: skip
            rows.append(f"{1000 + i};{when};{name};{value};{unit}")
    times = "Abnahmedatum;Uhrzeit" if clocks else "Abnahmezeitpunkt"
    write(src, "Labor.csv", f"Fall-Nr.;{times};Untersuchung;Ergebnis;Einheit", rows, "cp1252")


@pytest.mark.parametrize("clocks", [False, True])
def test_a_german_laboratory_export(src: Path, tmp_path: Path, clocks: bool) -> None:
    german(src, clocks=clocks)
    draft, cohort, report = runs(src, tmp_path)
    raw = tomllib.loads(draft.toml)["layout"]
    assert (raw["encoding"], raw["decimal_comma"], raw["dates"]) == ("cp1252", True, "day_first")
    expected = {"Creatinine": 1.0, "HCT": 42.0, "WBC": 8.2, "Platelets": 180.0, "Glucose": 99.09}
    assert {name: cell(cohort, 0, 2, name) for name in expected} == pytest.approx(expected, rel=1e-3)
    assert cohort.labels[:, 0].tolist() == [1, 0, 0] * 8
    assert static(cohort, 0, "age") == 74
    assert [static(cohort, stay, "sex") for stay in (0, 1)] == [0, 1]
    assert report.rows_dropped == {
        "a limit (< or >) instead of a number": 24, "unit that the mapping drops": 24, "unknown variable": 24
    }  # fmt: skip
    assert any("the unit text 'mmol/l (S)' of Laktat is not known" in note for note in draft.notes)
    assert "not placed: Prokalzitonin" in draft.notes


def test_several_stays_of_an_admission_share_its_events(src: Path, tmp_path: Path) -> None:
    stays = [f"{i},{i // 2},P{i // 2},{clock(0, 3 * i)},{clock(60, 3 * i)},{i % 2}" for i in range(12)]
    write(src, "icu.csv", "stay_id,hadm_id,subject_id,intime,outtime,died", stays)
    labs = [f"{i // 2},{clock(3, 3 * i)},1,{10 + i}" for i in range(12)]
    write(src, "lab.csv", "hadm_id,charttime,itemid,valuenum", labs)
    write(src, "d_items.csv", "itemid,label", ["1,Lactate", "2,Mystery"])
    draft, cohort, _ = runs(src, tmp_path)
    layout = tomllib.loads(draft.toml)["layout"]
    assert (layout["stays"]["subject_key"], layout["events"][0]["link"]) == ("hadm_id", "subject")
    assert [cell(cohort, stay, 3, "Lactate") for stay in (0, 1)] == [10, 11]


def test_text_that_is_written_is_text_that_is_read() -> None:
    raw = {
        "base": "b", "optional": ["a"],
        "layout": {"encoding": "cp1252", "stays": {"file": 'a "b"', "derived": {"x y": {"codes": {"ä": 1}}},
                   "join": [{"file": "f", "columns": {"a": "b"}}]}, "events": [{"file": "x"}, {"file": "y\\z"}]},
        "codes": {"HR": ["a", {"code": "b", "unit": "c"}]}, "statics": {},
        "tasks": {"t": {"op": ">", "threshold": 1.5}},
    }  # fmt: skip
    assert tomllib.loads(toml_text(raw)) == raw
