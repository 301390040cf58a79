"""Nothing later than the prediction time has a say: planted values change no byte of the cohort, reader by reader.

The planted values are extreme, of every variable, of a static and of an unknown code, and lie a second to days after
the end of the input; labels come from outcomes or from a later window that the planted values do not touch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.types import Cohort, IngestReport
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.task_labels import latest_hour
from pipeline.ingest.mapping.load import SourceMapping, load_mapping, parse_mapping
from pipeline.ingest.sources.readers import read_source

N, STEPS = 8, 4


def variable(**more: Any) -> dict[str, Any]:
    return {"unit": "u", "plausible": [0, 1000], "scale": [0, 100], "normal": 1, **more}


def mapping(layout: dict[str, Any] | None, task: dict[str, Any] | None = None) -> SourceMapping:
    raw: dict[str, Any] = {
        "unknown_variables": "drop",
        "variables": {"HR": variable(), "MAP": variable(aggregation="last", optional=True)},
        "statics": {"weight": {**variable(), "source": "weight", "optional": True}},
        "tasks": {"died": task or {"kind": "binary", "column": "died"}},
    }
    if layout is not None:
        raw["layout"] = {"conflicts": "mean", **layout}
    return parse_mapping(raw, "test", "test.toml", "0" * 64)


STAYS = {"file": "stays", "stay": "stay", "subject": "person", "start": "begin", "end": "end"}


def stays(folder: Path) -> None:
    rows = [f"s{i},p{i},2020-01-{i + 1:02d} 08:00:00,2020-01-{i + 20:02d} 08:00:00,{i % 2}" for i in range(N)]
    (folder / "stays.csv").write_text("stay,person,begin,end,died\n" + "\n".join(rows) + "\n")


def clock(stay: int, hours: float) -> str:
    """`hours` after the start of the stay: days are enough of a calendar here."""
    seconds = round(hours * 3600)
    day, rest = divmod(8 * 3600 + seconds, 86400)
    return f"2020-01-{stay + 1 + day:02d} {rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"


def events(planted: bool) -> list[tuple[int, float, str, float]]:
    rows = [(i, h + 0.5, name, 50.0 + i + h) for i in range(N) for h in range(STEPS) for name in ("HR", "MAP")]
    rows += [(i, 0.0, "weight", 70.0 + i) for i in range(N - 1)]
    if planted:
        late = [
            (i, h, name, 999.0) for i in range(N) for h in (4.0003, 5.0, 100.0) for name in ("HR", "MAP", "weight", "x")
        ]
        return late[::2] + rows + late[1::2]  # before, between and after in the file
    return rows


def long(folder: Path, planted: bool, key: str) -> None:
    stays(folder)
    lines = [f"{key}{i},{clock(i, h)},{name},{value}" for i, h, name, value in events(planted)]
    (folder / "events.csv").write_text("key,time,code,value\n" + "\n".join(lines) + "\n")


def wide(folder: Path, planted: bool, key: str) -> None:
    stays(folder)
    lines = []
    for i, hour, name, value in events(planted):
        lines.append(
            f"s{i},{hour}," + ",".join(str(value) if name == column else "" for column in ("HR", "MAP", "weight"))
        )
    (folder / "events.csv").write_text("stay,hour,HR,MAP,weight\n" + "\n".join(lines) + "\n")


def own_long_table(folder: Path, planted: bool, key: str) -> None:
    stays(folder)
    lines = [f"s{i},{h},{name},{value}" for i, h, name, value in events(planted)]
    (folder / "events.csv").write_text("stay,hours,variable,value\n" + "\n".join(lines) + "\n")


LONG = {"file": "events", "key": "key", "time": "time", "code": "code", "value": "value"}
WIDE = {"file": "events", "key": "stay", "time": "hour", "time_unit": "hours"}
READERS: dict[str, tuple[Callable[[Path, bool, str], None], str, dict[str, Any] | None]] = {
    "long by stay": (long, "s", {"stays": STAYS, "events": [LONG]}),
    "long by subject": (long, "p", {"stays": STAYS, "events": [{**LONG, "link": "subject"}]}),
    "wide": (wide, "s", {"stays": STAYS, "events": [WIDE]}),
    "long_table": (own_long_table, "s", None),
}


def build(folder: Path, rule: SourceMapping, until: bool) -> tuple[Cohort, IngestReport]:
    if rule.layout is None:
        options: dict[str, Any] = {
            "events": folder / "events.csv",
            "stays": folder / "stays.csv",
            "stay_column": "stay",
        }
        tables = read_source("long_table", **options)
    else:
        hours = latest_hour(rule, float(STEPS)) if until else float("inf")
        tables = read_source("tables", folder=folder, mapping=rule, until_hours=hours)
    split = np.zeros(tables.stays.height, dtype=np.int8)
    return build_cohort(tables, rule, step_hours=1.0, n_steps=STEPS, split=split)


def content(cohort: Cohort) -> list[Any]:
    arrays = (cohort.values, cohort.observed, cohort.static, cohort.labels, cohort.split)
    return [*(array.tobytes() for array in arrays), cohort.stay_ids.tolist(), cohort.subject_ids.tolist()]


@pytest.mark.parametrize("until", [True, False])
@pytest.mark.parametrize("name", READERS)
def test_planted_values_change_no_byte(name: str, until: bool, tmp_path: Path) -> None:
    write, key, layout = READERS[name]
    found = []
    for planted in (False, True):
        folder = tmp_path / str(planted)
        folder.mkdir()
        write(folder, planted, key)
        cohort, report = build(folder, mapping(layout), until)
        assert report.rows_read == report.rows_used + sum(report.rows_dropped.values())
        found.append((content(cohort), report.rows_dropped))
    assert found[0][0] == found[1][0]
    assert found[0][1].get("outside the window", 0) == 0
    late = N * 3 * 3  # HR, MAP and the static; x is no variable
    if name == "wide" and until:
        late = N * 3 * 4 * 3  # all cells of the late rows: of an empty one, too, it is the time that counts first
    assert found[1][1]["outside the window"] == late
    assert np.isnan(cohort.static[N - 1, 0])  # the last stay's only weight was planted


def test_a_label_window_is_read_for_labels_alone(tmp_path: Path) -> None:
    task = {"kind": "event", "variables": ["HR"], "op": ">", "threshold": 900, "after_hours": 4, "to_hours": 6}
    found = []
    for planted in (False, True):
        folder = tmp_path / str(planted)
        folder.mkdir()
        rows = events(False) + [(i, 5.5, "HR", 950.0 if i % 2 else 40.0) for i in range(N)]
        rows += [(i, 6.1, "HR", 999.0) for i in range(N)] if planted else []
        stays(folder)
        lines = [f"s{i},{clock(i, h)},{name},{value}" for i, h, name, value in rows]
        (folder / "events.csv").write_text("key,time,code,value\n" + "\n".join(lines) + "\n")
        cohort, report = build(folder, mapping({"stays": STAYS, "events": [LONG]}, task), True)
        assert cohort.labels[:, 0].tolist() == [i % 2 for i in range(N)]
        assert float(np.nanmax(cohort.values)) < 100
        assert report.rows_used == len(events(False)) + N
        found.append(content(cohort))
    assert found[0] == found[1]


def test_planted_values_change_no_byte_of_physionet2012(tmp_path: Path) -> None:
    found = []
    for planted in ("", "48:01,HR,300\n70:00,Weight,200\n"):
        folder = tmp_path / ("planted" if planted else "clean")
        folder.mkdir()
        for stay in (11, 12):
            rows = f"00:00,RecordID,{stay}\n00:00,Age,54\n00:00,Gender,0\n00:00,ICUType,4\n00:07,HR,80\n{planted}"
            (folder / f"{stay}.txt").write_text("Time,Parameter,Value\n" + rows)
        outcomes = tmp_path / "outcomes.txt"
        outcomes.write_text("RecordID,In-hospital_death\n11,0\n12,1\n")
        base = load_mapping("physionet2012")
        every = frozenset(row.name for part in (base.variables, base.static_variables) for row in part)
        rule = SourceMapping(**{**vars(base), "optional": every})
        tables = read_source("physionet2012", records=(folder,), outcomes=(outcomes,))
        tasks, split = ("in_hospital_death",), np.zeros(2, dtype=np.int8)
        cohort, _ = build_cohort(tables, rule, step_hours=1.0, n_steps=48, tasks=tasks, split=split)
        found.append(content(cohort))
    assert found[0] == found[1]
