"""MIMIC-IV, eICU, OMOP and PhysioNet 2019 by their shipped mappings, on hand-made files of the published schemas."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.core.types import Cohort, IngestReport, Split
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.task_labels import latest_hour
from pipeline.ingest.mapping.load import SourceMapping, load_mapping
from pipeline.ingest.sources.readers import read_source


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


def loose(name: str) -> SourceMapping:
    """A shipped mapping whose variables may all be absent: the files here hold a few of them."""
    mapping = load_mapping(name)
    names = {row.name for part in (mapping.variables, mapping.static_variables) for row in part}
    return SourceMapping(**{**vars(mapping), "optional": frozenset(names)})


def ingest(name: str, folder: Path, n_steps: int = 48) -> tuple[Cohort, IngestReport]:
    mapping = loose(name)
    tables = read_source("tables", folder=folder, mapping=mapping, until_hours=latest_hour(mapping, float(n_steps)))
    split = np.full(tables.stays.height, int(Split.TRAIN), dtype=np.int8)
    return build_cohort(tables, mapping, step_hours=1.0, n_steps=n_steps, split=split)


def cell(cohort: Cohort, stay: str, step: int, name: str) -> float:
    row = cohort.stay_ids.tolist().index(stay)
    column = [variable.name for variable in cohort.variables].index(name)
    return float(cohort.values[row, step, column])


def static(cohort: Cohort, stay: str, name: str) -> float:
    row = cohort.stay_ids.tolist().index(stay)
    return float(cohort.static[row, [item.name for item in cohort.static_variables].index(name)])


def mimic(folder: Path, extra_chart: str = "", extra_lab: str = "") -> Path:
    write(
        folder / "icu/icustays.csv.gz",
        "subject_id,hadm_id,stay_id,first_careunit,last_careunit,intime,outtime,los\n"
        "10,20,30,MICU,MICU,2150-01-01 10:00:00,2150-01-04 10:00:00,3.0\n"
        "10,21,31,MICU,MICU,2151-06-01 00:00:00,2151-06-02 00:00:00,1.0\n"
        "11,22,32,SICU,SICU,2160-03-05 12:00:00,2160-03-20 12:00:00,15.0\n"
        "12,23,33,SICU,SICU,2170-03-05 12:00:00,2170-03-06 12:00:00,1.0\n",
    )
    write(
        folder / "hosp/patients.csv.gz",
        "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod\n"
        "10,F,60,2149,2008 - 2010,\n11,M,40,2160,2011 - 2013,2160-03-20\n12,M,10,2170,2011 - 2013,\n",
    )
    write(
        folder / "hosp/admissions.csv.gz",
        "subject_id,hadm_id,admittime,dischtime,deathtime,hospital_expire_flag\n"
        "10,20,2150-01-01 08:00:00,2150-01-05 08:00:00,,0\n"
        "10,21,2151-05-31 08:00:00,2151-06-05 08:00:00,,0\n"
        "11,22,2160-03-05 08:00:00,2160-03-20 08:00:00,2160-03-20 08:00:00,1\n"
        "12,23,2170-03-05 08:00:00,2170-03-20 08:00:00,,0\n",
    )
    write(
        folder / "icu/chartevents.csv.gz",
        "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valuenum,valueuom,warning\n"
        "10,20,30,1,2150-01-01 10:30:00,2150-01-01 10:31:00,220045,80,80,bpm,0\n"
        "10,20,30,1,2150-01-01 11:30:00,2150-01-01 11:31:00,223761,98.6,98.6,°F,0\n"
        "10,20,30,1,2150-01-01 12:30:00,2150-01-01 12:31:00,223835,40,40,,0\n"
        "10,20,30,1,2150-01-01 09:30:00,2150-01-01 09:31:00,220045,99,99,bpm,0\n"  # before the stay
        "10,20,30,1,2150-01-01 13:30:00,2150-01-01 13:31:00,220045,bad,,bpm,0\n"  # no number
        "10,20,30,1,2150-01-01 10:30:00,2150-01-01 10:31:00,220045,80,80,bpm,0\n"  # twice
        "10,20,30,1,2150-01-01 10:30:00,2150-01-01 10:31:00,999999,1,1,,0\n"  # not in the mapping
        '10,20,30,1,2150-01-01 10:30:00,2150-01-01 10:31:00,224642,"Oral, ""x""",,,0\n'  # likewise, quoted
        "11,22,77,1,2160-03-05 13:00:00,2160-03-05 13:00:00,220045,70,70,bpm,0\n"  # no such stay
        "12,23,33,1,2170-03-05 13:00:00,2170-03-05 13:00:00,220045,70,70,bpm,0\n"  # a child: excluded
        "11,22,32,1,2160-03-05 13:00:00,2160-03-05 13:00:00,220045,90,90,bpm,0\n" + extra_chart,
    )
    write(
        folder / "icu/outputevents.csv.gz",
        "subject_id,hadm_id,stay_id,caregiver_id,charttime,storetime,itemid,value,valueuom\n"
        "10,20,30,1,2150-01-01 10:30:00,2150-01-01 10:31:00,226559,100,mL\n"
        "10,20,30,1,2150-01-01 10:45:00,2150-01-01 10:46:00,226560,50,mL\n",
    )
    write(
        folder / "hosp/labevents.csv.gz",
        "labevent_id,subject_id,hadm_id,specimen_id,itemid,order_provider_id,charttime,storetime,value,valuenum,"
        "valueuom,ref_range_lower,ref_range_upper,flag,priority,comments\n"
        "1,10,20,5,50912,P,2150-01-01 12:00:00,2150-01-01 13:00:00,1.5,1.5,mg/dL,0.4,1.1,,STAT,\n"
        "2,10,,5,50912,P,2151-06-01 03:00:00,2151-06-01 04:00:00,2.5,2.5,mg/dL,0.4,1.1,,STAT,\n"  # no hadm_id
        "3,10,20,5,50912,P,2150-01-10 12:00:00,2150-01-10 13:00:00,9,9,mg/dL,0.4,1.1,,STAT,\n"  # between the stays
        "4,11,22,5,50912,P,2160-03-05 13:00:00,2160-03-05 13:00:00,133,133,umol/L,0.4,1.1,,STAT,\n"  # converted
        "5,11,22,5,50912,P,2160-03-05 14:00:00,2160-03-05 13:00:00,1,1,bpm,0.4,1.1,,STAT,\n"  # a unit that cannot be
        "6,99,22,5,50912,P,2160-03-05 14:00:00,2160-03-05 13:00:00,1,1,mg/dL,0.4,1.1,,STAT,\n" + extra_lab,  # nobody
    )
    return folder


