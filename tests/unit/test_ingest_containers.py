"""Zip archives and workbooks as folders of tables: the same cohort as from the CSV files in them."""

from __future__ import annotations

import io
import sys
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pytest

from pipeline.core.errors import DataError, NotInstalled
from pipeline.core.types import Cohort, IngestReport
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.drafting.suggest import suggest
from pipeline.ingest.engine.event_tables import read_event_tables
from pipeline.ingest.mapping.load import load_mapping, parse_mapping
from pipeline.ingest.table_files import find_files
from tests.workbooks import XLS_LAB, Cell, ods, xlsb, xlsx

STAYS: Final = "stay,person,start,died\n" + "".join(f"{i},P{i},2024-03-0{i} 08:00,{i % 2}\n" for i in range(1, 5))
LAB: Final = "stay,time,code,value,unit\n" + "".join(
    f"{i},2024-03-0{i} {8 + h:02d}:15,{code},{value},{unit}\n"
    for i in range(1, 5)
    for h, (code, value, unit) in enumerate([("HR", 80 + i, "/min"), ("Glucose", 5.5, "mmol/L"), ("HR", "<30", "")])
)


def cells(text: str) -> list[list[Cell]]:
    """A CSV as a person types it into a sheet: what looks like a number or a time becomes one."""

    def typed(entry: str) -> Cell:
        for read in (float, datetime.fromisoformat):
            try:
                return read(entry)
            except ValueError:
                continue
        return entry or None

    return [[typed(entry) for entry in line.split(",")] for line in text.splitlines()]


def ingest(folder: Path, stays: str = "stays", lab: str = "lab", **keys: Any) -> tuple[Cohort, IngestReport]:
    wide = {"plausible": [1, 3000], "scale": [30, 400], "normal": 100}
    raw = {
        "variables": {"HR": {"unit": "/min", **wide}, "Glucose": {"unit": "mg/dL", **wide}},
        "unknown_variables": "drop",
        "tasks": {"died": {"kind": "binary", "column": "died"}},
        "layout": {
            "timezone": "UTC",
            "stays": {"file": stays, "stay": "stay", "subject": "person", "start": "start"},
            "events": [
                {"file": lab, "key": "stay", "time": "time", "code": "code", "value": "value", "unit": "unit", **keys}
            ],
        },
    }
    mapping = parse_mapping(raw, "t", "t.toml", "0" * 64)
    tables = read_event_tables(folder=folder, mapping=mapping, until_hours=6.0)
    return build_cohort(tables, mapping, step_hours=1.0, n_steps=6, split=np.zeros(tables.stays.height, np.int8))


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, IngestReport]:
    folder = tmp_path_factory.mktemp("truth")
    (folder / "stays.csv").write_text(STAYS)
    (folder / "lab.csv").write_text(LAB)
    return ingest(folder)


def same(made: tuple[Cohort, IngestReport], truth: tuple[Cohort, IngestReport]) -> None:
    assert np.array_equal(made[0].values, truth[0].values, equal_nan=True)
    assert made[0].stay_ids.tolist() == truth[0].stay_ids.tolist()
    assert made[1].rows_dropped == truth[1].rows_dropped == {"a limit (< or >) instead of a number": 4}
    assert made[1].notes == truth[1].notes


