"""Times to an event: hours, whether they are the event's, and the event within a time, against loops of their own."""

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
from pipeline.core.types import Cohort, Task
from pipeline.core.types.cohort import refuse_times
from pipeline.ingest.checked import check_mapping
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.scaling import prepare
from pipeline.ingest.cohort.task_labels import latest_hour
from pipeline.ingest.engine.event_tables import read_event_tables
from pipeline.ingest.mapping.load import SourceMapping, parse_mapping
from pipeline.ingest.sources.embedded import DATA, read_embedded

NAN = math.nan
RANGES = {"plausible": [0, 300], "scale": [0, 200], "normal": 80}
LOW = {"kind": "time_to_event", "variables": ["MAP"], "op": "<", "threshold": 60, "within_hours": 24}
EVENTS = {"file": "events", "key": "stay", "time": "time", "time_unit": "hours", "code": "code", "value": "value"}
THREE = ("y", "low", "low_hours", "low_observed")


def mapping(task: dict[str, Any], layout: dict[str, Any], **more: Any) -> SourceMapping:
    raw = {
        "variables": {"MAP": {"unit": "mmHg", **RANGES}},
        "tasks": {"y": {"kind": "binary", "column": "y"}, "low": task},
        "layout": layout,
        "unknown_variables": "drop",
        **more,
    }
    return parse_mapping(raw, "test", "test.toml", "0" * 64)


def cohort_of(folder: Path, source: SourceMapping, n_steps: int, tasks: tuple[str, ...] = THREE) -> Cohort:
    tables = read_event_tables(folder=folder, mapping=source, until_hours=latest_hour(source, float(n_steps), tasks))
    split = np.zeros(tables.stays.height, np.int8)
    return build_cohort(tables, source, step_hours=1.0, n_steps=n_steps, tasks=tasks, split=split)[0]


def expected(event: float | None, followed: float, within: float) -> tuple[float, float, float]:
    """The event within the time, the hours, and whether they are the event's, of hours from the prediction on."""
    if event is not None and event <= followed and event < within:
        return 1.0, event, 1.0
    if followed <= 0:
        return NAN, NAN, NAN
    return (0.0, within, 0.0) if followed >= within else (NAN, followed, 0.0)


def told(cohort: Cohort) -> np.ndarray:
    """`(stay, 3)`: the labels with the hours as hours."""
    return np.stack([cohort.labels[:, 1], cohort.labels[:, 2] * cohort.tasks[2].high, cohort.labels[:, 3]], axis=1)