def test_mimic_by_hand(tmp_path: Path) -> None:
    cohort, report = ingest("mimic_iv", mimic(tmp_path))
    assert cohort.stay_ids.tolist() == ["30", "31", "32"]
    assert cohort.subject_ids.tolist() == ["10", "10", "11"]
    assert cohort.subjects_known
    assert cell(cohort, "30", 0, "HR") == 80
    assert cell(cohort, "30", 1, "Temp") == pytest.approx(37.0, abs=1e-4)
    assert cell(cohort, "30", 2, "FiO2") == pytest.approx(0.4, abs=1e-6)
    assert cell(cohort, "30", 2, "Creatinine") == 1.5
    assert cell(cohort, "31", 3, "Creatinine") == 2.5
    assert cell(cohort, "32", 1, "Creatinine") == pytest.approx(133 * 0.011312, rel=1e-5)
    assert cell(cohort, "30", 0, "Urine") == 150
    assert int(cohort.observed.sum()) == 8
    assert [static(cohort, stay, "age") for stay in ("30", "31", "32")] == [61, 62, 40]
    assert [static(cohort, stay, "sex") for stay in ("30", "31", "32")] == [0, 0, 1]
    assert cohort.labels.tolist() == [[0, 0], [0, 0], [1, 1]]
    assert report.rows_read == 11 + 2 + 6
    assert report.rows_used == 9
    assert dict(report.rows_dropped) == {
        "outside the window": 1,
        "value missing": 1,
        "duplicate row": 1,
        "unknown variable": 2,
        "no such stay or subject": 2,
        "stay excluded": 1,
        "outside every stay": 1,
        "unit without a conversion": 1,
    }
    assert "1 stays excluded: age outside the inclusion" in report.notes


