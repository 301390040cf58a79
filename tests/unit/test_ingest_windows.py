"""An event belongs to every window that it lies in, and to nothing after the end of a stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.task_labels import latest_hour
from pipeline.ingest.engine.event_stays import BETWEEN, FOUND, UNKNOWN, StayKeys
from pipeline.ingest.engine.event_tables import read_event_tables
from pipeline.ingest.engine.instants import MICROSECONDS_PER_HOUR
from pipeline.ingest.engine.stay_table import END, EXCLUDED, KEY
from pipeline.ingest.mapping.load import SourceMapping, load_mapping, parse_mapping
from pipeline.ingest.splits import START


def mapping(link: str = "subject", **more: Any) -> SourceMapping:
    events = {"file": "events", "link": link, "key": link, "time": "time", "code": "code", "value": "value"}
    raw = {
        "variables": {"HR": {"unit": "/min", "plausible": [0, 300], "scale": [0, 200], "normal": 80}},
        "tasks": {"died": {"kind": "binary", "column": "died"}},
        "layout": {
            "stays": {"file": "stays", "stay": "stay", "subject": "subject", "start": "start", "end": "end"},
            "events": [{**events, **more.pop("events", {})}],
        },
        **more,
    }
    return parse_mapping(raw, "test", "test.toml", "0" * 64)


def grid(folder: Path, stays: str, events: str, source: SourceMapping, n_steps: int = 4) -> tuple[Any, Any]:
    (folder / "stays.csv").write_text("stay,subject,start,end,died\n" + stays)
    (folder / "events.csv").write_text("stay,subject,time,code,value\n" + events)
    tables = read_event_tables(folder=folder, mapping=source, until_hours=latest_hour(source, float(n_steps)))
    split = np.zeros(tables.stays.height, np.int8)
    return build_cohort(tables, source, step_hours=1.0, n_steps=n_steps, split=split)


def test_overlapping_nested_equal_and_touching_windows(tmp_path: Path) -> None:
    stays = (
        "A,p,2024-01-01 08:00,,0\n"  # no end: the window is the input
        "B,p,2024-01-01 10:00,2024-01-01 11:00,1\n"  # nested in it
        "C,q,2024-01-01 08:00,2024-01-01 10:00,0\n"
        "D,q,2024-01-01 08:00,2024-01-01 10:00,1\n"  # equal
        "E,q,2024-01-01 10:00,2024-01-01 12:00,1\n"  # begins where they end
    )
    events = (
        "A,p,2024-01-01 09:30,HR,61\nA,p,2024-01-01 10:30,HR,62\nA,p,2024-01-01 11:30,HR,63\n"
        "A,p,2024-01-01 12:00,HR,64\nC,q,2024-01-01 09:00,HR,71\nC,q,2024-01-01 10:00,HR,72\n"
        "C,q,2024-01-01 12:00,HR,73\n"
    )
    cohort, report = grid(tmp_path, stays, events, mapping())
    nan = np.nan
    np.testing.assert_array_equal(
        cohort.values[:, :, 0],
        [[nan, 61, 62, 63], [62, nan, nan, nan], [nan, 71, nan, nan], [nan, 71, nan, nan], [72, nan, nan, nan]],
    )
    assert dict(report.rows_dropped) == {"outside every stay": 1, "outside the window": 1}
    assert "2 rows were read again for another stay, since they lie in the windows of several" in report.notes
    assert report.rows_read == 7 + 2


def test_the_end_binds_rows_linked_by_stay(tmp_path: Path) -> None:
    stays = "A,p,2024-01-01 08:00,2024-01-01 10:00,0\nB,q,2024-01-01 08:00,,1\n"
    times = ("09:59", "10:00", "11:00", "13:00")
    events = "".join(f"{stay},x,2024-01-01 {time},HR,60\n" for stay in "AB" for time in times)
    cohort, report = grid(tmp_path, stays, events, mapping("stay"))
    assert cohort.observed[:, :, 0].tolist() == [[False, True, False, False], [False, True, True, True]]
    assert dict(report.rows_dropped) == {"after the end of the stay": 2, "outside the window": 2}


def test_the_end_binds_hours_since_the_start(tmp_path: Path) -> None:
    stays = "A,p,2024-01-01 08:00,2024-01-01 10:00,0\nB,q,2024-01-01 08:00,,1\n"
    events = "".join(f"{stay},x,{hour},HR,60\n" for stay in "AB" for hour in (1.5, 2.0, 3.5))
    cohort, _ = grid(tmp_path, stays, events, mapping("stay", events={"time_unit": "hours"}))
    assert cohort.observed[:, :, 0].tolist() == [[False, True, False, False], [False, True, True, True]]


def test_a_window_is_half_open_unless_the_mapping_says_so_itself() -> None:
    assert not mapping().closed_window
    assert load_mapping("physionet2012").closed_window
    assert load_mapping("physionet2012_24h").closed_window
    assert not load_mapping("omop").closed_window  # its base's choice is the base's own
    with pytest.raises(ConfigError, match="window is one of half_open, closed"):
        mapping(window="open")


stay_lists = st.lists(
    st.tuples(st.sampled_from("pq"), st.integers(0, 20), st.none() | st.integers(0, 12)), min_size=1, max_size=7
)


@settings(max_examples=300, deadline=None)
@given(stay_lists, st.lists(st.tuples(st.sampled_from("pqx"), st.integers(-2, 40)), max_size=12), st.integers(1, 15))
def test_windows_against_a_loop(
    stays: list[tuple[str, int, int | None]], events: list[tuple[str, int]], until: int
) -> None:
    hour = MICROSECONDS_PER_HOUR
    frame = pl.DataFrame(
        {
            "stay_id": [str(i) for i in range(len(stays))],
            KEY: [who for who, _, _ in stays],
            START: [start * hour for _, start, _ in stays],
            END: [None if length is None else (start + length) * hour for _, start, length in stays],
            EXCLUDED: [None] * len(stays),
        },
        schema_overrides={END: pl.Int64, EXCLUDED: pl.String},
    )
    keys = StayKeys.of(frame, until - 0.5)
    texts = pl.Series(["p", "q", "x"])
    codes = np.array(["pqx".index(who) for who, _ in events], np.int32)
    row, stay, why = keys.windows(texts, codes, np.array([at * hour for _, at in events], np.int64))
    for index, (who, at) in enumerate(events):
        covering = [
            i
            for i, (owner, start, length) in enumerate(stays)
            if owner == who and start <= at < min(start + until, start + until if length is None else start + length)
        ]
        found, reasons = stay[row == index].tolist(), set(why[row == index].tolist())
        if covering:
            assert (found, reasons) == (covering, {FOUND})
        elif who not in {owner for owner, _, _ in stays}:
            assert (found, reasons) == ([-1], {UNKNOWN})
        else:  # beyond what is asked for, or in no stay
            assert len(found) == 1
            assert (reasons == {BETWEEN}) == (found == [-1])