def test_every_six_hours_of_real_stays(tmp_path: Path) -> None:
    tables = read_embedded(sets=("a",), max_stays=60)
    rows = tables.events.filter(pl.col("variable").is_in(["MAP"]), pl.col("value") > 0).select(
        "stay_id", time="hours", variable="variable", value="value"
    )
    last = rows.group_by("stay_id", maintain_order=True).agg(last=pl.col("time").max())
    stays = tables.stays.select("stay_id").join(last, on="stay_id", maintain_order="left").with_row_index("y")
    stays = stays.with_columns(pl.col("y") % 2)
    stays.write_parquet(tmp_path / "stays.parquet")
    rows.write_parquet(tmp_path / "rows.parquet")
    events = {"file": "rows", "key": "stay_id", "time": "time", "time_unit": "hours", "code": "variable",
              "value": "value"}  # fmt: skip
    source = mapping(
        {**LOW, "followed": "last"},
        {"stays": {"file": "stays", "stay": "stay_id"}, "events": [events]},
        prediction_times={"every": "6h", "until": "last event"},
    )
    cohort = cohort_of(tmp_path, source, 12)
    of: dict[str, list[tuple[float, float]]] = {}
    for stay, hour, value in rows.select("stay_id", "time", "value").iter_rows():
        of.setdefault(stay, []).append((hour, value))
    known = dict(stays.select("stay_id", "last").iter_rows())
    want: dict[str, tuple[float, float, float]] = {}
    for stay in stays["stay_id"].to_list():
        for at in range(6, int(known[stay] or 0) + 1, 6):
            low = [hour - at for hour, value in of[stay] if hour >= at and value < 60]
            want[f"{stay}@{at}h"] = expected(min(low, default=None), known[stay] - at, 24.0)
    assert len(want) > 200
    assert cohort.stay_ids.tolist() == list(want)
    np.testing.assert_allclose(told(cohort), np.array(list(want.values())), rtol=1e-5, atol=1e-5, equal_nan=True)
    assert all(0 < np.nanmean(column) < 1 for column in (cohort.labels[:, 1], cohort.labels[:, 3]))
    assert np.isnan(cohort.labels[:, 1]).any()  # some are censored before


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=4)),
             min_size=1, max_size=5),
    st.sampled_from([4, 12]),
)  # fmt: skip
def test_one_prediction_until_the_end_of_the_stay(
    tmp_path_factory: pytest.TempPathFactory, stays: list[tuple[int, list[tuple[int, bool]]]], within: int
) -> None:
    """Lengths and times in half hours; the input ends at four hours."""
    folder, n = tmp_path_factory.mktemp("case"), 4
    stays = [*stays, (40, [(1, False)]), (40, [(1, False), (20, True)])]
    clock = pl.lit("2024-01-01").str.to_datetime("%Y-%m-%d")
    half = pl.duration(minutes=30)
    table = pl.DataFrame({"stay": list(range(len(stays))), "length": [length for length, _ in stays]})
    table.select("stay", y=pl.col("stay") % 2, start=clock, end=clock + half * pl.col("length")).write_csv(
        folder / "stays.csv", datetime_format="%Y-%m-%d %H:%M:%S"
    )
    rows = [(i, at, 50 if low else 80) for i, (_, events) in enumerate(stays) for at, low in dict(events).items()]
    frame = pl.DataFrame(rows, schema=["stay", "at", "value"], orient="row")
    frame.select("stay", "value", time=clock + half * pl.col("at"), code=pl.lit("MAP")).write_csv(
        folder / "events.csv", datetime_format="%Y-%m-%d %H:%M:%S"
    )
    events = {"file": "events", "key": "stay", "time": "time", "code": "code", "value": "value"}
    layout = {"stays": {"file": "stays", "stay": "stay", "start": "start", "end": "end"}, "events": [events]}
    cohort = cohort_of(folder, mapping({**LOW, "within_hours": within}, layout), n)
    want = []
    for length, events_ in stays:
        low = [at / 2 - n for at, is_low in dict(events_).items() if is_low and n <= at / 2 <= length / 2]
        inside = [at for at in low if at < length / 2 - n]  # what is at the very end is no more the stay's
        want.append(expected(min(inside, default=None), length / 2 - n, within))
    np.testing.assert_allclose(told(cohort), np.array(want), rtol=1e-6, atol=1e-6, equal_nan=True)


def test_a_column_says_when(tmp_path: Path) -> None:
    """Days to death of real stays, followed for as long as they were in hospital."""
    outcomes = pl.read_csv(DATA / "Outcomes-a.txt").head(200)
    outcomes = outcomes.select(
        stay=pl.col("RecordID"), died="Survival", left="Length_of_stay", y=pl.col("In-hospital_death")
    )
    outcomes.write_csv(tmp_path / "stays.csv")
    rows = outcomes.select("stay", time=pl.lit(1.0), code=pl.lit("MAP"), value=pl.lit(80))
    rows.write_csv(tmp_path / "events.csv")
    task = {"kind": "time_to_event", "column": "died", "followed": "left", "unit": "days", "missing": [-1],
            "within_hours": 240}  # fmt: skip
    source = mapping(task, {"stays": {"file": "stays", "stay": "stay"}, "events": [EVENTS]})
    cohort = cohort_of(tmp_path, source, 48)
    want = []
    for died, left in outcomes.select("died", "left").iter_rows():
        if died != -1 and died * 24 < 48:
            want.append((NAN, NAN, NAN))
            continue
        event = None if died == -1 else died * 24.0 - 48
        followed = NAN if left == -1 else left * 24.0 - 48
        seen = event is not None and (math.isnan(followed) or event <= followed) and event < 240
        want.append((1.0, event, 1.0) if seen else (NAN,) * 3 if math.isnan(followed) else
                    expected(None, followed, 240.0))  # fmt: skip
    np.testing.assert_allclose(told(cohort), np.array(want, float), rtol=1e-5, atol=1e-4, equal_nan=True)
    assert [task.kind for task in cohort.tasks] == ["binary", "binary", "time_to_event", "time_to_event"]


