"""A drafted mapping: what it places, what it says it could not, and that it reads the files once tasks are added."""

from __future__ import annotations

import tomllib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.core.errors import DataError
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.drafting.suggest import suggest
from pipeline.ingest.mapping.load import parse_mapping
from pipeline.ingest.sources.readers import read_source


def ward(folder: Path) -> Path:
    """A long table with units beside a table of stays, as a laboratory system would export them."""
    stays = [f"{i},{i % 7},2021-05-{i + 1:02d} 06:00,{i % 2}" for i in range(12)]
    (folder / "stays.csv").write_text("stay_id,patient_id,admitted,died\n" + "\n".join(stays) + "\n")
    rows = []
    for i in range(12):
        for name, value, unit in (
            ("Heart Rate", 80, "bpm"),
            ("Temperature (F)", 98.6, ""),
            ("Kreatinin", 90, "umol/L"),
            ("Mystery marker", 1, "x"),
        ):
            rows.append(f"{i},2021-05-{i + 1:02d} 07:30,{name},{value},{unit}")
    rows.append("3,2021-05-04 07:30,Jane Roe,1,x")
    (folder / "results.csv").write_text("stay_id,time,analyte,result,unit\n" + "\n".join(rows) + "\n")
    return folder


def test_a_long_table_is_placed(tmp_path: Path) -> None:
    draft = suggest(ward(tmp_path))
    raw = tomllib.loads(draft.toml)
    assert raw["layout"]["stays"] == {
        "file": "stays", "stay": "stay_id", "subject": "patient_id", "start": "admitted"
    }  # fmt: skip
    events = raw["layout"]["events"][0]
    assert (events["key"], events["time"], events["time_unit"]) == ("stay_id", "time", "datetime")
    assert (events["code"], events["value"], events["unit"]) == ("analyte", "result", "unit")
    assert raw["codes"] == {
        "HR": ["Heart Rate"],
        "Temp": [{"code": "Temperature (F)", "unit": "degF"}],
        "Creatinine": ["Kreatinin"],  # the rows say their units
    }
    assert "not placed: Mystery marker" in draft.notes
    assert any("1 codes have fewer than 10 rows" in note for note in draft.notes)
    assert "Jane Roe" not in draft.toml + "".join(draft.notes)


def test_a_draft_reads_once_a_task_is_added(tmp_path: Path) -> None:
    from pipeline.ingest.mapping.load import MAPPINGS

    raw = tomllib.loads(suggest(ward(tmp_path)).toml)
    base = tomllib.loads((MAPPINGS / "physionet2012.toml").read_text())
    raw["tasks"] = {"died": {"kind": "binary", "column": "died"}}
    mapping = parse_mapping({**base, **{k: v for k, v in raw.items() if k != "base"}}, "ward", "ward.toml", "0" * 64)
    tables = read_source("tables", folder=tmp_path, mapping=mapping, until_hours=4.0)
    split = np.zeros(12, dtype=np.int8)
    cohort, report = build_cohort(tables, mapping, step_hours=1.0, n_steps=4, split=split)
    assert cohort.values[:, 1].mean(axis=0).tolist() == pytest.approx([90 * 0.011312, 80, 37.0], rel=1e-5)
    assert report.rows_dropped == {"unknown variable": 13}


def test_a_wide_table_of_hours(tmp_path: Path) -> None:
    (tmp_path / "hourly.csv").write_text("stay_id,hour,HR,SpO2,bed\n" + "1,0,80,98,7\n" * 3)
    raw = tomllib.loads(suggest(tmp_path).toml)
    assert "stays" not in raw["layout"]
    assert raw["layout"]["events"][0]["time_unit"] == "hours"
    assert raw["codes"] == {"HR": ["HR"], "SaO2": ["SpO2"]}


def test_a_named_source_gets_its_shipped_mapping(tmp_path: Path) -> None:
    (tmp_path / "icu").mkdir()
    (tmp_path / "icu" / "icustays.csv").write_text("subject_id,hadm_id,stay_id,intime,outtime\n")
    (tmp_path / "icu" / "chartevents.csv").write_text("stay_id,charttime,itemid,valuenum,valueuom\n")
    draft = suggest(tmp_path)
    assert "this looks like mimic_iv" in draft.notes[0]
    assert any("hosp/labevents, which is not here" in note for note in draft.notes)


def test_nothing_to_go_by_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no table"):
        suggest(tmp_path)
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match="no table has columns"):
        suggest(tmp_path)


def drafted(folder: Path, tasks: dict[str, Any]) -> tuple[Any, Any]:
    """The draft as it is, with tasks where it has none, read into tables."""
    from pipeline.ingest.mapping.load import MAPPINGS

    raw = tomllib.loads(suggest(folder).toml)
    base = tomllib.loads((MAPPINGS / "physionet2012.toml").read_text())
    base.pop("window")
    raw["tasks"] = raw["tasks"] or tasks
    mapping = parse_mapping({**base, **{k: v for k, v in raw.items() if k != "base"}}, "m", "m.toml", "0" * 64)
    return raw, read_source("tables", folder=folder, mapping=mapping, until_hours=24.0)


