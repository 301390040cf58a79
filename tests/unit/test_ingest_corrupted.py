"""Broken inputs of every kind: a clear sentence, or rows counted as dropped; never a crash, nor a silent difference.

Each corruption says what it must lead to: "error" (a DataError), "drops" (a cohort, and rows dropped for a named reason
that the clean source has not), "same" (the very same cohort), or "caught" (error or drops: noise decides).
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.core.errors import DataError
from pipeline.core.types import Cohort, IngestReport
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.mapping.load import SourceMapping, parse_mapping
from pipeline.ingest.sources.readers import read_source

SECRET = "Jane Roe 4711"
"""Stands for a patient's value: it must be in no message."""


def mapping(layout: dict[str, Any]) -> SourceMapping:
    def variable(low: float, high: float, *codes: str) -> dict[str, Any]:
        return {"unit": "u", "plausible": [low, high], "scale": [low, high], "normal": low, "sources": [*codes]}

    raw = {
        "unknown_variables": "drop",
        "variables": {"HR": variable(10, 320, "hr"), "Temp": variable(20, 45, "temp")},
        "tasks": {"died": {"kind": "binary", "column": "died"}},
        "layout": layout,
    }
    return parse_mapping(raw, "test", "test.toml", "0" * 64)


STAYS = {"file": "stays", "stay": "stay", "subject": "person", "start": "begin", "end": "end"}
LONG = mapping(
    {
        "stays": STAYS,
        "events": [{"file": "events", "key": "stay", "time": "time", "code": "code", "value": "value"}],
    }
)
WIDE = mapping(
    {"stays": STAYS, "events": [{"file": "events", "key": "stay", "time": "hour", "time_unit": "hours"}]},
)
SUBJECT = mapping(
    {
        "stays": STAYS,
        "events": [
            {"file": "events", "link": "subject", "key": "person", "time": "time", "code": "code", "value": "value"}
        ],
    }
)
N = 12


def stays_text() -> str:
    rows = [f"s{i},p{i},2020-01-{i + 1:02d} 00:00:00,2020-01-{i + 1:02d} 12:00:00,{i % 2}" for i in range(N)]
    return "\n".join(["stay,person,begin,end,died", *rows]) + "\n"


def long_text() -> str:
    rows = [
        f"s{i},p{i},2020-01-{i + 1:02d} {hour:02d}:30:00,{code},{value + hour}"
        for i in range(N)
        for hour in range(6)
        for code, value in (("hr", 70), ("temp", 34))
    ]
    return "\n".join(["stay,person,time,code,value", *rows]) + "\n"


def wide_text() -> str:
    rows = [f"s{i},{hour}.5,{70 + hour},{34 + hour}" for i in range(N) for hour in range(6)]
    return "\n".join(["stay,hour,hr,temp", *rows]) + "\n"