def test_eicu_by_hand(tmp_path: Path) -> None:
    write(
        tmp_path / "patient.csv",
        "patientunitstayid,patienthealthsystemstayid,gender,age,hospitalid,hospitaldischargestatus,unittype,"
        "unitdischargeoffset,uniquepid\n"
        "1,11,Female,> 89,73,Alive,MICU,6000,002-1\n2,12,Male,50,73,Expired,MICU,900,002-2\n"
        "3,13,Male,50,90,Alive,MICU,900,002-3\n",
    )
    write(
        tmp_path / "vitalPeriodic.csv.gz",
        "vitalperiodicid,patientunitstayid,observationoffset,temperature,sao2,heartrate,respiration\n"
        "1,1,5,37.5,98,80,\n2,1,-5,,,99,\n3,2,65,,,70,20\n",
    )
    write(
        tmp_path / "vitalAperiodic.csv.gz",
        "vitalaperiodicid,patientunitstayid,observationoffset,noninvasivesystolic,noninvasivediastolic,noninvasivemean\n"
        "1,1,5,120,70,85\n",
    )
    write(
        tmp_path / "lab.csv.gz",
        "labid,patientunitstayid,labresultoffset,labtypeid,labname,labresult,labresulttext,labmeasurenamesystem\n"
        "1,1,30,1,creatinine,1.2,1.2,mg/dL\n2,1,30,1,WBC x 1000,9,9,K/mcL\n3,1,30,1,FiO2,50,50,%\n"
        "4,1,30,1,fibrinogen,300,300,mg/dL\n",
    )
    write(
        tmp_path / "nurseCharting.csv.gz",
        "nursingchartid,patientunitstayid,nursingchartoffset,nursingchartentryoffset,nursingchartcelltypecat,"
        "nursingchartcelltypevallabel,nursingchartcelltypevalname,nursingchartvalue\n"
        "1,1,70,70,Vital Signs,Temperature,Temperature (F),98.6\n"
        "2,1,70,70,Scores,Glasgow coma score,GCS Total,14\n3,1,80,80,Scores,Glasgow coma score,GCS Total,unable\n",
    )
    cohort, report = ingest("eicu", tmp_path)
    assert cohort.subject_ids.tolist() == ["002-1", "002-2", "002-3"]
    assert cell(cohort, "1", 0, "HR") == 80
    assert cell(cohort, "1", 0, "Temp") == 37.5
    assert cell(cohort, "1", 1, "Temp") == pytest.approx(37.0, abs=1e-4)
    assert cell(cohort, "1", 1, "GCS") == 14
    assert cell(cohort, "1", 0, "WBC") == 9
    assert cell(cohort, "1", 0, "FiO2") == 0.5
    assert cell(cohort, "2", 1, "RespRate") == 20
    assert static(cohort, "1", "age") == 89
    assert cohort.labels.tolist() == [[0, 1], [1, 0], [0, 0]]
    assert cohort.sites is not None
    assert cohort.sites.tolist() == ["73", "73", "90"]
    assert report.rows_read == 3 * 5 + 1 * 4 + 4 + 3  # cells of the wide tables but key and time, rows of the long
    assert dict(report.rows_dropped) == {
        "unknown variable": 3 + 1 + 1,  # a row's own number is no measurement
        "value missing": 1 + 2,
        "outside the window": 4,
        "text instead of a number": 1,
    }
    assert report.rows_used + sum(report.rows_dropped.values()) == report.rows_read


