"""Grid, labels, splits and the account of rows, on tables small enough to work out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import Cohort, IngestReport, Split
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.grid import REDUCTIONS, step_of, to_grid
from pipeline.ingest.mapping.load import SourceMapping, parse_mapping
from pipeline.ingest.source_tables import EVENT_SCHEMA, SourceTables
from pipeline.ingest.splits import given_split, keyed_hash_split

TRAIN, TUNING, HELD_OUT = int(Split.TRAIN), int(Split.TUNING), int(Split.HELD_OUT)


def variable(**changes: Any) -> dict[str, Any]:
    return {"unit": "u", "plausible": [0, 100], "scale": [0, 10], "normal": 1, **changes}


RAW: dict[str, Any] = {
    "variables": {
        "A": variable(sources=["A", "a_raw"]),
        "S": variable(aggregation="sum", optional=True),
        "L": variable(aggregation="last", optional=True),
    },
    "statics": {
        "age": variable(source="Age"),
        "unit": variable(source="Unit", categories={"1": "x", "2": "y"}, optional=True),
    },
    "tasks": {
        "died": {"kind": "binary", "column": "died", "missing": [-1]},
        "long": {"kind": "column", "column": "los", "op": ">", "threshold": 7, "missing": [-1]},
        "soon": {"kind": "survival", "column": "survival", "within_days": 30},
        "later": {"kind": "event", "variables": ["A"], "op": ">=", "threshold": 50, "after_hours": 4, "to_hours": 8},
    },
}


def mapping(**changes: Any) -> SourceMapping:
    return parse_mapping({**RAW, **changes}, "test", "test.toml", "0" * 64)


def tables(
    rows: list[tuple[str, float, str, float]] | None = None, stays: dict[str, list[Any]] | None = None
) -> SourceTables:
    events = [("1", 0.0, "Age", 40.0), ("2", 0.0, "Age", 50.0), ("1", 0.5, "A", 3.0), ("2", 0.5, "A", 4.0)]
    events += rows or []
    frame = pl.DataFrame(events, schema=EVENT_SCHEMA, orient="row")
    table = {"stay_id": ["1", "2"], "died": ["0", "1"], "los": ["7", "8"], "survival": ["-1", "30"], **(stays or {})}
    stay_frame = pl.DataFrame(table)
    if "subject_id" not in table:
        stay_frame = stay_frame.with_columns(subject_id=pl.col("stay_id"))
    return SourceTables(frame, stay_frame, len(events), {}, {}, False, "hand-made")


def build(source: SourceTables, chosen: SourceMapping | None = None, **changes: Any) -> tuple[Cohort, IngestReport]:
    split = np.zeros(source.stays.height, dtype=np.int8)
    options: dict[str, Any] = {"step_hours": 1.0, "n_steps": 4, "tasks": ("died",), "split": split, **changes}
    return build_cohort(source, chosen or mapping(), **options)


@pytest.mark.parametrize("window", ["half_open", "closed"])
def test_cells_by_hand(window: str) -> None:
    rows = [
        ("1", 0.9, "A", 5.0),  # mean with the 3 at 0.5
        ("1", 1.0, "a_raw", 7.0),  # the next step, by its other name
        ("1", 0.2, "S", 2.0),
        ("1", 0.2, "S", 3.0),  # repeated time: both count
        ("2", 2.9, "L", 8.0),  # later than the next row, so it is the last
        ("2", 2.1, "L", 9.0),
        ("2", 4.0, "L", 6.0),  # exactly the end: outside, or of the last step where the window is closed
    ]
    cohort, report = build(tables(rows), mapping(window=window))
    expected = np.full((2, 4, 3), np.nan)
    expected[0, 0], expected[0, 1, 0] = (4.0, 5.0, np.nan), 7.0
    expected[1, 0, 0], expected[1, 2, 2], expected[1, 3, 2] = 4.0, 8.0, 6.0 if window == "closed" else np.nan
    np.testing.assert_array_equal(cohort.values, expected)
    np.testing.assert_array_equal(cohort.observed, np.isfinite(expected))
    assert report.rows_read == 11
    assert dict(report.rows_dropped) == ({} if window == "closed" else {"outside the window": 1})
    assert report.coverage == {"A": 1.0, "S": 0.5, "L": 0.5}


def test_order_of_rows_and_number_of_stays_do_not_matter() -> None:
    """700 stays (several blocks), rows in order and shuffled."""
    rng = np.random.default_rng(0)
    ids = [str(i) for i in range(700)]
    frame = pl.DataFrame(
        {
            "stay_id": np.repeat(ids, 6),
            "hours": rng.permutation(4200) % 240 / 60.0,
            "variable": np.tile(["A", "A", "S", "S", "L", "Age"], 700),
            "value": rng.integers(0, 100, 4200).astype(float),
        }
    )
    stays = pl.DataFrame({"stay_id": ids, "subject_id": ids, "died": np.arange(700) % 2})
    sources = [
        SourceTables(rows, stays, 4200, {}, {}, True, "hand-made")
        for rows in (frame, frame.sample(4200, shuffle=True, seed=1))
    ]
    (first, _), (second, _) = (build(source) for source in sources)
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(first.static, second.static)
    assert first.observed.any(axis=(1, 2)).all()


def test_every_dropped_row_has_its_reason() -> None:
    rows = [
        ("1", -0.1, "A", 5.0),
        ("1", 4.01, "A", 5.0),
        ("1", 1.0, "A", 100.5),
        ("1", 1.0, "A", 100.0),  # the limit itself is plausible
        ("1", 3.0, "Age", 41.0),
        ("2", -1.0, "Age", 500.0),
        ("2", 1.0, "Unit", 3.0),  # no such category
        ("2", 1.0, "Height", 3.0),
    ]
    cohort, report = build(tables(rows), mapping(unknown_variables="drop"))
    assert dict(report.rows_dropped) == {
        "implausible": 3,
        "outside the window": 2,
        "repeated static": 1,
        "unknown variable": 1,
    }
    assert report.dropped_by_variable["A"] == {"outside the window": 2, "implausible": 1}
    assert report.dropped_by_variable["Height"] == {"unknown variable": 1}
    assert report.rows_used == 12 - 7
    np.testing.assert_array_equal(cohort.static, [[40, np.nan], [50, np.nan]])


def test_unknown_variable_is_an_error_unless_told() -> None:
    rows = [("1", 1.0, "Height", 3.0), ("1", 1.0, "777", 3.0)]
    with pytest.raises(
        DataError, match=r"2 rows of 2 variables that mapping test does not know \(\(other name\), Height\)"
    ):
        build(tables(rows))


def test_limits_are_compared_in_single_precision() -> None:
    """0.21 in single precision is a little less than 0.21; it is not below a limit of 0.21."""
    chosen = mapping(variables={"A": variable(), "F": variable(plausible=[0.21, 1])})
    _, report = build(tables([("1", 1.0, "F", float(np.float32(0.21)))]), chosen)
    assert not report.rows_dropped


def test_stays_without_series_are_kept_and_told() -> None:
    stays = {name: ["1", "2", "3"] for name in ("stay_id", "los", "survival")} | {"died": ["0", "1", "0"]}
    admission = mapping(variables={"A": variable(), "W": variable(admission=True)})
    cohort, report = build(tables([("3", 0.0, "W", 9.0)], stays), admission)
    assert cohort.stay_ids.tolist() == ["1", "2", "3"]
    assert cohort.observed[2].sum() == 1
    assert report.stays_without_series == 1
    assert "1 stays have no series at all and are kept" in report.notes


def test_statics_from_the_table_of_stays_win_over_events() -> None:
    source = tables(stays={"Age": ["70", "900"], "Unit": ["2", ""]})
    cohort, report = build(source)
    np.testing.assert_array_equal(cohort.static, [[70, 2], [np.nan, np.nan]])
    assert dict(report.rows_dropped) == {"repeated static": 2}
    assert "1 stays have an implausible age, taken as missing" in report.notes


@pytest.mark.parametrize(
    ("task", "column", "cells", "expected"),
    [
        ("died", "died", ["1", "0", "-1", ""], [1, 0, np.nan, np.nan]),
        ("long", "los", ["7", "8", "-1", "7.5"], [0, 1, np.nan, 1]),
        ("soon", "survival", ["30", "31", "-1", "0"], [1, 0, 0, 0]),
        ("soon", "survival", ["1", "-23", "", "nan"], [1, 0, np.nan, np.nan]),
    ],
)
def test_label_rules(task: str, column: str, cells: list[str], expected: list[float]) -> None:
    four = {"stay_id": ["1", "2", "3", "4"], "died": ["0"] * 4, "los": ["0"] * 4, "survival": ["0"] * 4}
    cohort, report = build(tables(stays={**four, column: cells}), tasks=(task,))
    np.testing.assert_array_equal(cohort.labels[:, 0], expected)
    assert report.labels_missing[task] == int(np.isnan(expected).sum())
    assert report.prevalence[task] == pytest.approx(np.nanmean(expected))


@pytest.mark.parametrize(("window", "labels"), [("closed", [0, 1]), ("half_open", [1, np.nan])])
def test_event_labels_begin_after_the_input(window: str, labels: list[float]) -> None:
    rows = [
        ("1", 4.0, "A", 60.0),
        ("1", 5.0, "A", 49.0),
        ("2", 8.0, "A", 50.0),
        ("2", 8.1, "A", 99.0),
        ("1", 6.0, "A", 101.0),
    ]
    cohort, report = build(tables(rows), mapping(window=window), tasks=("died", "later"))
    np.testing.assert_array_equal(cohort.labels[:, 1], labels)
    dropped = {"implausible": 1, "outside the window": 1 if window == "closed" else 2}
    assert dict(report.rows_dropped) == dropped
    assert "2 rows beyond the input window were used for labels only" in report.notes
    with pytest.raises(ConfigError, match="label window begins before the input ends"):
        build(tables(rows), tasks=("died", "later"), n_steps=5)


def test_event_label_is_missing_or_zero_where_nothing_was_measured() -> None:
    rule = RAW["tasks"]["later"]
    both = {"died": RAW["tasks"]["died"], "m": rule, "z": {**rule, "unmeasured_is_zero": True}}
    cohort, _ = build(tables([("1", 5.0, "A", 60.0)]), mapping(tasks=both), tasks=())
    np.testing.assert_array_equal(cohort.labels[:, 1:], [[1, 1], [np.nan, 0]])


@pytest.mark.parametrize(
    ("stays", "changes", "expected"),
    [
        ({"died": ["0", "0"]}, {}, "the first task, died, has 1 of 2 classes among all stays"),
        ({"died": ["-1", "-1"]}, {}, "has 0 of 2 classes"),
        ({}, {"split": np.array([TRAIN, HELD_OUT], dtype=np.int8)}, "1 of 2 classes among training stays"),
        ({"died": ["0", "7"]}, {}, "1 stays have neither 0 nor 1 in the label column died"),
        ({"died": ["0", "alive"]}, {}, "1 rows of column died hold text"),
        ({"subject_id": ["p", "p"]}, {"split": np.array([TRAIN, TUNING])}, "1 subjects appear in more than one split"),
        ({}, {"split": np.array([0, 3])}, "the split must be whole numbers"),
        ({}, {"split": np.array([0, 0, 0])}, "split"),
    ],
)
def test_broken_labels_and_splits(stays: dict[str, list[Any]], changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as caught:
        build(tables(stays=stays), **changes)
    assert expected in str(caught.value)


def test_label_column_missing() -> None:
    source = tables()
    bare = SourceTables(source.events, source.stays.drop("died"), source.rows_read, {}, {}, False, "hand-made")
    with pytest.raises(DataError, match="the label column died is missing"):
        build(bare)


def test_variable_never_observed() -> None:
    demanding = mapping(variables={"A": variable(), "Z": variable()})
    with pytest.raises(DataError, match="Z has no usable value in any of 2 stays"):
        build(tables(), demanding)


@pytest.mark.parametrize("tasks", [("no_such",), ("died", "died")])
def test_task_that_the_mapping_lacks(tasks: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="its tasks are died, long, soon, later"):
        build(tables(), tasks=tasks)


@pytest.mark.parametrize("changes", [{"step_hours": 0.0}, {"n_steps": 0}])
def test_empty_grid(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="step_hours > 0"):
        build(tables(), **changes)


def test_tables_refuse_rows_that_are_not_accounted_for() -> None:
    source = tables()
    with pytest.raises(DataError, match="not all accounted for"):
        SourceTables(source.events, source.stays, source.rows_read + 1, {}, {}, False, "hand-made")


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("step_hours", [1 / 60, 0.25, 0.5, 1.0, 2.0])
def test_minutes_fall_into_their_step(step_hours: float, closed: bool) -> None:
    """Against whole-number arithmetic, for every minute of two days."""
    minutes = np.arange(0, 48 * 60 + 1)
    per_step = round(step_hours * 60)
    n_steps = 48 * 60 // per_step
    expected = np.minimum(minutes // per_step, n_steps - 1)
    expected[-1] = n_steps - 1 if closed else -1
    np.testing.assert_array_equal(step_of(minutes / 60, step_hours, n_steps, closed=closed), expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60))
def test_grid_against_a_loop(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = tuple(REDUCTIONS)
    shape = (3, 2, len(kinds))
    stay, step, name = (rng.integers(0, size, n) for size in shape)
    hours, value = rng.integers(0, 4, n).astype(float), rng.normal(size=n).astype(np.float32)
    grid = to_grid(stay, step, name, hours, value, kinds, shape)
    plain = {"mean": np.mean, "sum": np.sum, "max": np.max, "min": np.min}
    for cell in np.ndindex(shape):
        rows = np.flatnonzero((stay == cell[0]) & (step == cell[1]) & (name == cell[2]))
        kind = kinds[cell[2]]
        if not rows.size:
            assert np.isnan(grid[cell])
        elif kind == "last":
            assert grid[cell] == value[max(rows, key=lambda row: (hours[row], row))]
        else:
            assert grid[cell] == pytest.approx(plain[kind](value[rows].astype(float)), rel=1e-6)


def secret(byte: int) -> Secret:
    return Secret(bytes([byte]) * 32, "split")


def test_keyed_split_moves_nobody_else() -> None:
    subjects = np.array([f"p{i}" for i in range(2000)])
    full = keyed_hash_split(subjects, secret(1), 0.16, 0.2)
    rest = np.delete(np.arange(2000), [3, 700, 1999])
    np.testing.assert_array_equal(keyed_hash_split(subjects[rest], secret(1), 0.16, 0.2), full[rest])
    np.testing.assert_array_equal(keyed_hash_split(subjects[::-1], secret(1), 0.16, 0.2), full[::-1])
    assert (keyed_hash_split(subjects, secret(2), 0.16, 0.2) != full).any()


def test_keyed_split_shares() -> None:
    """2,000 independent draws: each share within five binomial standard deviations (p < 1e-6 each)."""
    split = keyed_hash_split(np.array([f"p{i}" for i in range(2000)]), secret(1), 0.16, 0.2)
    for part, share in ((HELD_OUT, 0.2), (TUNING, 0.16), (TRAIN, 0.64)):
        assert abs((split == part).mean() - share) < 5 * np.sqrt(share * (1 - share) / 2000)


def test_stays_of_one_subject_stay_together() -> None:
    subjects = np.repeat([f"p{i}" for i in range(300)], 3)
    split = keyed_hash_split(subjects, secret(1), 0.16, 0.2).reshape(300, 3)
    assert (split == split[:, :1]).all()


def test_given_split() -> None:
    source = tables(stays={"split": ["train", "held_out"]})
    assert given_split(source).tolist() == [TRAIN, HELD_OUT]
    with pytest.raises(DataError, match="1 stays have a split other than train, tuning, held_out"):
        given_split(tables(stays={"split": ["train", "test"]}))
    with pytest.raises(DataError, match="1 stays have a split other"):
        given_split(tables(stays={"split": ["train", None]}))
    with pytest.raises(DataError, match="no split column"):
        given_split(tables())
    with pytest.raises(DataError, match="1 subjects appear in more than one split"):
        given_split(tables(stays={"split": ["train", "held_out"], "subject_id": ["p", "p"]}))


def test_split_rule_sees_subjects() -> None:
    cohort, _ = build(tables(), split=lambda subjects: keyed_hash_split(subjects, secret(1), 0.0, 0.0))
    assert cohort.split.tolist() == [TRAIN, TRAIN]