@pytest.mark.parametrize(
    ("encoding", "member", "name"),
    [
        ("utf-8", "lab.csv", "lab"),
        ("utf-8", "deep/Lab.CSV", "LAB.zip"),
        ("utf-16", "lab.txt", "lab.zip/lab"),
        ("cp1252", "deep/x/lab.csv", "lab.zip/deep/x/lab.csv"),
    ],
)
def test_a_table_in_an_archive(
    tmp_path: Path, truth: tuple[Cohort, IngestReport], encoding: str, member: str, name: str
) -> None:
    (tmp_path / "stays.csv").write_text(STAYS)
    with zipfile.ZipFile(tmp_path / "lab.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, LAB.encode(encoding))
        archive.writestr("__MACOSX/._lab.csv", b"\0")
        archive.writestr("readme.md", "about")
    same(ingest(tmp_path, lab=name, encoding=encoding.replace("utf-16", "utf-8")), truth)


def test_a_folder_with_the_name_of_an_archive_is_a_folder(tmp_path: Path, truth: tuple[Cohort, IngestReport]) -> None:
    (tmp_path / "export.zip").mkdir()
    (tmp_path / "export.zip" / "stays.csv").write_text(STAYS)
    (tmp_path / "export.zip" / "lab.csv").write_text(LAB)
    same(ingest(tmp_path, "export.zip/stays", "export.zip/lab"), truth)
    same(ingest(tmp_path / "export.zip"), truth)


def test_archives_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    (tmp_path / "stays.csv").write_text(STAYS)
    with zipfile.ZipFile(tmp_path / "lab.zip", "w") as archive:
        archive.writestr("a.csv", LAB)
        archive.writestr("b.csv", LAB)
    with pytest.raises(DataError, match=r'holds 2 tables \(a.csv, b.csv\); name one: file = "lab.zip/NAME"'):
        ingest(tmp_path)
    whole = (tmp_path / "lab.zip").read_bytes()
    (tmp_path / "lab.zip").write_bytes(whole.replace(b"2024-03-01", b"2025-03-01"))
    with pytest.raises(DataError, match="is damaged"):
        ingest(tmp_path, lab="lab.zip/a")
    (tmp_path / "lab.zip").write_bytes(whole[:-30])
    with pytest.raises(DataError, match="cannot be read as a zip archive"):
        ingest(tmp_path)
    (tmp_path / "lab.csv").write_text(LAB)
    with pytest.raises(DataError, match="is there 2 times"):
        ingest(tmp_path)


def test_workbooks_without_the_extra_ask_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xlsx(tmp_path / "lab.xlsx", {"lab": cells(LAB)})
    monkeypatch.setitem(sys.modules, "fastexcel", None)
    with pytest.raises(NotInstalled, match=r"lab.xlsx: an Excel workbook .* pip install 'decoct\[excel\]'"):
        find_files(tmp_path, "lab")
    (tmp_path / "lab.csv").write_text("stay\n")
    with pytest.raises(DataError, match=r"nothing known in its columns stay"):
        suggest(tmp_path)


def test_a_sheet_is_what_its_csv_is(tmp_path: Path, truth: tuple[Cohort, IngestReport]) -> None:
    """Ids, times, limits and units that Excel has typed, in two workbooks and in one."""
    pytest.importorskip("fastexcel")
    xlsx(tmp_path / "stays.xlsx", {"Sheet1": cells(STAYS), "Sheet2": []})
    xlsx(tmp_path / "lab.xlsm", {"Sheet1": [*cells(LAB)[:3], [None] * 5, *cells(LAB)[3:]]})
    same(ingest(tmp_path), truth)
    xlsx(tmp_path / "export.xlsx", {"Stays": cells(STAYS), "Lab 2024": cells(LAB)})
    for name in ("stays.xlsx", "lab.xlsm"):
        (tmp_path / name).unlink()
    same(ingest(tmp_path, "export.xlsx/stays", "export.xlsx/Lab 2024"), truth)
    draft = suggest(tmp_path)
    (tmp_path / "draft.toml").write_text(draft.toml)
    layout = load_mapping(str(tmp_path / "draft.toml")).layout
    assert layout is not None
    assert (layout.stays.file, layout.events[0].file) == ("export.xlsx/Stays", "export.xlsx/Lab 2024")
    with pytest.raises(DataError, match=r'2 tables \(Stays, Lab 2024\); name one: file = "export.xlsx/NAME"'):
        ingest(tmp_path, "export", "export")


def test_ids_that_excel_has_rounded_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("fastexcel")
    (tmp_path / "stays.csv").write_text(STAYS)
    rows = cells(LAB)
    rows[5][0] = 12345678901234567.0
    xlsx(tmp_path / "lab.xlsx", {"lab": rows})
    with pytest.raises(DataError, match="column stay holds whole numbers beyond 2\\^53, which Excel has rounded"):
        ingest(tmp_path)
    rows[5][0] = "12345678901234567"
    xlsx(tmp_path / "lab.xlsx", {"lab": rows})
    assert ingest(tmp_path)[1].rows_dropped["no such stay or subject"] == 1
    (tmp_path / "lab.xlsx").write_bytes(b"PK\x03\x04 no workbook")
    with pytest.raises(DataError, match="is no workbook that can be read"):
        ingest(tmp_path)


def test_old_binary_and_open_workbooks_are_what_their_csv_is(
    tmp_path: Path, truth: tuple[Cohort, IngestReport]
) -> None:
    pytest.importorskip("fastexcel")
    for write, name in ((ods, "lab.ods"), (xlsb, "LAB.xlsb"), (xlsx, "lab.xlsx")):
        folder = tmp_path / name.lower().replace(".", "_")
        folder.mkdir()
        write(folder / f"stays{Path(name).suffix}", {"Stays": cells(STAYS), "Empty": []})
        write(folder / name, {"Lab": [*cells(LAB)[:3], [None] * 5, *cells(LAB)[3:]]})
        same(ingest(folder), truth)
        same(ingest(folder, lab=f"{name}/lab"), truth)
        assert 'file = "' in suggest(folder).toml
    old = tmp_path / "old"
    old.mkdir()
    (old / "stays.csv").write_text(STAYS)
    (old / "lab.xls").write_bytes(XLS_LAB)
    same(ingest(old), truth)


@pytest.mark.parametrize("suffix", ["xls", "xlsb", "ods"])
@pytest.mark.parametrize("content", [LAB.encode(), XLS_LAB[:3000], b"PK\x03\x04 no workbook", b""])
def test_what_only_has_the_name_of_a_workbook_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    pytest.importorskip("fastexcel")
    (tmp_path / "stays.csv").write_text(STAYS)
    (tmp_path / f"lab.{suffix}").write_bytes(content)
    with pytest.raises(DataError, match=f"lab.{suffix} is no workbook that can be read"):
        ingest(tmp_path)


def test_parquet_in_an_archive_is_read(tmp_path: Path, truth: tuple[Cohort, IngestReport]) -> None:
    (tmp_path / "stays.csv").write_text(STAYS)
    frame = pl.read_csv(LAB.encode(), infer_schema=False)
    packed = [io.BytesIO(), io.BytesIO()]
    for shard, rows in zip(packed, (frame[:5], frame[5:]), strict=True):
        rows.write_parquet(shard)
    with zipfile.ZipFile(tmp_path / "lab.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        frame.write_parquet(tmp_path / "whole")
        archive.write(tmp_path / "whole", "deep/lab.parquet")
    (tmp_path / "whole").unlink()
    same(ingest(tmp_path), truth)
    same(ingest(tmp_path, lab="lab.zip/deep/lab"), truth)
    assert 'file = "lab.zip/deep/lab"' in suggest(tmp_path).toml
    whole = packed[0].getvalue()
    with zipfile.ZipFile(tmp_path / "lab.zip", "w") as archive:
        archive.writestr("lab.parquet", whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"lab.zip/lab.parquet cannot be read as parquet: it is damaged"):
        ingest(tmp_path)
