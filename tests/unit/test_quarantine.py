"""Rows that failed: kept with reason and place where the mapping says so, for their owner alone, counts exact."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import ConfigError, DataError
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.kept import quarantine as module
from pipeline.ingest.kept.quarantine import Quarantine, quarantine_counts, write_quarantine
from pipeline.ingest.mapping.load import SourceMapping, parse_mapping
from pipeline.ingest.source_tables import SourceTables
from pipeline.ingest.sources.readers import read_source
from pipeline.ingest.withdrawn import Withdrawn

STAYS = """stay,person,begin,end,died
a,p,2020-01-01 00:00:00,2020-01-02 00:00:00,0
b,q,2020-01-05 00:00:00,2020-01-06 00:00:00,1
c,r,2020-01-09 00:00:00,2020-01-08 00:00:00,1
"""
EVENTS = """stay,time,code,value,unit
a,2020-01-01 01:00:00,hr,80,
a,2020-01-01 02:00:00,hr,fast,
a,2020-01-01 03:00:00,hr,999,
b,2020-01-05 01:00:00,hr,70,
b,05/01/2020,hr,71,
b,2020-01-05 03:00:00,hr,72,kPa
b,2020-01-05 04:00:00,hr,73
"""


def mapping(criticality: dict[str, str], **layout: Any) -> SourceMapping:
    rate = {"unit": "/min", "plausible": [10, 320], "scale": [30, 180], "normal": 80, "sources": ["hr"]}
    events = {"file": "events", "key": "stay", "time": "time", "code": "code", "value": "value", "unit": "unit"}
    raw = {
        "variables": {"HR": rate},
        "tasks": {"died": {"kind": "binary", "column": "died"}},
        "layout": {
            "stays": {"file": "stays", "stay": "stay", "subject": "person", "start": "begin", "end": "end"},
            "events": [events],
            "criticality": criticality,
            **layout,
        },
    }
    return parse_mapping(raw, "test", "test.toml", "0" * 64)


def read(folder: Path, source: SourceMapping, **options: Any) -> SourceTables:
    (folder / "stays.csv").write_text(STAYS)
    (folder / "events.csv").write_text(EVENTS)
    return read_source("tables", folder=folder, mapping=source, until_hours=12.0, **options)


ALL = dict.fromkeys(
    (
        "text instead of a number",
        "implausible",
        "unreadable time",
        "unit without a conversion",
        "malformed line",
        "ends before it starts",
    ),
    "quarantine",
)


def test_failing_rows_are_kept_with_reason_and_place(tmp_path: Path) -> None:
    tables = read(tmp_path, mapping(ALL))
    assert tables.quarantine is not None
    found = {row[0]: row[1:] for row in tables.quarantine.frame.iter_rows()}
    assert found == {
        "ends before it starts": ("stays", None, "c", None, None, None),
        "malformed line": ("events.csv", None, None, None, None, "b,2020-01-05 04:00:00,hr,73"),
        "text instead of a number": ("events.csv", 2, "a", "2020-01-01 02:00:00", "hr", "fast"),
        "implausible": ("events.csv", 3, "a", "2020-01-01 03:00:00", "hr", "999"),
        "unreadable time": ("events.csv", 5, "b", "05/01/2020", "hr", "71"),
        "unit without a conversion": ("events.csv", 6, "b", "2020-01-05 03:00:00", "hr", "72"),
    }
    assert dict(tables.quarantine.counts) == dict.fromkeys(ALL, 1)
    assert "fewer than 10 rows were quarantined: implausible" in tables.notes
    assert "fast" not in repr(tables) + repr(tables.quarantine)


def test_the_account_is_the_same_with_and_without_a_quarantine(tmp_path: Path) -> None:
    aside, plain = read(tmp_path, mapping(ALL)), read(tmp_path, mapping({}))
    assert plain.quarantine is None
    assert aside.rows_dropped == plain.rows_dropped
    reports = [
        build_cohort(tables, mapping({}), step_hours=1.0, n_steps=12, split=np.zeros(2, np.int8))[1]
        for tables in (aside, plain)
    ]
    assert reports[0].rows_dropped == reports[1].rows_dropped
    assert reports[0].rows_dropped["implausible"] == 1


@pytest.mark.parametrize("reason", sorted(ALL))
def test_stop_stops_without_a_value(tmp_path: Path, reason: str) -> None:
    with pytest.raises(DataError, match=f"{reason}.*says stop") as caught:
        read(tmp_path, mapping({reason: "stop"}))
    assert not any(value in str(caught.value) for value in ("fast", "999", "05/01/2020"))


def test_a_reason_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'odd' is no reason"):
        mapping({"odd": "stop"})
    with pytest.raises(ConfigError, match="implausible is one of drop, quarantine, stop"):
        mapping({"implausible": "keep"})


def test_the_copies_are_capped_and_the_rest_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.ingest.engine.parts.row_fates.MOST_KEPT", 2)
    quarantine = read(tmp_path, mapping(ALL)).quarantine
    assert quarantine is not None
    assert quarantine.frame.height == 2
    assert sum(quarantine.counts.values()) == 6


def test_a_row_of_a_table_with_a_column_per_variable_is_found(tmp_path: Path) -> None:
    wide = {"file": "events", "key": "stay", "time": "hour", "time_unit": "hours"}
    source = mapping({"text instead of a number": "quarantine"}, events=[wide])
    (tmp_path / "stays.csv").write_text(STAYS)
    (tmp_path / "events.csv").write_text("stay,hour,hr\na,1,80\na,2,quick\n")
    quarantine = read_source("tables", folder=tmp_path, mapping=source, until_hours=12.0).quarantine
    assert quarantine is not None
    assert quarantine.frame.row(0)[2:] == (2, "a", "2", "hr", "quick")


def test_files_are_their_owners_alone_and_of_the_last_reading(tmp_path: Path) -> None:
    quarantine = read(tmp_path, mapping(ALL)).quarantine
    write_quarantine(tmp_path / "work", "ward", quarantine)
    found = quarantine_counts(tmp_path / "work", "ward")
    assert found is not None
    path, counts, kept = found
    assert counts == dict.fromkeys(ALL, 1)
    assert kept == 6
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.with_name(module.COUNTS).stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
    write_quarantine(tmp_path / "work", "ward", quarantine)
    write_quarantine(tmp_path / "work", "ward", None)
    assert quarantine_counts(tmp_path / "work", "ward") is None
    assert not path.exists()


def test_nobody_who_withdrew_stays_in_quarantine(tmp_path: Path) -> None:
    nobody = Withdrawn(b"key")
    withdrawn = Withdrawn(b"key", frozenset({nobody.mark("p")}))
    quarantine = read(tmp_path, mapping(ALL), withdrawn=withdrawn).quarantine
    assert isinstance(quarantine, Quarantine)
    assert sorted(quarantine.frame["key"].to_list()) == ["b", "b", "c"]  # neither a's rows nor a line that may be a's
