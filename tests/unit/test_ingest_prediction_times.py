"""Many predictions in a stay: each cell and label against a loop that knows nothing of the code under test."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.types import Cohort, IngestReport
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.task_labels import latest_hour
from pipeline.ingest.engine import event_tables
from pipeline.ingest.engine.event_tables import read_event_tables
from pipeline.ingest.kept.pieces import Pieces
from pipeline.ingest.kept.watermarks import Watermarks
from pipeline.ingest.mapping.load import SourceMapping, parse_mapping
from pipeline.ingest.sources.embedded import read_embedded

NAN = math.nan
RANGES = {"plausible": [0, 300], "scale": [0, 200], "normal": 80}


def mapping(times: dict[str, Any], **more: Any) -> SourceMapping:
    layout = {
        "stays": {"file": "stays", "stay": "stay", "subject": "subject", "start": "start", "end": "end"},
        "events": [
            {
                "file": "events",
                "key": "stay",
                "time": "time",
                "code": "code",
                "value": "value",
                **more.pop("events", {}),
            }
        ],
    }
    raw = {
        "variables": {"HR": {"unit": "/min", **RANGES}},
        "label_variables": {"septic": {"unit": "1", "plausible": [0, 1], "scale": [0, 1], "normal": 0}},
        "tasks": {"sepsis": {
            "kind": "event", "variables": ["septic"], "op": ">=", "threshold": 1, "gap": "0h", "label_window": "1h",
        }},
        "optional": ["HR"],
        "layout": layout,
        "prediction_times": times,
        **more,
    }  # fmt: skip
    return parse_mapping(raw, "test", "test.toml", "0" * 64)


def cohort_of(folder: Path, source: SourceMapping, n_steps: int, split: Any = None) -> tuple[Cohort, IngestReport]:
    tables = read_event_tables(folder=folder, mapping=source, until_hours=latest_hour(source, float(n_steps)))
    split = np.zeros(tables.stays.height, np.int8) if split is None else split
    return build_cohort(tables, source, step_hours=1.0, n_steps=n_steps, split=split)


def test_hourly_labels_and_windows_every_six_hours_on_real_stays(tmp_path: Path) -> None:
    """A YAIB-like triple made of the embedded stays: an hour per row, a label per hour."""
    tables = read_embedded(sets=("a",), max_stays=150)
    names = ("HR", "MAP", "Temp", "Urine")
    plausible = {"HR": (1, 300), "MAP": (1, 250), "Temp": (24, 45), "Urine": (0, 10000)}
    rows = tables.events.filter(pl.col("variable").is_in(names)).with_columns(
        time=pl.col("hours").floor().cast(pl.Int64)
    )
    wide = rows.pivot("variable", index=["stay_id", "time"], values="value", aggregate_function="first").sort(
        "stay_id", "time"
    )
    low = pl.col("MAP").is_between(1, 64.999)
    labels = wide.select("stay_id", "time", label=pl.when(pl.col("MAP").is_not_null()).then(low.cast(pl.Int64)))
    wide.write_parquet(tmp_path / "dyn.parquet")
    labels.write_parquet(tmp_path / "outc.parquet")
    tables.stays.select("stay_id").write_parquet(tmp_path / "sta.parquet")
    raw = {
        "variables": {
            name: {"unit": "1", "plausible": list(plausible[name]), "scale": list(plausible[name]), "normal": 40,
                   "aggregation": "sum" if name == "Urine" else "mean"}
            for name in names
        },
        "label_variables": {"label": {"unit": "1", "plausible": [0, 1], "scale": [0, 1], "normal": 0}},
        "tasks": {
            "now": {"kind": "event", "variables": ["label"], "op": ">=", "threshold": 1, "label_window": "1h"},
            "soon": {"kind": "event", "variables": ["label"], "op": ">=", "threshold": 1, "gap": "2h",
                     "label_window": "6h"},
        },
        "layout": {
            "stays": {"file": "sta", "stay": "stay_id"},
            "events": [
                {"file": file, "key": "stay_id", "time": "time", "time_unit": "hours"} for file in ("dyn", "outc")
            ],
        },
        "prediction_times": {"every": "6h", "first": "6h", "until": "last event"},
        "unknown_variables": "drop",
    }  # fmt: skip
    source = parse_mapping(raw, "yaib", "yaib.toml", "0" * 64)
    cohort, report = cohort_of(tmp_path, source, 12)
    assert report.rows_read == report.rows_used + sum(report.rows_dropped.values())

    at = {(stay, hour): cells for stay, hour, *cells in wide.select("stay_id", "time", *names).iter_rows()}
    label_at = {(stay, hour): value for stay, hour, value in labels.iter_rows()}
    expected: dict[str, tuple[list[list[float]], float, float]] = {}
    for stay in tables.stays["stay_id"].to_list():
        good = [
            hour
            for (who, hour), cells in at.items()
            if who == stay
            and any(
                v is not None and plausible[n][0] <= v <= plausible[n][1] for n, v in zip(names, cells, strict=True)
            )
        ]
        for predicted in range(6, max(good, default=-1) + 1, 6):
            grid = []
            for hour in range(predicted - 12, predicted):
                cells = at.get((stay, hour), [None] * len(names))
                grid.append([
                    NAN if v is None or not plausible[n][0] <= v <= plausible[n][1] else v
                    for n, v in zip(names, cells, strict=True)
                ])  # fmt: skip
            told = [[label_at.get((stay, hour)) for hour in hours]
                    for hours in ([predicted], range(predicted + 2, predicted + 8))]  # fmt: skip
            known = [[value for value in values if value is not None] for values in told]
            now, soon = (float(max(values)) if values else NAN for values in known)
            expected[f"{stay}@{predicted}h"] = (grid, now, soon)
    assert len(expected) > 900
    assert cohort.stay_ids.tolist() == list(expected)
    np.testing.assert_allclose(
        cohort.values, np.array([grid for grid, _, _ in expected.values()], np.float32), rtol=1e-6, equal_nan=True
    )
    np.testing.assert_array_equal(cohort.labels, np.array([labels for _, *labels in expected.values()], np.float32))
    assert cohort.subject_ids.tolist() == [name.split("@")[0] for name in expected]  # the person stays the person


stays_given = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(0, 14)), min_size=1, max_size=4)
events_given = st.lists(
    st.tuples(st.integers(0, 2), st.integers(-8, 90), st.sampled_from(["HR", "septic"]), st.integers(0, 1)), max_size=25
)


@settings(max_examples=60, deadline=None)
@given(
    stays_given, events_given, st.sampled_from([1, 2, 3]), st.integers(1, 4), st.sampled_from([0, 1, 2]),
    st.sampled_from([0, 1]), st.sampled_from([1, 3]), st.booleans(),
)  # fmt: skip
def test_against_a_loop(
    tmp_path_factory: pytest.TempPathFactory, stays: list[tuple[int, int, int]],
    events: list[tuple[int, int, str, int]], every: int, first: int, back: int, gap: int, window: int, not_yet: bool,
) -> None:  # fmt: skip
    """Linked by subject, in half hours, with look-back, gap, and nothing asked for once the event came."""
    folder, n = tmp_path_factory.mktemp("case"), 3
    stays = [*stays, (9, 0, 14), (9, 20, 14)]  # so that there is a row, and a first task with two classes
    events = [*events, (9, 3, "HR", 1)]
    day = "2024-01-01 00:00:00"
    clock = pl.lit(day).str.to_datetime() + pl.duration(days=1)
    table = pl.DataFrame(stays, schema=["subject", "start", "length"], orient="row").with_row_index("stay")
    table = table.select(
        "stay", "subject", y=pl.col("stay") % 2, start=clock + pl.duration(hours=pl.col("start")),
        end=clock + pl.duration(hours=pl.col("start") + pl.col("length")),
    )  # fmt: skip
    table.write_csv(folder / "stays.csv", datetime_format="%Y-%m-%d %H:%M:%S")
    rows = pl.DataFrame(events, schema=["subject", "half", "code", "value"], orient="row")
    rows = rows.select("subject", "code", "value", time=clock + pl.duration(minutes=pl.col("half") * 30))
    rows.write_csv(folder / "events.csv", datetime_format="%Y-%m-%d %H:%M:%S")
    task = {"kind": "event", "variables": ["septic"], "op": ">=", "threshold": 1, "unmeasured_is_zero": True}
    rule = {"variables": ["septic"], "op": ">=", "threshold": 1}
    source = mapping(
        {"every": f"{every}h", "first": f"{first}h", "until": "end", "not_yet": [rule] if not_yet else []},
        events={"link": "subject", "key": "subject", "look_back": f"{back}h"},
        tasks={
            "y": {"kind": "binary", "column": "y"},
            "sepsis": {**task, "gap": f"{gap}h", "label_window": f"{window}h"},
        },
    )
    names, cells, labels = list[str](), list[list[float]](), list[float]()
    for i, (who, start, length) in enumerate(stays):
        own = [(half / 2 - start, code, value) for person, half, code, value in dict.fromkeys(events)
               if person == who and -back <= half / 2 - start < length]  # fmt: skip
        septic = [hour for hour, code, value in own if code == "septic" and value]
        for at in range(first, length, every):
            if not_yet and any(hour < at for hour in septic):
                continue
            names.append(f"{i}@{at}h")
            values = [[v for hour, code, v in own if code == "HR" and at - n + k <= hour < at - n + k + 1]
                      for k in range(n)]  # fmt: skip
            cells.append([float(np.float32(np.mean(step))) if step else NAN for step in values])
            labels.append(float(any(at + gap <= hour < at + gap + window for hour in septic)))
    cohort, report = cohort_of(folder, source, n)
    assert cohort.stay_ids.tolist() == names
    np.testing.assert_array_equal(cohort.values[:, :, 0], np.array(cells, np.float32))
    np.testing.assert_array_equal(cohort.labels[:, 1], np.array(labels, np.float32))
    assert report.rows_read == report.rows_used + sum(report.rows_dropped.values())


def small(folder: Path) -> None:
    (folder / "stays.csv").write_text(
        "stay,subject,start,end\nA,p,2024-01-01 00:00,2024-01-01 10:00\nB,p,2024-01-02 00:00,2024-01-02 05:00\n"
        "C,q,2024-01-01 00:00,2024-01-01 09:00\n"
    )
    rows = [f"{stay},2024-01-0{day} 0{hour}:30,HR,{60 + hour}" for stay, day in (("A", 1), ("B", 2), ("C", 1))
            for hour in range(9) if stay != "B" or hour < 5]  # fmt: skip
    rows += ["A,2024-01-01 06:30,septic,1", "C,2024-01-01 08:10,septic,0", "B,2024-01-02 04:00,septic,0"]
    (folder / "events.csv").write_text("stay,time,code,value\n" + "\n".join(rows))


def test_windows_of_a_person_go_into_one_part_of_a_split(tmp_path: Path) -> None:
    small(tmp_path)
    source = mapping({"every": "2h", "until": "end"})
    cohort, report = cohort_of(tmp_path, source, 2, split=np.array([0, 0, 2], np.int8))
    assert cohort.stay_ids.tolist() == [
        "A@2h", "A@4h", "A@6h", "A@8h", "B@2h", "B@4h", "C@2h", "C@4h", "C@6h", "C@8h",
    ]  # fmt: skip
    assert set(zip(cohort.subject_ids.tolist(), cohort.split.tolist(), strict=True)) == {("p", 0), ("q", 2)}
    assert "10 predictions are made in 3 of 3 stays" in report.notes


def test_a_prediction_may_name_the_hours_since_the_start_and_to_the_end(tmp_path: Path) -> None:
    small(tmp_path)
    left = {"kind": "column", "column": "hours_to_end", "op": "<=", "threshold": 4}
    static = {"unit": "h", "source": "hours_from_start", "plausible": [0, 99], "scale": [0, 99], "normal": 9}
    source = mapping({"every": "4h", "until": "end"}, tasks={"leaves": left}, statics={"since": static})
    cohort, _ = cohort_of(tmp_path, source, 2)
    assert cohort.stay_ids.tolist() == ["A@4h", "A@8h", "B@4h", "C@4h", "C@8h"]
    assert cohort.labels[:, 0].tolist() == [0, 1, 1, 0, 1]
    assert cohort.static[:, 0].tolist() == [4, 8, 4, 4, 8]


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    for times, said in (
        ({"every": "6", "until": "end"}, "is a duration"),
        ({"every": "0h", "until": "end"}, "longer than nothing"),
        ({"every": "6h", "until": "death"}, "until is one of"),
        ({"every": "6h", "until": "end", "gap": "2h"}, "unknown key gap"),
        (
            {"every": "6h", "until": "end", "not_yet": [{"variables": ["sepsi"], "op": ">", "threshold": 0}]},
            "no variable",
        ),
    ):
        with pytest.raises(ConfigError, match=said):
            mapping(times)
    task = {"kind": "event", "variables": ["septic"], "op": ">", "threshold": 0, "label_window": "1h", "to_hours": 3}
    with pytest.raises(ConfigError, match="say the same thing"):
        mapping({"every": "6h", "until": "end"}, tasks={"t": task})
    early = {"kind": "event", "variables": ["septic"], "op": ">", "threshold": 0, "after_hours": -1, "to_hours": 3}
    small(tmp_path)
    with pytest.raises(ConfigError, match="begins before the input ends"):
        cohort_of(tmp_path, mapping({"every": "6h", "until": "end"}, tasks={"t": early}), 2)
    with pytest.raises(DataError, match="no stay has a prediction time"):
        cohort_of(tmp_path, mapping({"every": "6h", "first": "90h", "until": "end"}), 2)
    (tmp_path / "events.csv").write_text("stay,time,code,value\nA,2090-01-01 06:30,HR,60\n")
    stays = {"file": "stays", "stay": "stay", "start": "start"}
    events = [{"file": "events", "key": "stay", "time": "time", "code": "code", "value": "value"}]
    endless = mapping({"every": "1h", "until": "last event"}, layout={"stays": stays, "events": events})
    with pytest.raises(DataError, match="at_most"):
        cohort_of(tmp_path, endless, 2)
    by_subject = [{**events[0], "link": "subject", "key": "stay"}]
    with pytest.raises(ConfigError, match=r"needs layout\.stays\.end"):
        mapping({"every": "1h", "until": "last event"}, layout={"stays": {**stays, "subject": "subject"},
                                                                "events": by_subject})  # fmt: skip


def test_look_back_without_prediction_times_needs_the_input_to_begin_as_early(tmp_path: Path) -> None:
    small(tmp_path)
    task = {"kind": "event", "variables": ["septic"], "op": ">", "threshold": 0, "after_hours": 4, "to_hours": 9}
    one: dict[str, Any] = {
        "variables": {"HR": {"unit": "/min", **RANGES}},
        "label_variables": {"septic": {"unit": "1", "plausible": [0, 1], "scale": [0, 1], "normal": 0}},
        "tasks": {"t": {**task, "unmeasured_is_zero": True}},
    }

    def source(shift: float, back: str) -> SourceMapping:
        stays = {"file": "stays", "stay": "stay", "subject": "subject", "start": "start", "start_shift_hours": shift}
        events = {"file": "events", "key": "stay", "time": "time", "code": "code", "value": "value", "look_back": back}
        raw = {**one, "layout": {"stays": stays, "events": [events]}}
        return parse_mapping(raw, "t", "t.toml", "0" * 64)

    with pytest.raises(ConfigError, match="start_shift_hours"):
        source(0, "6h")
    with (tmp_path / "events.csv").open("a") as file:
        file.write("\nA,2023-12-31 23:30,HR,99\nA,2023-12-31 22:30,HR,98\n")
    cohort, report = cohort_of(tmp_path, source(-2, "1h"), 4)
    np.testing.assert_array_equal(cohort.values[0, :, 0], np.array([NAN, 99, 60, 61], np.float32))
    assert report.rows_dropped["outside the window"] > 0


def known(folder: Path, source: SourceMapping, rows: str, n_steps: int = 4, scratch: Path | None = None) -> Any:
    (folder / "stays.csv").write_text(
        "stay,subject,start,end,y\nA,p,2024-01-01 00:00,2024-01-02 00:00,0\nB,q,2024-01-01 00:00,2024-01-02 00:00,1\n"
    )
    (folder / "events.csv").write_text("stay,time,stored,day,code,value\n" + rows)
    until = latest_hour(source, float(n_steps))
    tables = read_event_tables(folder=folder, mapping=source, until_hours=until, scratch=scratch)
    made = build_cohort(tables, source, step_hours=1.0, n_steps=n_steps, split=np.zeros(2, np.int8))
    if tables.spilled is not None:
        tables.spilled.close()
    return made


def single(**more: Any) -> SourceMapping:
    events = {"file": "events", "key": "stay", "time": "time", "code": "code", "value": "value", **more.pop("events")}
    raw = {
        "variables": {"HR": {"unit": "/min", **RANGES}},
        "tasks": {"y": {"kind": "binary", "column": "y"}},
        "layout": {"stays": {"file": "stays", "stay": "stay", "subject": "subject", "start": "start", "end": "end"},
                   "events": [events]},
        **more,
    }  # fmt: skip
    return parse_mapping(raw, "t", "t.toml", "0" * 64)


ROWS = (
    "A,2024-01-01 00:30,2024-01-01 01:30,,HR,61\n"
    "A,2024-01-01 01:30,2024-01-01 03:59,,HR,62\n"
    "A,2024-01-01 02:30,2024-01-01 04:00,,HR,63\n"  # known when the prediction is made, and not before
    "A,2024-01-01 03:30,,,HR,64\n"  # nobody says when it was known
    "B,2024-01-01 03:30,2024-01-01 03:00,,HR,71\n"  # stored before it was taken
    "B,2024-01-01 04:30,2024-01-01 05:00,,HR,72\n"
)


def test_what_was_not_known_yet_is_no_input(tmp_path: Path) -> None:
    cohort, report = known(tmp_path, single(events={"available": "stored"}), ROWS)
    np.testing.assert_array_equal(cohort.values[0, :, 0], np.array([61, 62, NAN, NAN], np.float32))
    np.testing.assert_array_equal(cohort.values[1, :, 0], np.array([NAN, NAN, NAN, 71], np.float32))
    assert report.rows_dropped == {"known after the prediction": 2, "outside the window": 1}
    later, _ = known(tmp_path, single(events={"available": "stored"}), ROWS, n_steps=5)
    np.testing.assert_array_equal(later.values[0, :, 0], np.array([61, 62, 63, NAN, NAN], np.float32))


def test_each_prediction_knows_what_it_could(tmp_path: Path) -> None:
    times = {"every": "1h", "first": "2h", "until": "end", "at_most": "5h"}
    cohort, report = known(tmp_path, single(events={"available": "stored"}, prediction_times=times), ROWS, n_steps=3)
    expected = [[NAN, 61, NAN], [61, NAN, NAN], [62, NAN, NAN], [63, NAN, NAN]]
    assert cohort.stay_ids.tolist()[:4] == ["A@2h", "A@3h", "A@4h", "A@5h"]
    np.testing.assert_array_equal(cohort.values[:4, :, 0], np.array(expected, np.float32))
    assert report.rows_dropped["known after the prediction"] > 2


def test_a_date_stands_in_for_a_time_at_the_end_of_its_day(tmp_path: Path) -> None:
    rows = "A,2024-01-01 00:30,,2024-01-01,HR,61\nA,,,2024-01-01,HR,62\nA,,,,HR,63\nB,,,2024-01-02,HR,64\n"
    source = single(events={"date": "day"})
    cohort, report = known(tmp_path, source, rows, n_steps=24)
    assert cohort.values[0, [0, 23], 0].tolist() == [61, 62]
    assert report.rows_dropped == {"time missing": 1, "outside the window": 1}
    assert "2 rows have a date and no time: taken at the last second of that day" in report.notes
    plain, told = known(tmp_path, single(events={}), rows, n_steps=24)
    assert (int(plain.observed.sum()), told.rows_dropped["time missing"]) == (1, 3)
    with pytest.raises(ConfigError, match="goes with dates"):
        single(events={"date": "day", "time_unit": "hours"})


@pytest.mark.parametrize("large", [False, True])
def test_when_a_row_was_known_survives_spilling_and_keeping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    monkeypatch.setattr(event_tables, "are_large", lambda _: large)
    source = single(events={"available": "stored"})
    expected, _ = known(tmp_path, source, ROWS, scratch=tmp_path)
    kept = []
    for _ in range(2):
        marks = Watermarks(tmp_path / "marks.json")
        pieces = Pieces(tmp_path / "pieces", "1", marks)
        tables = read_event_tables(folder=tmp_path, mapping=source, until_hours=4.0, pieces=pieces, scratch=tmp_path)
        pieces.finish("run")
        kept.append(build_cohort(tables, source, step_hours=1.0, n_steps=4, split=np.zeros(2, np.int8))[0].values)
        assert (tables.spilled is not None) == large
        if tables.spilled is not None:
            tables.spilled.close()
    for values in kept:
        np.testing.assert_array_equal(values, expected.values)
