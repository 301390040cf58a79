"""Stays: joins, derived columns, inclusion by reason, numbering; repeated and conflicting rows; faults of a layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.core.errors import ConfigError, DataError
from pipeline.ingest.mapping.load import SourceMapping, parse_mapping
from pipeline.ingest.source_tables import SourceTables
from pipeline.ingest.sources.readers import read_source

STAYS = """id,who,ward,in,out,born,sex,death
a,p1,A,2020-01-01 00:00,2020-01-03 00:00,1950-06-01,f,
b,p1,B,2020-02-01 00:00,2020-02-01 10:00,1950-06-01,f,2020-02-11 00:00
c,p2,A,2020-01-05 00:00,2020-01-04 00:00,1990-01-01,m,
d,p3,A,soon,2020-01-04 00:00,1990-01-01,m,
e,p4,A,2020-01-05 00:00,2020-01-09 00:00,2010-01-01,m,
f,p5,C,2020-01-05 00:00,,1980-01-01,x,
"""
LAYOUT: dict[str, Any] = {
    "stays": {
        "file": "stays", "stay": "id", "subject": "who", "start": "in", "end": "out", "unit": "ward", "site": "ward",
        "derived": {
            "age": {"kind": "age", "born": "born"},
            "female": {"kind": "codes", "column": "sex", "codes": {"f": 1, "m": 0}, "otherwise": -1},
            "hours": {"kind": "hours_between", "from": "in", "to": "out"},
            "days_to_death": {"kind": "days_between", "from": "in", "to": "death", "otherwise": -1},
            "died": {"kind": "present", "column": "death"},
            "ward_number": {"kind": "number", "column": "ward"},
        },
    },
    "events": [{"file": "events", "key": "id", "time": "at", "code": "what", "value": "much"}],
}  # fmt: skip


def mapping(layout: dict[str, Any], **more: Any) -> SourceMapping:
    raw = {
        "unknown_variables": "drop",
        "variables": {"HR": {"unit": "/min", "plausible": [10, 320], "scale": [30, 180], "normal": 80}},
        "tasks": {"died": {"kind": "binary", "column": "died"}},
        "layout": layout,
        **more,
    }
    return parse_mapping(raw, "test", "test.toml", "0" * 64)


def read(folder: Path, layout: dict[str, Any] | None = None, rows: str = "", **more: Any) -> SourceTables:
    (folder / "stays.csv").write_text(STAYS)
    every = "".join(f"{stay},2020-01-01 01:00,HR,80\n" for stay in "abcdef")
    (folder / "events.csv").write_text("id,at,what,much\n" + (rows or every))
    return read_source("tables", folder=folder, mapping=mapping(layout or LAYOUT, **more), until_hours=1e6)


def test_derived_columns_by_hand(tmp_path: Path) -> None:
    stays = read(tmp_path).stays
    assert stays["stay_id"].to_list() == ["a", "b", "e", "f"]
    assert stays["age"].to_list() == [70, 70, 10, 40]
    assert stays["female"].to_list() == [1, 1, 0, -1]
    assert stays["hours"].to_list() == [48, 10, 96, None]
    assert stays["days_to_death"].to_list() == [-1, 10, -1, -1]
    assert stays["died"].to_list() == [0, 1, 0, 0]
    assert stays["ward_number"].to_list() == [None] * 4
    assert stays["site"].to_list() == ["A", "B", "A", "C"]


@pytest.mark.parametrize(
    ("inclusion", "kept", "told"),
    [
        ({}, "abef", {"no readable start": 1, "ends before it starts": 1}),
        ({"age": [18, 120]}, "abf", {"age outside the inclusion": 1}),
        ({"hours": [24, 1000]}, "ae", {"length not included": 1, "length unknown": 1}),
        ({"hours": [48, 96]}, "ae", {}),
        ({"units": ["A"]}, "ae", {"another unit": 2}),
        ({"first_stay": True}, "aef", {"not the first stay": 1}),
        ({"hours": [1, 24], "first_stay": True}, "", {}),
    ],
)
def test_inclusion_is_counted_by_reason(
    inclusion: dict[str, Any], kept: str, told: dict[str, int], tmp_path: Path
) -> None:
    if not kept:  # the only short stay is not its subject's first
        with pytest.raises(DataError, match="no stay is left"):
            read(tmp_path, inclusion=inclusion)
        return
    tables = read(tmp_path, inclusion=inclusion)
    assert "".join(tables.stays["stay_id"].to_list()) == kept
    assert tables.rows_dropped["stay excluded"] == 6 - len(kept)
    for reason, stays in {"no readable start": 1, "ends before it starts": 1, **told}.items():
        assert f"{stays} stays excluded: {reason}" in tables.notes


def test_inclusion_asks_for_what_it_needs(tmp_path: Path) -> None:
    bare = {**LAYOUT, "stays": {"file": "stays", "stay": "id", "start": "in"}}
    with pytest.raises(DataError, match="inclusion by age needs"):
        read(tmp_path, bare, inclusion={"age": [1, 2]})
    with pytest.raises(DataError, match="inclusion by unit needs"):
        read(tmp_path, bare, inclusion={"units": ["A"]})


def joined(text: str, folder: Path) -> SourceTables:
    (folder / "people.csv").write_text(text)
    join = {"file": "people", "on": ["who"], "columns": {"weight": "kg"}}
    derived = {"kilos": {"kind": "number", "column": "weight"}}
    stays = {**LAYOUT["stays"], "join": [join], "derived": {**LAYOUT["stays"]["derived"], **derived}}
    return read(folder, {**LAYOUT, "stays": stays})


def test_joins_take_one_row_per_key(tmp_path: Path) -> None:
    assert joined("who,kg\np1,70\np5,80 kg\n", tmp_path).stays["kilos"].to_list() == [70, 70, None, 80]
    assert joined("who,kg\n", tmp_path).stays["kilos"].to_list() == [None] * 4
    with pytest.raises(DataError, match="people has 1 rows that repeat who"):
        joined("who,kg\np1,70\np1,71\n", tmp_path)
    with pytest.raises(DataError, match="lacks the column kg"):
        joined("who,lb\np1,70\n", tmp_path)


def test_rows_of_stays_are_numbered_within_a_subject_by_start(tmp_path: Path) -> None:
    stays = {"file": "stays", "stay": "(row)", "subject": "who", "start": "in", "start_shift_hours": -1}
    layout = {"stays": stays, "events": [{**LAYOUT["events"][0], "link": "subject", "key": "who"}]}
    (tmp_path / "stays.csv").write_text("who,in\np2,2020-01-02 00:00\np1,2020-02-01 00:00\np1,2020-01-01 00:00\n")
    (tmp_path / "events.csv").write_text("who,at,what,much\np1,2020-02-01 00:30,HR,80\np2,2020-01-01 22:59,HR,80\n")
    tables = read_source("tables", folder=tmp_path, mapping=mapping(layout), until_hours=48.0)
    assert tables.stays["stay_id"].to_list() == ["p1/1", "p1/2", "p2/1"]
    assert tables.events.rows() == [("p1/2", 1.5, "HR", 80.0)]
    assert dict(tables.rows_dropped) == {"outside every stay": 1}


REPEATED = """a,2020-01-01 01:00,HR,80
a,2020-01-01 01:00,HR,80
a,2020-01-01 01:00,HR,90
a,2020-01-01 01:00,HR,70
a,2020-01-01 02:00,HR,80
"""


@pytest.mark.parametrize(
    ("rule", "values", "dropped"),
    [
        ({"conflicts": "keep"}, [80, 90, 70, 80], {"duplicate row": 1}),
        ({"conflicts": "first"}, [80, 80], {"duplicate row": 1, "conflicting value": 2}),
        ({"conflicts": "last"}, [70, 80], {"duplicate row": 1, "conflicting value": 2}),
        ({"conflicts": "mean"}, [80, 80], {"duplicate row": 1, "conflicting value": 2}),
        ({"conflicts": "drop"}, [80], {"duplicate row": 1, "conflicting value": 3}),
        ({"drop_duplicates": False}, [80, 80, 90, 70, 80], {}),
    ],
)
def test_repeats_and_conflicts_by_rule(
    rule: dict[str, Any], values: list[float], dropped: dict[str, int], tmp_path: Path
) -> None:
    tables = read(tmp_path, {**LAYOUT, **rule}, REPEATED)
    assert tables.events["value"].to_list() == values
    assert dict(tables.rows_dropped) == dropped
    assert any("1 times a stay has several values" in note for note in tables.notes)


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        ({**LAYOUT, "events": []}, "layout.events is empty"),
        ({**LAYOUT, "timezone": "Mars/Olympus"}, "no IANA name"),
        ({**LAYOUT, "conflicts": "vote"}, "conflicts is one of keep, first, last, mean, drop"),
        ({**LAYOUT, "colour": 1}, "unknown key colour"),
        ({**LAYOUT, "stays": {}}, "events with dates need layout.stays.start"),
        ({"events": [{**LAYOUT["events"][0], "link": "subject"}]}, "layout.stays needs a file"),
        ({**LAYOUT, "events": [{**LAYOUT["events"][0], "link": "bed"}]}, "link is one of stay, subject"),
        ({**LAYOUT, "events": [{"file": "e", "key": "k", "time": "t", "unit": "u"}]}, "no column of units"),
        ({**LAYOUT, "stays": {**LAYOUT["stays"], "where": {"ward": "A"}}}, "a list of the texts to keep"),
        ({**LAYOUT, "stays": {"file": "s", "stay": "(row)"}}, "needs subject and start"),
        ({**LAYOUT, "stays": {**LAYOUT["stays"], "derived": {"x": {"kind": "magic"}}}}, "kind is one of number"),
    ],
)
def test_faults_of_a_layout_are_named(layout: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        mapping(layout)
    assert told in str(caught.value)
    assert "test.toml" in str(caught.value)


def test_a_mapping_without_a_layout_cannot_read_tables(tmp_path: Path) -> None:
    raw = {"variables": {"HR": {"unit": "/min", "plausible": [1, 2], "scale": [1, 2], "normal": 1}}}
    bare = parse_mapping(raw, "bare", "bare.toml", "0" * 64)
    with pytest.raises(ConfigError, match="bare has no"):
        read_source("tables", folder=tmp_path, mapping=bare)
    with pytest.raises(ConfigError, match="needs a mapping"):
        read_source("tables", folder=tmp_path)


def test_an_unknown_code_is_an_error_where_the_mapping_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 rows of 1 codes that mapping test does not know"):
        read(tmp_path, rows="a,2020-01-01 01:00,XY,80\n", unknown_variables="error")
    assert isinstance(read(tmp_path).stays, pl.DataFrame)