def clean(folder: Path, form: str) -> Path:
    """The file that is to be corrupted; the others lie beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stays.csv").write_text(stays_text())
    if form == "gz":
        (folder / "events.csv.gz").write_bytes(gzip.compress(long_text().encode()))
        return folder / "events.csv.gz"
    if form == "parquet":
        frame = pl.read_csv(long_text().encode(), try_parse_dates=True)
        (folder / "events").mkdir(exist_ok=True)
        for shard, rows in enumerate((frame[:70], frame[70:])):
            rows.write_parquet(folder / "events" / f"{shard}.parquet")
        return folder / "events" / "1.parquet"
    (folder / "events.csv").write_text(wide_text() if form == "wide" else long_text())
    return folder / ("stays.csv" if form == "stays" else "events.csv")


def ingest(folder: Path, form: str) -> tuple[Cohort, IngestReport]:
    source = {"wide": WIDE, "subject": SUBJECT}.get(form, LONG)
    tables = read_source("tables", folder=folder, mapping=source, until_hours=6.0)
    split = np.zeros(tables.stays.height, dtype=np.int8)
    return build_cohort(tables, source, step_hours=1.0, n_steps=6, split=split)


Corrupt = Callable[[Path], None]


def edit(change: Callable[[str], str]) -> Corrupt:
    def apply(path: Path) -> None:
        path.write_text(change(path.read_text()), newline="")

    return apply


def swap(old: str, new: str, count: int = -1) -> Corrupt:
    return edit(lambda text: text.replace(old, new, count))


def raw(change: Callable[[bytes], bytes]) -> Corrupt:
    def apply(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return apply


def noise(seed: int, share: float) -> Corrupt:
    def change(data: bytes) -> bytes:
        rng = np.random.default_rng(seed)
        array = np.frombuffer(data, dtype=np.uint8).copy()
        hit = rng.random(len(array)) < share
        array[hit] = rng.integers(0, 256, int(hit.sum()), dtype=np.uint8)
        return array.tobytes()

    return raw(change)


def line(number: int, change: Callable[[str], str]) -> Corrupt:
    def apply(text: str) -> str:
        lines = text.split("\n")
        lines[number] = change(lines[number])
        return "\n".join(lines)

    return edit(apply)


def field(column: int, value: str, number: int = 5) -> Corrupt:
    """One field of one line."""

    def change(text: str) -> str:
        parts = text.split(",")
        parts[column] = value
        return ",".join(parts)

    return line(number, change)


def recompressed(change: Callable[[bytes], bytes]) -> Corrupt:
    return raw(lambda data: gzip.compress(change(gzip.decompress(data))))


def parquet(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Corrupt:
    def apply(path: Path) -> None:
        frame = pl.read_parquet(path)
        change(frame).write_parquet(path)

    return apply


def several(*steps: Corrupt) -> Corrupt:
    def apply(path: Path) -> None:
        for step in steps:
            step(path)

    return apply


BOMB = b"stay,person,time,code,value\n" + b"0" * (64 << 20)

CASES: dict[str, tuple[str, str, Corrupt]] = {
    # the file as a whole
    "empty file": ("long", "error", raw(lambda data: b"")),
    "header only": ("long", "error", edit(lambda text: text.split("\n")[0] + "\n")),
    "no such file": ("long", "error", lambda path: path.unlink()),
    "a folder with nothing in it": ("long", "error", lambda path: (path.unlink(), path.with_suffix("").mkdir())[0]),
    "cut off in a line": ("long", "drops", edit(lambda text: text[: len(text) // 2] + ",")),
    "UTF-16": ("long", "same", raw(lambda data: data.decode().encode("utf-16"))),
    "Latin-1 in a field": ("long", "error", raw(lambda data: data.replace(b"hr", b"h\xe4r", 1))),
    "a byte order mark": ("long", "same", raw(lambda data: b"\xef\xbb\xbf" + data)),
    "Windows line ends": ("long", "same", raw(lambda data: data.replace(b"\n", b"\r\n"))),
    "semicolons": ("long", "same", swap(",", ";")),
    "tabs under the name .csv": ("long", "same", swap(",", "\t")),
    "zero bytes": ("long", "caught", raw(lambda data: data[:200] + b"\0" * 500 + data[200:])),
    "10 % noise": ("long", "caught", noise(1, 0.1)),
    "1 % noise": ("long", "caught", noise(2, 0.01)),
    "all noise": ("long", "error", noise(3, 1.0)),
    "noise in the stays": ("stays", "caught", noise(4, 0.1)),
    "noise in a wide table": ("wide", "caught", noise(5, 0.1)),
    "HTML": ("long", "error", raw(lambda data: b"<html><body>503 Service Unavailable</body></html>")),
    # compression
    "gzip cut off": ("gz", "error", raw(lambda data: data[: len(data) // 2])),
    "gzip with a wrong checksum": ("gz", "error", raw(lambda data: data[:-8] + b"\1\2\3\4" + data[-4:])),
    "not gzip": ("gz", "error", raw(lambda data: gzip.decompress(data))),
    "gzip noise": ("gz", "error", noise(6, 0.1)),
    "gzip bomb of one line": ("gz", "error", raw(lambda data: gzip.compress(BOMB))),
    "gzip of nothing": ("gz", "error", raw(lambda data: gzip.compress(b""))),
    "gzip: text for a number": ("gz", "drops", recompressed(lambda data: data.replace(b",70\n", b",high\n", 1))),
    # structure
    "a column is missing": ("long", "error", swap("value\n", "result\n", 1)),
    "a column twice": ("long", "error", swap("code,value\n", "value,value\n", 1)),
    "columns swapped in the header": ("long", "error", swap("code,value\n", "value,code\n", 1)),
    "time and stay swapped": ("long", "error", swap("stay,person,time", "time,person,stay", 1)),
    "a line with a field too many": ("long", "drops", line(9, lambda text: text + ",1")),
    "a line with a field too few": ("long", "drops", line(9, lambda text: text.rsplit(",", 1)[0])),
    "every line with a field too many": ("long", "error", swap("\ns", "\n,s")),
    "a quote that is not closed": ("long", "caught", field(3, '"hr')),
    "a cell of 20 MiB": ("long", "caught", field(4, "9" * (20 << 20))),
    "a cell of 1 MiB": ("long", "drops", field(4, SECRET * (1 << 16))),
    # cells
    "text for a number": ("long", "drops", field(4, SECRET)),
    "a decimal comma in quotes": ("long", "drops", field(4, '"37,5"')),
    "a limit": ("long", "drops", field(4, "<0.1")),
    "infinite": ("long", "drops", field(4, "inf")),
    "too large for a float": ("long", "drops", field(4, "1e400")),
    "a formula as value": ("long", "drops", field(4, "=cmd|' /C calc'!A0")),
    "a formula as code": ("long", "drops", field(3, "@SUM(1+1)")),
    "an empty value": ("long", "drops", field(4, "")),
    "an empty code": ("long", "drops", field(3, "")),
    "an empty stay": ("long", "drops", field(0, "")),
    "a stay that does not exist": ("long", "drops", field(0, SECRET)),
    "an unreadable time": ("long", "drops", field(2, "13/14/2020 1pm")),
    "a time that was never": ("long", "drops", field(2, "2020-02-31 10:00:00")),
    "a time in another century": ("long", "drops", field(2, "1900-01-01 00:30:00")),
    "a time in the far future": ("long", "drops", field(2, "2999-01-01 00:30:00")),
    "an empty time": ("long", "drops", field(2, "")),
    "one time with an offset": ("long", "error", field(2, "2020-01-01 00:30:00+02:00")),
    "Fahrenheit": ("long", "drops", field(4, "98.6", 2)),
    "a row twice": ("long", "drops", edit(lambda text: text + text.split("\n")[3] + "\n")),
    "wide: text for a number": ("wide", "drops", field(2, SECRET)),
    "wide: an infinite hour": ("wide", "drops", field(1, "inf")),
    "wide: an hour in words": ("wide", "drops", field(1, "noon")),
    "wide: a negative hour": ("wide", "drops", field(1, "-3")),
    "wide: a column renamed": ("wide", "error", swap("temp", "tmp", 1)),
    "by subject: nobody's row": ("subject", "drops", field(1, SECRET)),
    "by subject: after the stay": ("subject", "drops", field(2, "2020-01-01 13:00:00")),
    "by subject: before every stay": ("subject", "drops", field(2, "2019-12-31 13:00:00")),
    # the table of stays
    "a stay twice": ("stays", "error", edit(lambda text: text + text.split("\n")[1] + "\n")),
    "a stay without an id": ("stays", "error", field(0, "")),
    "a stay without a person": ("stays", "error", field(1, "")),
    "a stay that ends before it begins": ("stays", "drops", field(3, "2019-01-01 00:00:00")),
    "a stay without a beginning": ("stays", "drops", field(2, "soon")),
    "every stay without a beginning": ("stays", "error", swap("2020-01-", "Jan ")),
    "a label of 2": ("stays", "error", field(4, "2")),
    "a label in words": ("stays", "error", field(4, SECRET)),
    "one class": ("stays", "error", swap(",1\n", ",0\n")),
    # parquet
    "parquet cut off": ("parquet", "error", raw(lambda data: data[: len(data) // 2])),
    "parquet noise": ("parquet", "error", noise(7, 0.1)),
    "an empty shard": ("parquet", "drops", parquet(lambda frame: frame[:0])),
    "a shard of no bytes": ("parquet", "error", raw(lambda data: b"")),
    "CSV under the name .parquet": ("parquet", "error", raw(lambda data: long_text().encode())),
    "a shard without a column": ("parquet", "error", parquet(lambda frame: frame.drop("code"))),
    "a shard with times as numbers": ("parquet", "drops", parquet(lambda f: f.with_columns(pl.lit(5).alias("time")))),
    "a shard with values as text": (
        "parquet", "drops", parquet(lambda f: f.with_columns(pl.lit(SECRET).alias("value")))
    ),
    "a shard with nulls for stays": (
        "parquet", "drops", parquet(lambda f: f.with_columns(pl.lit(None, pl.String).alias("stay")))
    ),
    "a shard twice": ("parquet", "drops", lambda path: shutil.copy(path, path.parent / "2.parquet") and None),
}  # fmt: skip


def content(cohort: Cohort) -> list[Any]:
    arrays = (cohort.values, cohort.static, cohort.labels, cohort.split)
    return [*(array.tobytes() for array in arrays), cohort.stay_ids.tolist(), cohort.subject_ids.tolist()]


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Cohort, IngestReport]]:
    found = {}
    for form in ("long", "gz", "wide", "subject", "stays", "parquet"):
        folder = tmp_path_factory.mktemp(form)
        clean(folder, form)
        found[form] = ingest(folder, form)
        assert not found[form][1].rows_dropped
    return found


def attempt(folder: Path, form: str) -> tuple[DataError | None, tuple[Cohort, IngestReport] | None]:
    """What came of it; any other exception is a failure of the test."""
    try:
        return None, ingest(folder, form)
    except DataError as error:
        return error, None


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", CASES)
def test_corrupted(name: str, references: dict[str, tuple[Cohort, IngestReport]], tmp_path: Path) -> None:
    form, expected, corrupt = CASES[name]
    corrupt(clean(tmp_path, form))
    refused, made = attempt(tmp_path, form)
    if made is None:
        assert expected in ("error", "caught"), str(refused)
        assert SECRET not in str(refused)
        assert 10 < len(str(refused)) < 400 + len(str(tmp_path))
        return
    cohort, report = made
    before, before_report = references[form]
    assert expected != "error", dict(report.rows_dropped)
    assert report.rows_read == report.rows_used + sum(report.rows_dropped.values())
    assert SECRET not in repr(report)
    if expected == "same":
        assert content(cohort) == content(before)
    else:
        told = report.rows_dropped or report.notes != before_report.notes or report.rows_read != before_report.rows_read
        assert told


@pytest.mark.timeout(300)
@pytest.mark.parametrize("form", ["long", "gz", "wide", "subject", "stays", "parquet"])
def test_noise(form: str, references: dict[str, tuple[Cohort, IngestReport]], tmp_path: Path) -> None:
    """Twenty more broken files of each form: random bytes, a random cut, or a random stretch twice."""
    rng = np.random.default_rng(len(form))
    for number in range(20):
        folder = tmp_path / str(number)
        path = clean(folder, form)
        data = path.read_bytes()
        first, last = sorted(rng.integers(1, len(data), 2).tolist())
        if number % 3 == 0:
            noise(number, float(rng.choice([0.001, 0.01, 0.1, 0.5])))(path)
        elif number % 3 == 1:
            path.write_bytes(data[:first] + data[last:])
        else:
            path.write_bytes(data[:last] + data[first:last] + data[last:])
        refused, made = attempt(folder, form)
        if made is None:
            assert refused is not None
            assert len(str(refused)) > 10
        else:
            assert made[1].rows_read == made[1].rows_used + sum(made[1].rows_dropped.values())


def test_decimal_commas_and_limits_are_read_where_the_mapping_says_so(tmp_path: Path) -> None:
    path = clean(tmp_path, "long")
    several(field(4, '"71,5"', 3), field(4, "<70", 5))(path)
    layout = {**LONG_LAYOUT, "decimal_comma": True, "take_limits": True}
    source = mapping(layout)
    tables = read_source("tables", folder=tmp_path, mapping=source, until_hours=6.0)
    assert not tables.rows_dropped
    assert {71.5, 70.0} <= set(tables.events.filter(pl.col("stay_id") == "s0")["value"].to_list())


LONG_LAYOUT: dict[str, Any] = {
    "stays": STAYS,
    "events": [{"file": "events", "key": "stay", "time": "time", "code": "code", "value": "value"}],
}