def test_what_cannot_be_used_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "stays.csv").write_text("stay,y,seen\n1,0,99\n2,1,99\n")
    (tmp_path / "events.csv").write_text("stay,time,code,value\n1,1,MAP,80\n2,1,MAP,80\n")
    layout = {"stays": {"file": "stays", "stay": "stay"}, "events": [EVENTS]}
    with pytest.raises(DataError, match=r"needs to know how long a stay was followed: name layout\.stays\.end"):
        cohort_of(tmp_path, mapping(LOW, layout), 4)
    source = mapping({**LOW, "followed": "seen"}, layout)
    with pytest.raises(ConfigError, match="task low_hours says nothing without low_observed; name both"):
        cohort_of(tmp_path, source, 4, ("y", "low_hours"))
    with pytest.raises(ConfigError, match="task low_hours is a time to an event and makes no classes"):
        cohort_of(tmp_path, source, 4, ("low_hours", "low_observed"))
    cohort = cohort_of(tmp_path, source, 4, ("y", "low_hours", "low_observed"))
    with pytest.raises(ConfigError, match="low_hours, low_observed are times to an event, which ingest writes"):
        prepare(cohort)
    with pytest.raises(ConfigError, match="no later stage learns"):
        refuse_times((Task("t", kind="time_to_event"),))
    assert [task.name for task in cohort_of(tmp_path, source, 4, ()).tasks] == ["y", "low"]  # by default only classes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"column": "y"}, "needs either variables or a column"),
        ({"within_hours": 0}, "within_hours must be a finite number above 0"),
        ({"op": "!="}, "op is one of"),
        ({"unit": "weeks"}, "unit is one of hours, days"),
        ({"label_window": "6h"}, "unknown key label_window"),
        ({"part": "hours"}, "unknown key part"),
        ({"variables": ["MAPP"]}, r"MAPP is no variable of the mapping; did you mean MAP\?"),
    ],
)
def test_faults_of_an_entry(change: dict[str, Any], words: str) -> None:
    layout = {"stays": {"file": "s", "stay": "stay"}, "events": [EVENTS]}
    with pytest.raises(ConfigError, match=words):
        mapping({**LOW, **change}, layout)


def test_check_knows_the_tasks_that_an_entry_makes(tmp_path: Path) -> None:
    text = """[variables]
MAP = { unit = "mmHg", plausible = [0, 300], scale = [0, 200], normal = 80 }
[tasks]
y = { kind = "binary", column = "y" }
low = { kind = "time_to_event", variables = ["MAP"], op = "<", threshold = 60, within_hours = 24 }
"""
    (tmp_path / "m.toml").write_text(text)
    check = {"kind": "long_table", "folder": None, "horizon_hours": 4.0}
    check_mapping(str(tmp_path / "m.toml"), tasks=THREE, **check)
    with pytest.raises(ConfigError, match=r"no task low_ours; did you mean low_hours\?"):
        check_mapping(str(tmp_path / "m.toml"), tasks=("y", "low_ours"), **check)
    (tmp_path / "m.toml").write_text("windo = 1\n" + text)
    with pytest.raises(ConfigError) as fault:
        check_mapping(str(tmp_path / "m.toml"), tasks=THREE, **check)
    assert "has no task" not in str(fault.value)


def test_an_entry_that_makes_the_name_of_another_task() -> None:
    layout = {"stays": {"file": "s", "stay": "stay"}, "events": [EVENTS]}
    with pytest.raises(ConfigError, match="another task has the name of one that a time to an event makes"):
        mapping(LOW, layout, tasks={"low": LOW, "low_hours": {"kind": "binary", "column": "y"}})