def test_a_meds_folder_gives_a_draft_that_reads(tmp_path: Path) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "metadata").mkdir()
    rows = []
    for person in (1, 2, 3):
        start = datetime(2024, 1, person, 8)
        rows += [(person, start, "ICU_ADMISSION//MICU", None)]
        rows += [(person, start + timedelta(hours=hour), "LAB//1//umol/L", 88.4) for hour in range(4)]
        rows += [(person, start + timedelta(hours=1), "LAB//2//UNK", 7.0)]
    schema = {"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float64}
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(tmp_path / "data" / "train" / "0.parquet")
    codes = {"code": ["LAB//1//umol/L", "LAB//2//UNK"], "description": ["Creatinine", "Mystery"]}
    pl.DataFrame(codes).write_parquet(tmp_path / "metadata" / "codes.parquet")
    splits = {"subject_id": [1, 2, 3], "split": ["train", "tuning", "held_out"]}
    pl.DataFrame(splits).write_parquet(tmp_path / "metadata" / "subject_splits.parquet")
    raw, tables = drafted(tmp_path, {"d": {"kind": "binary", "column": "d"}})
    assert raw["codes"] == {"Creatinine": [{"code": "LAB//1//umol/L", "unit": "umol/L"}]}
    assert tables.stays["split"].to_list() == ["train", "tuning", "held_out"]
    assert tables.events["value"].round(3).unique().to_list() == [1.0]
    assert any("not placed: LAB//2//UNK" in note for note in suggest(tmp_path).notes)


def test_a_table_of_wards_gives_a_draft_that_reads(tmp_path: Path) -> None:
    adt = ["patient_id,hospitalization_id,in_dttm,out_dttm,location_category"]
    vitals = ["hospitalization_id,recorded_dttm,vital_category,vital_value"]
    for i in range(12):
        adt += [f"p{i},h{i},2024-01-01 08:00:00+00:00,2024-01-02 08:00:00+00:00,ward"]
        adt += [f"p{i},h{i},2024-01-02 08:00:00+00:00,2024-01-03 08:00:00+00:00,icu"]
        vitals += [f"h{i},2024-01-0{day} 09:00:00+00:00,heart_rate,{60 + day}" for day in (1, 2)]
    (tmp_path / "clif_adt.csv").write_text("\n".join(adt) + "\n")
    (tmp_path / "clif_vitals.csv").write_text("\n".join(vitals) + "\n")
    raw, tables = drafted(tmp_path, {"d": {"kind": "binary", "column": "d"}})
    assert raw["layout"]["stays"]["where"] == {"location_category": ["icu"]}
    assert tables.events["value"].to_list() == [62.0] * 12
    assert tables.events["hours"].to_list() == [1.0] * 12


def test_loinc_codes_are_placed_and_what_is_known_of_a_stay_is_drafted(tmp_path: Path) -> None:
    stays = ["encounter_id,patient_id,start,age,died"] + [
        f"E{i},P{i},2024-01-01 08:00,5{i % 10},{i % 2}" for i in range(12)
    ]
    lab = ["encounter_id,time,code,value,unit"]
    lab += [f"E{i},2024-01-01 09:00,{code},{value},{unit}" for i in range(12) for code, value, unit in (
        ("8867-4", 80, "/min"), ("LOINC:2160-0", 97, "\u00b5mol/L"), ("99999-9", 1, "furlong"))]  # fmt: skip
    (tmp_path / "encounters.csv").write_text("\n".join(stays) + "\n")
    (tmp_path / "obs.csv").write_text("\n".join(lab) + "\n", encoding="utf-8")
    raw, tables = drafted(tmp_path, {})
    assert raw["codes"] == {"Creatinine": ["LOINC:2160-0"], "HR": ["8867-4"]}
    assert raw["tasks"] == {"died": {"kind": "binary", "column": "died", "final": True}}
    assert raw["statics"]["age"]["source"] == "age"
    assert tables.n_events == 24
    assert tables.stays["age"].cast(pl.Float64).min() == 50


def test_an_unknown_unit_of_a_placed_code_is_noted(tmp_path: Path) -> None:
    lab = ["stay_id,time,code,value,unit"] + [f"{i},2024-01-01 09:00,hr,80,beats (x)" for i in range(12)]
    (tmp_path / "stays.csv").write_text(
        "stay_id,patient_id,start\n" + "".join(f"{i},{i},2024-01-01\n" for i in range(12))
    )
    (tmp_path / "lab.csv").write_text("\n".join(lab) + "\n")
    told = "the unit text 'beats (x)' of hr is not known: say what it means in layout.units"
    assert told in suggest(tmp_path).notes
