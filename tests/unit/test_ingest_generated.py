"""Generated corruptions of units, times, ids, text and joins: none ends in another cohort without a word.

Each example spoils some rows of a small source in one way. What comes of it is an error, the very same cohort, or
another one whose report says that rows were dropped or that something is odd.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.types import Cohort, IngestReport
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.engine.event_tables import read_event_tables
from pipeline.ingest.mapping.load import parse_mapping
from pipeline.ingest.mapping.units import UNITS, conversion

Row = list[str]
HEADER: Final = ["stay", "time", "code", "value", "unit"]
IDS: Final = ("1001", "1002", "Ä3", "1004", "1005", "1006")
OWN: Final = {"glu": ("Glucose", "mg/dL"), "wbc": ("WBC", "10^9/L"), "temp": ("Temp", "degC"), "hr": ("HR", "/min")}


def mapping() -> Any:
    variables = {
        name: {"unit": unit, "plausible": [0, 2000], "scale": [0, 400], "normal": 10, "sources": [code]}
        for code, (name, unit) in OWN.items()
    }
    stays = {"file": "stays", "stay": "stay", "subject": "person", "start": "start"}
    join = {"file": "deaths", "on": ["person"], "columns": {"died": "died"}}
    events = {"file": "lab", "key": "stay", "time": "time", "code": "code", "value": "value", "unit": "unit"}
    raw = {
        "variables": variables,
        "unknown_variables": "drop",
        "tasks": {"died": {"kind": "binary", "column": "died"}},
        "layout": {"timezone": "UTC", "stays": {**stays, "join": [join]}, "events": [events]},
    }
    return parse_mapping(raw, "t", "t.toml", "0" * 64)


MAPPING: Final = mapping()


def rows() -> list[Row]:
    values = {"glu": "104.5", "wbc": "8.25", "temp": "37.5", "hr": "88"}
    return [
        [stay, f"2024-03-01 {8 + hour:02d}:15:00", code, values[code], OWN[code][1]]
        for stay in IDS
        for hour, code in enumerate(OWN)
    ]


def write(folder: Path, lines: list[Row], encoding: str = "utf-8", delimiter: str = ",") -> None:
    people = [f"P{i}" for i in range(len(IDS))]
    stays = "".join(f"{stay},{who},2024-03-01 08:00:00\n" for stay, who in zip(IDS, people, strict=True))
    (folder / "stays.csv").write_text("stay,person,start\n" + stays, encoding="utf-8")
    (folder / "deaths.csv").write_text("person,died\n" + "".join(f"{who},{i % 2}\n" for i, who in enumerate(people)))
    text = "\n".join(delimiter.join(line) for line in [HEADER, *lines]) + "\n"
    (folder / "lab.csv").write_bytes(text.encode(encoding, errors="replace"))


def ingest(folder: Path) -> tuple[Cohort, IngestReport]:
    tables = read_event_tables(folder=folder, mapping=MAPPING, until_hours=6.0)
    split = np.zeros(tables.stays.height, np.int8)
    return build_cohort(tables, MAPPING, step_hours=1.0, n_steps=6, split=split)


def unit_scaled(rng: random.Random, row: Row) -> Row:
    """The same quantity in another unit, or a unit that it cannot have."""
    name, own = OWN[row[2]]
    unit = rng.choice(UNITS)
    line = conversion(name, own, unit)
    return [*row[:3], row[3] if line is None else repr(float(row[3]) * line[0] + line[1]), unit]


def unit_spelled(rng: random.Random, row: Row) -> Row:
    unit = rng.choice(
        [row[4].upper(), row[4].replace("/", " / "), row[4] + ".", f"[{row[4]}]", row[4].replace("u", "μ")]
    )
    return [*row[:4], unit]


def unit_strange(rng: random.Random, row: Row) -> Row:
    return [*row[:4], rng.choice(["?", "arb", "umol/l (S)", "x", "mg", "furlong/fortnight", "µ", "0.5", "mg/dL/h"])]


def time_form(rng: random.Random, row: Row) -> Row:
    day, clock = row[1].split(" ")
    year, month, date = day.split("-")
    form = rng.choice(["{}/{}/{} {}", "{}-{}-{}T{}", "{}{}{} {}", "{}-{}-{} {}+00", "{}-{}-{} {}Z", "{}-{}-{} {} UTC"])
    return [row[0], form.format(year, month, date, clock), *row[2:]]


def time_strange(rng: random.Random, row: Row) -> Row:
    texts = ["01.03.2024 09:15", "03/01/24", "", "NULL", "1709284500", "09:15", "2024-13-01 09:15", "2024-03-01 25:00"]
    return [row[0], rng.choice(texts), *row[2:]]


def id_form(rng: random.Random, row: Row) -> Row:
    key = row[0]
    forms = [f"00{key}", f"{key}.0", key.lower(), f" {key} ", unicodedata.normalize("NFD", key), f"{key}x", "", "9e3"]
    return [rng.choice(forms), *row[1:]]


def value_form(rng: random.Random, row: Row) -> Row:
    value = rng.choice(
        [row[3].replace(".", ","), f"<{row[3]}", f"{row[3]} H", "NEG", "", "1,234", "inf", "True", "- 5"]
    )
    return [*row[:3], f'"{value}"', row[4]]


def code_form(rng: random.Random, row: Row) -> Row:
    return [*row[:2], rng.choice(["NA", "", row[2].upper(), row[2] + " ", "other"]), *row[3:]]


KINDS: Final[tuple[Callable[[random.Random, Row], Row], ...]] = (
    unit_scaled, unit_spelled, unit_strange, time_form, time_strange, id_form, value_form, code_form
)  # fmt: skip


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, IngestReport]:
    folder = tmp_path_factory.mktemp("truth")
    write(folder, rows())
    cohort, report = ingest(folder)
    assert report.rows_used == len(rows())
    assert not report.rows_dropped
    return cohort, report


def same(one: Cohort, other: Cohort) -> bool:
    values = np.allclose(one.values, other.values, rtol=1e-5, atol=1e-4, equal_nan=True)
    return values and np.array_equal(one.labels, other.labels) and one.stay_ids.tolist() == other.stay_ids.tolist()


def judge(folder: Path, truth: tuple[Cohort, IngestReport]) -> None:
    try:
        cohort, report = ingest(folder)
    except (DataError, ConfigError):
        return
    told = bool(report.rows_dropped) or set(report.notes) - set(truth[1].notes)
    assert same(cohort, truth[0]) or told


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), st.sampled_from(KINDS), st.floats(0.02, 1.0))
def test_spoilt_rows(
    truth: tuple[Cohort, IngestReport],
    tmp_path: Path,
    seed: int,
    kind: Callable[[random.Random, Row], Row],
    share: float,
) -> None:
    rng = random.Random(seed)
    write(tmp_path, [kind(rng, row) if rng.random() < share else row for row in rows()])
    judge(tmp_path, truth)


def test_scaled_units_give_the_same_cohort(truth: tuple[Cohort, IngestReport], tmp_path: Path) -> None:
    """Not only told: every unit that converts gives the very grid."""
    for unit in UNITS:
        lines = []
        for row in rows():
            line = conversion(OWN[row[2]][0], OWN[row[2]][1], unit)
            lines.append(row if line is None else [*row[:3], repr(float(row[3]) * line[0] + line[1]), unit])
        write(tmp_path, lines)
        assert same(ingest(tmp_path)[0], truth[0]), unit


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "utf-16-be", "cp500"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "^"])
def test_spoilt_text(truth: tuple[Cohort, IngestReport], tmp_path: Path, encoding: str, delimiter: str) -> None:
    write(tmp_path, rows(), encoding, delimiter)
    judge(tmp_path, truth)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1))
def test_spoilt_joins(truth: tuple[Cohort, IngestReport], tmp_path: Path, seed: int) -> None:
    """Labels that come by a join: keys in another form, twice, or gone, and labels in words."""
    rng = random.Random(seed)
    write(tmp_path, rows())
    key = rng.choice([str, str.lower, lambda who: f"0{who}", lambda who: f"{who} ", lambda who: f"x{who}"])
    label = rng.choice([str, lambda i: "YN"[1 - i], lambda i: str(bool(i)), lambda i: "dead" if i else "alive", float])
    lines = [f"{key(f'P{i}')},{label(i % 2)}" for i in range(len(IDS))]
    lines = rng.choice([lines, lines[:3], [*lines, lines[0]], []])
    (tmp_path / "deaths.csv").write_text("person,died\n" + "".join(f"{line}\n" for line in lines))
    try:
        cohort, report = ingest(tmp_path)
    except (DataError, ConfigError):
        return
    known = np.isfinite(cohort.labels[:, 0])
    assert np.array_equal(cohort.labels[known], truth[0].labels[known])
    assert known.all() or report.labels_missing["died"] > 0


def test_the_truth_does_not_depend_on_the_form_of_the_file(truth: tuple[Cohort, IngestReport], tmp_path: Path) -> None:
    write(tmp_path, rows())
    frame = pl.DataFrame(rows(), schema=HEADER, orient="row").with_columns(pl.col("value").cast(pl.Float64))
    (tmp_path / "lab.csv").unlink()
    frame.write_parquet(tmp_path / "lab.parquet")
    assert same(ingest(tmp_path)[0], truth[0])
