"""Text as it is exported: encodings, delimiters, headers, codes that look like nothing; and files nobody named."""

from __future__ import annotations

import contextlib
import gzip
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError, DataError
from pipeline.ingest.engine.batches import Tally, batches, header
from pipeline.ingest.engine.event_tables import read_event_tables
from pipeline.ingest.mapping.load import parse_mapping
from pipeline.ingest.source_tables import SourceTables
from pipeline.ingest.table_files import find_files, partitions, unread_note

ROWS = (
    "stay,hour,code,value,unit,note\n"
    '1,0,hr,61,/min,x\n1,1,NA,140,mmol/L,"a, b\nc"\n2,0,hr,NA,/min,\n2,1,crea,90,\u00b5mol/L,y\n'
)


def read(folder: Path, **layout: Any) -> SourceTables:
    if not list(folder.glob("stays.*")):
        (folder / "stays.csv").write_text("stay,died\n1,0\n2,1\n")
    events = {"file": "lab", "key": "stay", "time": "hour", "time_unit": "hours", "code": "code", "value": "value"}
    variable = {"plausible": [0, 300], "scale": [0, 200], "normal": 80}
    raw = {
        "variables": {
            "HR": {"unit": "/min", "sources": ["hr"], **variable},
            "Na": {"unit": "mmol/L", "sources": ["NA"], **variable},
            "Creatinine": {"unit": "mg/dL", "sources": ["crea"], **variable},
        },
        "tasks": {"died": {"kind": "binary", "column": "died"}},
        "layout": {
            "stays": {"file": "stays", "stay": "stay"},
            "events": [{**events, "unit": "unit", **layout.pop("events", {})}],
            **layout,
        },
    }
    return read_event_tables(folder=folder, mapping=parse_mapping(raw, "t", "t.toml", "0" * 64))


def values(tables: SourceTables) -> list[tuple[str, float]]:
    return [(name, round(value, 2)) for name, value in tables.events.select("variable", "value").iter_rows()]


TRUTH = [("hr", 61.0), ("NA", 140.0), ("crea", 1.02)]


@pytest.mark.parametrize("name", ["lab.csv", "LAB.CSV.gz", "lab.txt"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252", "latin-1"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_one_table_in_every_dress(tmp_path: Path, name: str, encoding: str, delimiter: str) -> None:
    text = ROWS.replace(",", delimiter).replace(f"a{delimiter} b", "a, b")
    data = text.encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    (tmp_path / "stays.csv").write_bytes("stay,died\n1,0\n2,1\n".encode(encoding))
    said = {} if encoding in ("utf-8", "utf-8-sig", "utf-16") else {"encoding": encoding}
    tables = read(tmp_path, **said)
    assert values(tables) == TRUTH
    assert dict(tables.rows_dropped) == {"value missing": 1}


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_another_encoding_is_asked_for_and_a_wrong_one_is_told(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "lab.csv").write_bytes(ROWS.encode(encoding))
    with pytest.raises(DataError, match=r'lab\.csv is no UTF-8 text; say what it is: layout\.encoding = "cp1252"'):
        read(tmp_path)
    (tmp_path / "lab.csv").write_bytes(b"stay,hour,code,value,unit,note\n1,0,hr,61,/min,\x81\n")
    with pytest.raises(DataError, match="is not cp1252 text"):
        read(tmp_path, encoding="cp1252")
    with pytest.raises(ConfigError, match="encoding is no encoding such as"):
        read(tmp_path, encoding="klingon")


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=400), st.integers(0, 3))
def test_no_bytes_reach_the_parser_that_are_no_utf8(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int
) -> None:
    """Malformed lines of other encodings end in a sentence or are counted; nothing crashes, nothing else escapes."""
    path = tmp_path_factory.mktemp("junk") / "lab.csv"
    lines = [b"a,b", b"1,2", b"3,4", b"5,6"]
    path.write_bytes(b"\n".join([*lines[: at + 1], junk, *lines[at + 1 :]]))
    with contextlib.suppress(DataError):
        assert all(frame.columns == ["a", "b"] for frame in batches(path, ("a", "b"), Tally(keep=10)))


def test_headers_that_hold_delimiters_line_ends_and_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('"";a;"b, as\nreported"; c \n0;1;2;3\n')
    assert header(path) == ["", "a", "b, as\nreported", "c"]
    frame = pl.concat(batches(path, ("a", "b, as\nreported", "C"), Tally()))
    assert frame.rows() == [("1", "2", "3")]
    with pytest.raises(DataError, match=r"lacks the column aa; did you mean a\?"):
        list(batches(path, ("aa",), Tally()))


def test_columns_in_the_names_of_folders(tmp_path: Path) -> None:
    for code, value in (("hr", 61.0), ("NA", 140.0)):
        folder = tmp_path / "lab" / f"code={code}"
        folder.mkdir(parents=True)
        pl.DataFrame({"stay": ["1"], "hour": [0.0], "value": [value], "unit": [None]}).write_parquet(
            folder / "0.parquet"
        )
    assert values(read(tmp_path)) == [("NA", 140.0), ("hr", 61.0)]
    assert partitions(Path("a/site=A%20B/x.csv")) == {"site": "A B"}


def test_a_table_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    for name in ("lab.csv", "lab.parquet"):
        (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=r"the table lab is there 2 times \(lab\.csv, lab\.parquet\); leave one"):
        find_files(tmp_path, "lab")
    assert find_files(tmp_path, "lab.csv") == [tmp_path / "lab.csv"]
    (tmp_path / "lab.parquet").unlink()
    (tmp_path / "lab").mkdir()
    with pytest.raises(DataError, match="is there 2 times"):
        find_files(tmp_path, "lab")


@pytest.mark.parametrize(
    ("name", "why"), [("lab.dta", "Stata files"), ("LAB.7z", "such archives"), ("lab.json", "JSON")]
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=f"{name} lies there, but {why}"):
        find_files(tmp_path, "lab")


def test_files_that_no_layout_names_are_told(tmp_path: Path) -> None:
    (tmp_path / "lab.csv").write_text(ROWS, encoding="utf-8")
    elsewhere = tmp_path.parent / f"{tmp_path.name}-linked"
    elsewhere.mkdir()
    (elsewhere / "old.csv").write_text("x")
    (tmp_path / "more").symlink_to(elsewhere)
    (tmp_path / "more" / "loop").symlink_to(elsewhere)
    (tmp_path / "plan.xlsx").write_text("x")
    (tmp_path / ".hidden").write_text("x")
    assert "2 files of the folder were not read: more/old.csv, plan.xlsx" in read(tmp_path).notes
    assert (
        unread_note(tmp_path, [tmp_path / name for name in ("lab.csv", "stays.csv", "plan.xlsx", "more/old.csv")]) == ()
    )
    assert find_files(tmp_path, "more") == [tmp_path / "more" / "old.csv"]
