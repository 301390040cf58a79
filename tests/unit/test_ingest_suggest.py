"""A drafted mapping: what it places, what it says it could not, and that it reads the files once tasks are added."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import DataError
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.mapping.load import parse_mapping
from pipeline.ingest.sources.readers import read_source
from pipeline.ingest.suggest import suggest


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
