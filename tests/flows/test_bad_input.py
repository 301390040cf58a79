"""Broken sources, through the road: one clear sentence, exit code 11, and nothing stored."""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.run import walk_until
from flows.tasks import StageStopped
from flows.workspace.job import Job, new_job
from flows.workspace.logs import read_log
from pipeline.core.config import parse_config
from pipeline.core.errors import DataError
from pipeline.core.redaction import outward
from pipeline.core.types import IngestReport

MAPPING = """
description = "test"
[variables]
HR = { unit = "/min", plausible = [10, 320], scale = [30, 180], normal = 80 }
Lactate = { unit = "mmol/L", plausible = [0.1, 40], scale = [0, 12], normal = 1 }
[statics]
age = { unit = "years", plausible = [10, 120], scale = [15, 95], normal = 65 }
[tasks]
died = { kind = "binary", column = "died", description = "death" }
"""
SENTINEL = "777.125"  # a patient's value, which no message may repeat
Rows = list[list[str]]


def sound() -> tuple[Rows, Rows]:
    """40 stays of 20 subjects with two variables each, and their table of stays."""
    events = [["stay_id", "hours", "variable", "value"]]
    stays = [["stay_id", "subject_id", "age", "died", "split"]]
    for stay in range(40):
        subject = stay // 2
        split = ("train", "train", "train", "tuning", "held_out")[subject % 5]
        events += [[f"s{stay}", "1.5", "HR", str(60 + stay)], [f"s{stay}", "2", "Lactate", "1.5"]]
        stays.append([f"s{stay}", f"p{subject}", "70", str(int(stay % 3 == 0)), split])
    return events, stays


def job_of(workspace: Path, events: Rows | bytes | None, stays: Rows, split: str = "given") -> Job:
    """A workspace whose source is what was given, as files; returns its job."""
    for name, rows in (("events.csv", events), ("stays.csv", stays)):
        if rows is not None:
            data = rows if isinstance(rows, bytes) else _csv(rows)
            (workspace / name).write_bytes(data)
    (workspace / "mapping.toml").write_text(MAPPING)
    raw: dict[str, Any] = {
        "name": "bad",
        "workspace": "work",
        "source": {
            "kind": "long_table",
            "events": "events.csv",
            "stays": "stays.csv",
            "subject_column": "subject_id",
            "split_column": "split",
        },
        "cohort": {"mapping": "mapping.toml", "n_steps": 4, "split": {"kind": split}},
        "encode": {"raw": {"kind": "identity"}},
        "condense": {"c": {"kind": "centroids", "n_per_class": 1}},
        "release": {"artefact": "c", "licence": "CC0-1.0"},
    }
    return new_job(parse_config(raw, "test", workspace))


def _csv(rows: Rows) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _events(change: Callable[[Rows], Any]) -> Callable[[Rows, Rows], tuple[Any, Rows]]:
    def broken(events: Rows, stays: Rows) -> tuple[Any, Rows]:
        changed = change(events)
        return (events if changed is None else changed), stays

    return broken


def _stays(change: Callable[[Rows], Any]) -> Callable[[Rows, Rows], tuple[Rows, Any]]:
    def broken(events: Rows, stays: Rows) -> tuple[Rows, Any]:
        changed = change(stays)
        return events, (stays if changed is None else changed)

    return broken


def _set(row: int, column: int, value: str) -> Callable[[Rows], None]:
    def change(rows: Rows) -> None:
        rows[row][column] = value

    return change


