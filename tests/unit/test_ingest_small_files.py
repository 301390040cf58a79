"""Many small files read as one text give what each gives by itself: rows, account, notes, errors."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import DataError
from pipeline.ingest.engine.event_tables import read_event_tables
from pipeline.ingest.engine.together import small_files
from pipeline.ingest.engine.together.small_files import grouped
from pipeline.ingest.mapping.load import load_mapping, parse_mapping
from pipeline.ingest.source_tables import SourceTables

HEADER = "HR|Temp|O2Sat|Age|Gender|ICULOS|SepsisLabel"


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four files are many here."""
    monkeypatch.setattr(small_files, "_FEWEST", 4)


def write(folder: Path, n_files: int = 6) -> Path:
    rng = random.Random(7)
    for stay in range(n_files):
        rows = [f"{rng.choice(['NaN', '80', '', '9e3', 'odd'])}|{rng.uniform(30, 50):.1f}|98|61|{stay % 2}|{hour}|0"
                for hour in range(1, rng.randint(2, 6))]  # fmt: skip
        (folder / f"p{stay:06d}.psv").write_text("\n".join([HEADER, *rows]) + rng.choice(["", "\n"]))
    return folder


def read(folder: Path, **more: Any) -> SourceTables:
    return read_event_tables(folder=folder, mapping=load_mapping("physionet2019"), until_hours=48.0, **more)


def same(one: SourceTables, other: SourceTables) -> bool:
    order = ["stay_id", "variable", "hours", "value"]
    assert one.events.sort(order).equals(other.events.sort(order))
    assert one.stays.equals(other.stays)
    assert (one.rows_read, one.rows_dropped, one.dropped_by_variable) == (
        other.rows_read, other.rows_dropped, other.dropped_by_variable
    )  # fmt: skip
    whole, each = one.tables[0], other.tables[0]  # of few files the latter has rows of their own
    assert (whole.rows, whole.used, whole.file) == (each.rows, each.used, each.file)
    assert [(use.code, use.rows, use.verdict) for use in one.units] == [
        (u.code, u.rows, u.verdict) for u in other.units
    ]
    return one.notes == other.notes


def by_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> SourceTables:
    monkeypatch.setattr(small_files, "_FEWEST", 1 << 30)
    return read(folder)


def test_together_and_each_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    seen: list[tuple[int, int]] = []
    together = read(tmp_path, on_step=lambda done, of, rate: seen.append((done, of)))
    assert seen == [(6, 6)]
    assert together.rows_dropped["text instead of a number"] > 0
    assert same(together, by_itself(tmp_path, monkeypatch))


@pytest.mark.parametrize(
    "spoilt",
    [HEADER + '\n80|37|98|61|"1"|1|0\n', HEADER.replace("HR|Temp", "Temp|HR") + "\n37|80|98|61|1|1|0\n",
     HEADER + "\n\n80|37|98|61|1|1|0\n", HEADER + "\r\n80|37|98|61|1|1|0\r\n", HEADER + "\n80|37\u00b0|98|61|1|1|0\n",
     HEADER + "\n80|37|98|61|1|1|0\n80|37|98|61|1|2\n", HEADER + "\n"],
)  # fmt: skip
def test_a_file_that_is_not_plain_is_read_as_it_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    (write(tmp_path) / "p000003.psv").write_bytes(spoilt.encode())
    assert same(read(tmp_path), by_itself(tmp_path, monkeypatch))


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [(b"", "is an empty file"), (HEADER.encode() + b"\n80|37\n80|37\n", "2 of 2 lines"), (b"HR\n80\n", "lacks the col"),
     ((HEADER + "\n\u00b5|37|98|61|1|1|0\n").encode("cp1252"), "is no UTF-8 text")],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, spoilt: bytes, words: str) -> None:
    (write(tmp_path) / "p000003.psv").write_bytes(spoilt)
    with pytest.raises(DataError, match=rf"p000003\.psv.*{words}"):
        read(tmp_path)


def test_groups_do_not_shift_where_a_file_is_added(tmp_path: Path) -> None:
    paths = sorted(write(tmp_path, 1500).glob("*.psv"))
    groups = grouped(paths, apart=False)
    assert [path for group in groups for path in group] == paths
    fewer = grouped([path for path in paths if path.stem != "p000003"], apart=False)
    assert len(set(groups) - set(fewer)) == 1
    assert {len(group) for group in grouped(paths, apart=True)} == {1}


def test_codes_of_many_small_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stay in range(5):
        lines = ["stay,time,code,value,unit", f"s{stay},1,NA,140,mmol/L", f"s{stay},2,NA,141,", f"x{stay},2,NA,141,"]
        (tmp_path / "lab").mkdir(exist_ok=True)
        (tmp_path / "lab" / f"{stay}.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "stays.csv").write_text("stay,d\n" + "".join(f"s{stay},{stay % 2}\n" for stay in range(5)))
    events = {"file": "lab", "key": "stay", "time": "time", "time_unit": "hours", "code": "code", "value": "value"}
    sodium = {"unit": "mmol/L", "plausible": [90, 200], "scale": [115, 165], "normal": 140, "sources": ["NA"]}
    layout = {"stays": {"file": "stays", "stay": "stay"}, "events": [{**events, "unit": "unit"}]}
    raw = {"variables": {"Na": sodium}, "tasks": {"d": {"kind": "binary", "column": "d"}}, "layout": layout}
    mapping = parse_mapping(raw, "t", "t.toml", "0" * 64)
    one = read_event_tables(folder=tmp_path, mapping=mapping)
    assert one.rows_dropped == {"no such stay or subject": 5}
    monkeypatch.setattr(small_files, "_FEWEST", 1 << 30)
    assert same(one, read_event_tables(folder=tmp_path, mapping=mapping))
