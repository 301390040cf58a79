"""Whose a row is, exactly; and an account of every table, also where nothing is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.types import IngestReport
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.engine.coded import id_text, loose_ids
from pipeline.ingest.engine.event_tables import read_event_tables
from pipeline.ingest.mapping.load import SourceMapping, parse_mapping
from pipeline.ingest.source_tables import SourceTables, as_text_ids

HINT = "name one whose id differs only by zeros in front, `.0` behind, case, blanks, marks or Unicode form"


def mapping(**more: Any) -> SourceMapping:
    events = {"file": "lab", "key": "stay", "time": "hour", "time_unit": "hours", "code": "code", "value": "value"}
    raw = {
        "variables": {"x": {"unit": "u", "plausible": [0, 9], "scale": [0, 9], "normal": 1}},
        "unknown_variables": "drop",
        "tasks": {"died": {"kind": "binary", "column": "died"}},
        "layout": {
            "stays": {"file": "stays", "stay": "stay", **more.pop("stays", {})},
            "events": [{**events, **more.pop("events", {})}],
        },
        **more,
    }
    return parse_mapping(raw, "t", "t.toml", "0" * 64)


def read(folder: Path, ids: list[Any], keys: list[Any], **more: Any) -> SourceTables:
    pl.DataFrame({"stay": ids, "died": [i % 2 for i in range(len(ids))]}).write_parquet(folder / "stays.parquet")
    rows = {"stay": keys, "hour": more.pop("hours", [0.0] * len(keys)), "code": ["x"] * len(keys)}
    pl.DataFrame({**rows, "value": more.pop("values", [1.0] * len(keys))}).write_parquet(folder / "lab.parquet")
    return read_event_tables(folder=folder, mapping=mapping(**more), until_hours=4.0)


def report(tables: SourceTables, source: SourceMapping | None = None) -> IngestReport:
    split = np.zeros(tables.stays.height, np.int8)
    return build_cohort(tables, source or mapping(), step_hours=1.0, n_steps=4, split=split)[1]


def test_floats_that_stand_for_several_ids_are_refused(tmp_path: Path) -> None:
    large = 2**53
    with pytest.raises(DataError, match=r"lab: 1 rows of column stay hold ids as floating point numbers beyond 2\^53"):
        read(tmp_path, [large, 7], [float(large + 2), 7.0])
    with pytest.raises(DataError, match=r"column stay hold ids as floating point numbers beyond 2\^53"):
        read(tmp_path, [float(large + 2), 7.0], [7])
    assert read(tmp_path, [large - 1, 7], [float(large - 1), 7.0]).events["stay_id"].to_list() == [str(large - 1), "7"]


def test_one_id_in_two_unicode_forms(tmp_path: Path) -> None:
    assert read(tmp_path, ["\u00c4", "b"], ["A\u0308", "b"]).events["stay_id"].to_list() == ["\u00c4", "b"]


@pytest.mark.parametrize("key", ["7", "07", "7.0", "0007.0", " 007 ", "\uff10\uff10\uff17"])
def test_ids_that_differ_in_form_are_told(tmp_path: Path, key: str) -> None:
    tables = read(tmp_path, ["007", "8"], ["8", "8", key, "9"])
    met = 3 if key.strip() == "007" else 2
    assert tables.n_events + tables.rows_dropped.get("duplicate row", 0) == met
    told = f"{4 - met - 1} rows with no such stay or subject {HINT}"
    assert (told in tables.notes) == (met == 2)


@given(st.text(max_size=8))
def test_ids_stay_themselves_but_for_unicode_form(text: str) -> None:
    series = pl.Series("id", [text], dtype=pl.String)
    assert loose_ids(id_text(series, "x")).to_list() == loose_ids(series).to_list()
    if text.strip():
        assert id_text(as_text_ids(series, "x"), "x").to_list() == id_text(series, "x").to_list()


def test_a_join_meets_ids_of_another_type_and_tells_where_it_meets_nobody(tmp_path: Path) -> None:
    join = {"file": "labels", "on": ["stay"], "columns": {"late": "late"}}
    pl.DataFrame({"stay": [1.0, 2.0], "late": [1, 0]}).write_parquet(tmp_path / "labels.parquet")
    tables = read(tmp_path, [1, 2], [1], stays={"join": [join]}, tasks={"l": {"kind": "binary", "column": "late"}})
    assert tables.stays["late"].to_list() == [1, 0]
    pl.DataFrame({"stay": ["01", "02"], "late": [1, 0]}).write_parquet(tmp_path / "labels.parquet")
    tables = read(tmp_path, [1, 2], [1], stays={"join": [join]}, tasks={"l": {"kind": "binary", "column": "late"}})
    assert "none of 2 rows of labels belongs to a stay by stay" in tables.notes
    with pytest.raises(DataError, match="first task, l, has 0 of 2 classes"):
        report(tables, mapping(tasks={"l": {"kind": "binary", "column": "late"}}))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"keys": ["a1", "a2"]}, "2 no such stay or subject"),
        ({"keys": ["1.0", "2.0"]}, rf"2 no such stay or subject \(2 of them {HINT}\)"),
        ({"keys": ["1", "2"], "values": ["high", "low"]}, "2 text instead of a number"),
        ({"keys": ["1", "2"], "hours": ["noon", "later"]}, "2 unreadable time"),
    ],
)
def test_a_table_that_nothing_can_be_used_of_stops_the_reading(tmp_path: Path, more: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match=rf"table lab: 2 of 2 rows with a meaning cannot be used: {why}; correct"):
        read(tmp_path, ["1", "2"], **more)
    assert any(why.split(" (")[0].replace("\\", "")[:10] in note for note in read(
        tmp_path, ["1", "2"], events={"optional": True}, **more
    ).notes)  # fmt: skip


def test_a_table_that_lost_half_by_faults_is_told_and_late_rows_are_no_fault(tmp_path: Path) -> None:
    tables = read(tmp_path, ["1", "2"], ["1", "9", "9", "9"])
    assert "table lab: 3 of 4 rows with a meaning cannot be used: 3 no such stay or subject" in tables.notes
    late = read(tmp_path, ["1", "2"], ["1", "2", "1", "2"], hours=[0.0, 50.0, 60.0, 70.0])
    assert not any(note.startswith("table lab") for note in late.notes)


def test_the_account_has_every_table_and_file(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    pl.DataFrame({"stay": ["1", "2"], "died": [0, 1]}).write_parquet(tmp_path / "stays.parquet")
    for name, keys in (("a", ["1", "1", "9"]), ("b", ["2"])):
        rows = {"stay": keys, "hour": [float(i) for i in range(len(keys))], "code": ["x"] * len(keys)}
        pl.DataFrame({**rows, "value": [1.0] * len(keys)}).write_parquet(tmp_path / "lab" / f"{name}.parquet")
    tables = read_event_tables(folder=tmp_path, mapping=mapping(), until_hours=4.0)
    lost = {"no such stay or subject": 1}
    assert [(use.file, use.rows, use.used, dict(use.dropped)) for use in report(tables).tables] == [
        ("2 files", 4, 3, lost),
        ("a.parquet", 3, 2, lost),
        ("b.parquet", 1, 1, {}),
    ]


def test_a_variable_without_any_value_says_where_its_rows_went(tmp_path: Path) -> None:
    tables = read(tmp_path, ["1", "2"], ["1", "2"], hours=[50.0, 60.0])
    with pytest.raises(DataError, match=r"x has no usable value .* \(of x were dropped 2 outside the window\)"):
        report(tables)


def test_a_task_without_any_label_is_refused(tmp_path: Path) -> None:
    tasks = {
        "died": {"kind": "binary", "column": "died"},
        "late": {"kind": "event", "variables": ["x"], "op": ">", "threshold": 5, "after_hours": 4, "to_hours": 8},
    }
    tables = read(tmp_path, ["1", "2"], ["1", "2"], tasks=tasks)
    with pytest.raises(DataError, match="late has no label in any of 2 stays"):
        report(tables, mapping(tasks=tasks))


def test_a_code_without_a_value_counts_as_one(tmp_path: Path) -> None:
    (tmp_path / "stays.csv").write_text("stay,died\n1,0\n2,1\n")
    (tmp_path / "lab.csv").write_text("stay,hour,code\n1,0,x\n1,2,x\n2,1,y\n")
    raw = {
        "variables": {"x": {"unit": "0 or 1", "plausible": [0, 1], "scale": [0, 1], "normal": 0, "aggregation": "max"}},
        "unknown_variables": "drop",
        "tasks": {"died": {"kind": "binary", "column": "died"}},
    }
    events = {"file": "lab", "key": "stay", "time": "hour", "time_unit": "hours", "code": "code"}

    def layout(**more: Any) -> SourceMapping:
        stays = {"file": "stays", "stay": "stay"}
        table = {"layout": {"stays": stays, "events": [{**events, **more}]}}
        return parse_mapping({**raw, **table}, "t", "t.toml", "0" * 64)

    tables = read_event_tables(folder=tmp_path, mapping=layout(presence=True), until_hours=4.0)
    assert tables.events.select("hours", "value").rows() == [(0.0, 1.0), (2.0, 1.0)]
    for more, why in (({}, "presence = true"), ({"presence": True, "value": "v"}, "with neither value nor unit")):
        with pytest.raises(ConfigError, match=why):
            layout(**more)