def omop(folder: Path, suffix: str = ".csv", extra: str = "") -> Path:
    tables = {
        "visit_detail": "visit_detail_id,person_id,visit_detail_concept_id,visit_detail_start_date,"
        "visit_detail_start_datetime,visit_detail_end_date,visit_detail_end_datetime,care_site_id,visit_occurrence_id\n"
        "1,100,32037,2020-01-01,2020-01-01T10:00:00,2020-01-05,2020-01-05T10:00:00,7,500\n"
        "2,100,9201,2020-01-05,2020-01-05T10:00:00,2020-01-09,2020-01-09T10:00:00,7,500\n"
        "3,101,32037,2020-02-01,2020-02-01T00:00:00,2020-02-05,2020-02-05T00:00:00,8,501\n",
        "person": "person_id,gender_concept_id,year_of_birth,month_of_birth\n100,8532,1950,1\n101,8507,1960,2\n",
        "death": "person_id,death_date,death_datetime,death_type_concept_id\n"
        "101,2020-02-11,2020-02-11T00:00:00,32817\n",
        "measurement": "measurement_id,person_id,measurement_concept_id,measurement_date,measurement_datetime,"
        "operator_concept_id,value_as_number,value_as_concept_id,unit_concept_id,visit_occurrence_id\n"
        "1,100,3027018,2020-01-01,2020-01-01T10:30:00,,80,,8541,500\n"
        "2,100,3020891,2020-01-01,2020-01-01T11:30:00,,98.6,,9289,500\n"
        "3,100,3020891,2020-01-01,2020-01-01T12:30:00,,37,,586323,500\n"
        "4,101,3016723,2020-02-01,2020-02-01T01:00:00,,100,,8749,501\n"
        "5,101,3027018,2020-02-01,2020-02-01T02:00:00,,77,,0,501\n"
        "6,101,3027018,2020-01-31,2020-01-31T02:00:00,,77,,8541,501\n" + extra,
    }
    for name, text in tables.items():
        if suffix == ".csv":
            write(folder / f"{name.upper()}.csv", text)
        else:
            (folder / name).mkdir(parents=True, exist_ok=True)
            frame = pl.read_csv(text.encode(), try_parse_dates=True, null_values=[""])
            frame.write_parquet(folder / name / "part-0.parquet")
    return folder


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_omop_by_hand(tmp_path: Path, suffix: str) -> None:
    cohort, report = ingest("omop", omop(tmp_path, suffix))
    assert cohort.stay_ids.tolist() == ["1", "3"]
    assert cell(cohort, "1", 0, "HR") == 80
    assert cell(cohort, "1", 1, "Temp") == pytest.approx(37.0, abs=1e-4)
    assert cell(cohort, "1", 2, "Temp") == 37
    assert cell(cohort, "3", 1, "Creatinine") == pytest.approx(1.1312)
    assert cell(cohort, "3", 2, "HR") == 77  # unit 0, no matching concept: taken for the variable's
    assert [static(cohort, stay, "age") for stay in ("1", "3")] == [70, 60]
    assert cohort.labels.tolist() == [[0], [1]]
    assert dict(report.rows_dropped) == {"outside every stay": 1}
    assert report.rows_read == 6


def test_omop_reads_observations_where_there_are_some(tmp_path: Path) -> None:
    """A glucose that a site keeps as an observation; without the table the report says that it is not there."""
    folder = omop(tmp_path)
    _, before = ingest("omop", folder)
    assert "there is no table observation, which is optional" in before.notes
    write(
        folder / "OBSERVATION.csv",
        "observation_id,person_id,observation_concept_id,observation_date,observation_datetime,value_as_number,"
        "value_as_string,value_as_concept_id,unit_concept_id,visit_occurrence_id\n"
        "1,100,3004501,2020-01-01,2020-01-01T13:30:00,120,,,8840,500\n"
        "2,100,3004501,2020-01-01,2020-01-01T14:30:00,,high,4328749,,500\n"
        "3,100,4005823,2020-01-01,2020-01-01T14:30:00,,never,,,500\n",
    )
    cohort, after = ingest("omop", folder)
    assert cell(cohort, "1", 3, "Glucose") == 120
    assert after.rows_read == before.rows_read + 3
    assert after.rows_used == before.rows_used + 1
    assert after.rows_dropped["value missing"] == 1
    assert after.rows_dropped["unknown variable"] == 1
    assert not [note for note in after.notes if "optional" in note]