BROKEN: dict[str, tuple[Callable[[Rows, Rows], tuple[Any, Any]], str]] = {
    "missing file": (lambda _, stays: (None, stays), r"events\.csv"),
    "empty file": (_events(lambda _: b""), r"events\.csv"),
    "header only": (_events(lambda rows: rows[:1]), r"events\.csv"),
    "unknown variable": (_events(_set(3, 2, "Sodium")), "Sodium"),
    "a value that is text": (_events(_set(3, 3, "positive")), "value"),
    "a time that is text": (_events(_set(3, 1, "noon")), "hours"),
    "a column missing": (_events(lambda rows: [row[:3] for row in rows]), "value"),
    "duplicate stay id": (_stays(_set(2, 0, "s0")), "stay_id"),
    "a stay without an id": (_stays(_set(2, 0, "")), "stay_id"),
    "label column missing": (_stays(lambda rows: [[*row[:3], row[4]] for row in rows]), "died"),
    "a label that is text": (_stays(_set(2, 3, "perhaps")), "died"),
    "one class only": (_stays(lambda rows: [rows[0], *[[*r[:3], "0", r[4]] for r in rows[1:]]]), "died"),
    "an all-missing variable": (_events(lambda rows: [row for row in rows if row[2] != "Lactate"]), "Lactate"),
    "a subject in train and held-out": (_stays(_set(1, 4, "held_out")), "split"),
    "an unknown split": (_stays(_set(1, 4, "test")), "split"),
    "events of an unlisted stay": (_events(_set(3, 0, "s999")), "stay"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_source_is_told_in_one_sentence_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    change, named = BROKEN[case]
    events, stays = change(*sound())
    if isinstance(events, list) and len(events) > 5 and len(events[5]) == 4:
        events[5][3] = SENTINEL
    job = job_of(tmp_path, events, stays)
    with pytest.raises(DataError, match=named) as caught:
        walk_until(job, "ingest")
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert SENTINEL not in sentence
    assert caught.value.exit_code == 11
    store = job.store
    assert [entry.kind for entry in store.entries() if entry.kind == "Cohort"] == []
    assert not list((store.root / "tmp").iterdir())


def test_the_same_source_unbroken_is_read_to_the_last_row(tmp_path: Path) -> None:
    """The control of the cases above; and what is not finite or not plausible is dropped and counted."""
    events, stays = sound()
    for row, value in ((1, "nan"), (3, "inf"), (5, "-5"), (7, "")):
        events[row][3] = value
    job = job_of(tmp_path, events, stays)
    made = walk_until(job, "ingest")
    report = job.only(made["ingest"], IngestReport, 1)
    assert report.rows_read == 80
    assert report.rows_used == 76
    assert sum(report.rows_dropped.values()) == 4
    assert report.stays == 40


def test_a_truncated_archive_is_told(tmp_path: Path) -> None:
    records = tmp_path / "set.tar.gz"
    with tarfile.open(records, "w:gz") as archive:
        for stay in range(200):
            data = f"Time,Parameter,Value\n00:00,RecordID,{stay}\n00:10,HR,{stay}\n".encode() * 20
            item = tarfile.TarInfo(f"{stay}.txt")
            item.size = len(data)
            archive.addfile(item, io.BytesIO(data))
    whole = records.read_bytes()
    records.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "outcomes.csv").write_text("RecordID,In-hospital_death\n" + "".join(f"{n},0\n" for n in range(200)))
    raw: dict[str, Any] = {
        "name": "bad",
        "workspace": "work",
        "source": {"kind": "physionet2012", "records": ["set.tar.gz"], "outcomes": ["outcomes.csv"]},
        "encode": {"raw": {"kind": "identity"}},
        "condense": {"c": {"kind": "centroids"}},
        "release": {"artefact": "c", "licence": "CC0-1.0"},
    }
    job = new_job(parse_config(raw, "test", tmp_path))
    with pytest.raises(DataError, match=r"set\.tar\.gz"):
        walk_until(job, "ingest")
    assert not list(job.store.entries())


@pytest.mark.parametrize(
    ("header", "outcomes", "told"),
    [
        ("no header", range(3), "1 text files do not begin with Time,Parameter,Value: 1.txt"),
        ("Time,Parameter,Value", range(30), "0 records have no row in the outcomes and 27 outcomes have no record"),
    ],
)
def test_file_and_figures_are_in_the_sites_own_log_and_not_in_what_leaves(
    tmp_path: Path, header: str, outcomes: range, told: str
) -> None:
    (tmp_path / "set").mkdir()
    for stay, first in enumerate(("Time,Parameter,Value", header, "Time,Parameter,Value")):
        (tmp_path / "set" / f"{stay}.txt").write_text(f"{first}\n00:00,RecordID,{stay}\n00:10,HR,80\n")
    (tmp_path / "outcomes.csv").write_text("RecordID,In-hospital_death\n" + "".join(f"{n},0\n" for n in outcomes))
    raw: dict[str, Any] = {
        "name": "bad",
        "workspace": "work",
        "source": {"kind": "physionet2012", "records": ["set"], "outcomes": ["outcomes.csv"]},
        "encode": {"raw": {"kind": "identity"}},
        "condense": {"c": {"kind": "centroids"}},
        "release": {"artefact": "c", "licence": "CC0-1.0"},
    }
    job = new_job(parse_config(raw, "test", tmp_path))
    with pytest.raises(DataError) as caught:  # its sentence is what the terminal shows
        walk_until(job, "ingest")
    assert told in str(caught.value)
    assert read_log(job.folder)[-1]["sentence"] == str(caught.value)
    for outside in (str(StageStopped(caught.value)), outward(str(caught.value))):
        assert ".txt" not in outside
        assert not any(figure in outside.removeprefix("exit code 11") for figure in "0123456789")
