"""Ids of several columns: as one column that holds them together, and never two ids as one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import DataError
from pipeline.core.types import Cohort
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.engine.coded import joined_ids
from pipeline.ingest.engine.event_tables import read_event_tables
from pipeline.ingest.kept.pieces import Pieces
from pipeline.ingest.kept.watermarks import Watermarks
from pipeline.ingest.mapping.load import parse_mapping

texts = st.text(st.sampled_from("ab/ 1"), min_size=1, max_size=4).filter(str.strip)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=2, max_size=6))
def test_no_two_ids_are_written_alike(pairs: list[tuple[str, str]]) -> None:
    made = joined_ids([pl.Series([pair[i] for pair in pairs]) for i in (0, 1)]).to_list()
    assert len(set(made)) == len({(one.strip(), other.strip()) for one, other in pairs})


def test_an_id_that_lacks_a_part_is_none() -> None:
    made = joined_ids([pl.Series(["a", "", None, "b"]), pl.Series([1.0, 2.0, 3.0, None])])
    assert made.to_list() == ["a / 1", None, None, None]


def cohort_of(folder: Path, stay: Any, key: Any, link: str, wide: bool, pieces: bool = False) -> Cohort:
    events = {"file": "lab", "link": link, "key": key, "time": "time"}
    if not wide:
        events |= {"code": "code", "value": "value"}
    raw = {
        "variables": {"HR": {"unit": "/min", "plausible": [10, 300], "scale": [30, 180], "normal": 75}},
        "tasks": {"died": {"kind": "binary", "column": "died"}},
        "layout": {
            "stays": {"file": "stays", "stay": stay, "subject": "person", "subject_key": stay, "start": "start"},
            "events": [events],
        },
        "unknown_variables": "drop",
    }
    mapping = parse_mapping(raw, "t", "t.toml", "0" * 64)
    kept = Pieces(folder / "pieces", "1", Watermarks(folder / "marks.json")) if pieces else None
    tables = read_event_tables(folder=folder, mapping=mapping, until_hours=4.0, pieces=kept)
    if kept is not None:
        kept.finish("run")
    split = np.zeros(tables.stays.height, np.int8)
    return build_cohort(tables, mapping, step_hours=1.0, n_steps=4, split=split)[0]


@pytest.mark.parametrize("link", ["stay", "subject"])
@pytest.mark.parametrize("wide", [False, True])
def test_an_id_of_two_columns_is_read_as_one_of_one(tmp_path: Path, link: str, wide: bool) -> None:
    ids = [("c1", 1), ("c1", 2), ("c2", 1)]
    lines = [f"{case},{part},{case}-{part},p{i},2024-01-01 00:00,{i % 2}" for i, (case, part) in enumerate(ids)]
    (tmp_path / "stays.csv").write_text("\n".join(["case,part,both,person,start,died", *lines]))
    value, head = ("", "HR") if wide else ("HR,", "code,value")
    rows = [f"{case},{part},{case}-{part},2024-01-01 0{hour}:00,{value}{60 + 10 * i + hour}"
            for i, (case, part) in enumerate(ids) for hour in range(3)]  # fmt: skip
    (tmp_path / "lab.csv").write_text("\n".join([f"case,part,both,time,{head}", *rows]))
    one = cohort_of(tmp_path, "both", "both", link, wide)
    for again in range(3):
        two = cohort_of(tmp_path, ["case", "part"], ["case", "part"], link, wide, pieces=again > 0)
        assert two.stay_ids.tolist() == ["c1 / 1", "c1 / 2", "c2 / 1"]
        np.testing.assert_array_equal(two.values, one.values)
    assert int(one.observed.sum()) == 9


def test_stays_that_repeat_an_id_of_two_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "stays.csv").write_text("case,part,person,start,died\na,1,p,2024-01-01,0\na,1,q,2024-01-01,1\n")
    (tmp_path / "lab.csv").write_text("case,part,time,code,value\na,1,2024-01-01 01:00,HR,70\n")
    with pytest.raises(DataError, match=r"1 rows repeat a case \+ part that must be unique"):
        cohort_of(tmp_path, ["case", "part"], ["case", "part"], "stay", False)