PSV = "HR|O2Sat|Temp|SBP|MAP|DBP|Resp|Age|Gender|Unit1|Unit2|HospAdmTime|ICULOS|SepsisLabel\n"


def test_physionet2019_by_hand(tmp_path: Path) -> None:
    for stay, septic in (("p000001", 0), ("p000002", 1)):
        rows = [
            f"{80 + hour}|98|NaN|120|80|60|NaN|63|1|0|1|-5|{hour}|{int(septic and hour > 30)}\n"
            for hour in range(1, 50)
        ]
        write(tmp_path / f"{stay}.psv", PSV + "".join(rows))
    cohort, report = ingest("physionet2019", tmp_path, n_steps=24)
    assert cohort.stay_ids.tolist() == ["p000001", "p000002"]
    assert not cohort.subjects_known
    assert cell(cohort, "p000001", 0, "HR") == 81
    assert cell(cohort, "p000001", 23, "HR") == 104
    assert cohort.labels.tolist() == [[0], [1]]
    assert "Sepsis" not in [variable.name for variable in cohort.variables]
    assert static(cohort, "p000002", "age") == 63
    assert report.rows_read == 2 * 49 * 13  # cells: one of the 14 columns is the time
    assert report.rows_used + sum(report.rows_dropped.values()) == report.rows_read
    assert report.rows_dropped["value missing"] == 2 * 48 * 2
    assert report.rows_dropped["unknown variable"] == 2 * 49 * 3


def bytes_of(cohort: Cohort) -> list[Any]:
    arrays = (cohort.values, cohort.static, cohort.labels, cohort.split)
    return [*(array.tobytes() for array in arrays), cohort.stay_ids.tolist()]


def test_nothing_after_the_prediction_time_changes_mimic(tmp_path: Path) -> None:
    before, _ = ingest("mimic_iv", mimic(tmp_path / "a"))
    chart = "10,20,30,1,2150-01-03 10:00:01,,220045,300,300,bpm,0\n10,20,30,1,2150-01-03 12:00:00,,226512,70,70,kg,0\n"
    lab = "7,11,22,5,50912,P,2160-03-07 12:00:01,,30,30,mg/dL,,,,,\n"
    after, report = ingest("mimic_iv", mimic(tmp_path / "b", chart, lab))
    assert bytes_of(before) == bytes_of(after)
    assert report.rows_dropped["outside the window"] == 1 + 3


def test_nothing_after_the_prediction_time_changes_omop(tmp_path: Path) -> None:
    before, _ = ingest("omop", omop(tmp_path / "a"))
    extra = "7,101,3027018,2020-02-04,2020-02-04T02:00:00,,200,,8541,501\n"
    after, _ = ingest("omop", omop(tmp_path / "b", extra=extra))
    assert bytes_of(before) == bytes_of(after)


def test_nothing_after_the_prediction_time_changes_physionet2019(tmp_path: Path) -> None:
    found = []
    for planted in ("NaN", "300"):
        folder = tmp_path / planted
        for stay, septic in (("p1", 0), ("p2", 1)):
            rows = [f"80|98|NaN|120|80|60|NaN|63|1|0|1|-5|{h}|{int(septic and h > 30)}\n" for h in range(1, 25)]
            rows += [
                f"{planted}|98|NaN|120|80|60|NaN|99|0|0|1|-5|{h}|{int(septic and h > 30)}\n" for h in range(25, 60)
            ]
            write(folder / f"{stay}.psv", PSV + "".join(rows))
        found.append(bytes_of(ingest("physionet2019", folder, n_steps=24)[0]))
    assert found[0] == found[1]
