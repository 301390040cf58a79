"""Kinds of faults in files, columns and values: another cohort never comes without a word.

A source of twelve stays is spoilt in one way. What comes of it is an error, the very same cohort, or another one whose
report has other counts or notes than the clean one's; kinds that must be told in a certain way name their words.
"""

from __future__ import annotations

import gzip
import math
import random
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.stages.report import people_of_classes
from pipeline.core.errors import DataError
from pipeline.core.types import Cohort, IngestReport, Variable
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.doubts.heaps import Values, heap_notes
from pipeline.ingest.cohort.doubts.slips import other_units
from pipeline.ingest.engine.event_tables import read_event_tables
from pipeline.ingest.mapping.load import SourceMapping, parse_mapping
from pipeline.ingest.source_tables import require_some
from pipeline.report.changes import changes, outline_of
from pipeline.report.data_look import look_at
from pipeline.validation.site_columns import cohort_profile

N: Final = 12
BEGIN: Final = datetime(2024, 3, 1, 8)
STAYS: Final = "stay,person,start,end,site\n" + "".join(
    f"{1001 + i},P{i:02d},{BEGIN + timedelta(days=2 * i)},{BEGIN + timedelta(days=2 * i + 1)},{'AB'[i % 2]}\n"
    for i in range(N)
)
LABELS: Final = "stay,died\n" + "".join(f"{1001 + i},{i % 2}\n" for i in range(N))
ROWS: Final = [
    f"{1001 + i},{BEGIN + timedelta(days=2 * i, hours=h, minutes=15)},{code},{value + i + h / 4},{unit}"
    for i in range(N)
    for h in range(6)
    for code, value, unit in (("HR", 70, "/min"), ("Glucose", 100, "mg/dL"))
]
LAB: Final = "\n".join(["stay,t,code,value,unit", *ROWS]) + "\n"


def mapping_of(**keys: Any) -> SourceMapping:
    wide = {"plausible": [0.001, 3000], "scale": [30, 400], "normal": 100}
    stays = {"file": "stays", "stay": "stay", "subject": "person", "start": "start", "end": "end", "site": "site"}
    stays["join"] = [{"file": "labels", "on": ["stay"], "columns": {"died": "died"}}]
    events = {"file": "lab", "key": "stay", "time": "t", "code": "code", "value": "value", "unit": "unit"}
    raw = {
        "variables": {"HR": {"unit": "/min", **wide}, "Glucose": {"unit": "mg/dL", **wide}},
        "unknown_variables": "drop",
        "tasks": {"died": {"kind": "binary", "column": "died"}},
        "layout": {"timezone": "UTC", "stays": stays, "events": [{**events, "operator": "op"}]},
        **keys,
    }
    return parse_mapping(raw, "t", "t.toml", "0" * 64)


def ingest(folder: Path, **keys: Any) -> tuple[Cohort, IngestReport]:
    mapping = mapping_of(**keys)
    tables = read_event_tables(folder=folder, mapping=mapping, until_hours=24.0 if keys else 6.0)
    return build_cohort(
        tables, mapping, step_hours=1.0, n_steps=6, split=lambda subjects: np.zeros(len(subjects), np.int8)
    )


def write(folder: Path) -> None:
    (folder / "lab").mkdir()
    half = len(ROWS) // 2
    for name, rows in (("a", ROWS[:half]), ("b", ROWS[half:])):
        (folder / f"lab/{name}.csv").write_text("\n".join([LAB.split("\n")[0], *rows]) + "\n")
    (folder / "stays.csv").write_text(STAYS)
    (folder / "labels.csv").write_text(LABELS)


Spoil = Callable[[Path], object]


def text(name: str, change: Callable[[str], str]) -> Spoil:
    return lambda folder: (folder / name).write_text(change((folder / name).read_text()), newline="")


def lines(change: Callable[[int, str], str], name: str = "lab/b.csv") -> Spoil:
    return text(name, lambda old: "\n".join(change(i, line) if line else "" for i, line in enumerate(old.split("\n"))))


def raw(change: Callable[[bytes], bytes], name: str = "lab/b.csv") -> Spoil:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def field(column: int, change: Callable[[str], str], *, every: int = 3, name: str = "lab/b.csv") -> Spoil:
    def one(number: int, line: str) -> str:
        parts = line.split(",")
        if number and number % every == 0:
            parts[column] = change(parts[column])
        return ",".join(parts)

    return lines(one, name)


def moment(form: str) -> Callable[[str], str]:
    return lambda old: datetime.fromisoformat(old).strftime(form)


def parquet(name: str, column: str, new: pl.Expr) -> Spoil:
    def apply(folder: Path) -> None:
        frame = pl.read_csv(folder / f"{name}.csv", infer_schema=False).with_columns(new.alias(column))
        (folder / f"{name}.csv").unlink()
        frame.write_parquet(folder / f"{name}.parquet")

    return apply


def epoch(old: str) -> str:
    return str(int((datetime.fromisoformat(old) - datetime(1970, 1, 1)).total_seconds()))


FAULTS: Final[dict[str, tuple[Spoil, str]]] = {
    "epoch seconds": (field(1, epoch), ""),
    "Excel serial": (field(1, lambda old: f"{int(epoch(old)) / 86400 + 25569:.6f}"), ""),
    "two-digit years": (field(1, moment("%d.%m.%y %H:%M")), ""),
    "12-hour clock without its mark": (field(1, lambda t: t.replace(" 13:", " 01:"), every=1), ""),
    "leap second": (field(1, moment("%Y-%m-%d %H:14:60")), ""),
    "weeks": (field(1, moment("%G-W%V-%u %H:%M")), ""),
    "zones in words": (field(1, lambda old: f"{old} CET"), ""),
    "midnights": (field(1, moment("%Y-%m-%d 00:00:00"), every=1), "72 of 168 times are exactly midnight"),
    "a unit with a blank of no width": (field(4, lambda old: f"\u200b{old}\ufeff"), "same"),
    "thin spaces": (field(3, lambda old: f"{old}\u2009"), "same"),
    "marks of thousands": (field(3, lambda old: rng.choice(["1,080", "1'080", "1\u202f080", "1.080,5"])), ""),
    "no numbers": (field(3, lambda old: rng.choice(["+", "neg", "---", "5?", "12-15", "\u221280", "0x1F", "1_0"])), ""),
    "ids with a blank of no width": (field(0, lambda old: f"{old}\u200b"), "case, blanks, marks"),
    "ids with marks of thousands": (field(0, lambda old: f"'{old}"), "case, blanks, marks"),
    "ids as powers": (field(0, lambda old: f"{float(old):.2e}"), ""),
    "a NUL in ids": (raw(lambda data: data.replace(b"\n1010,", b"\n1010\0,")), "case, blanks, marks"),
    "ends of lines of the old Mac": (raw(lambda data: data.replace(b"\n", b"\r")), "same"),
    "an open quote": (lines(lambda i, line: line.replace(",", ',"', 1) if i == 5 else line), "error"),
    "delimiters at the end": (lines(lambda i, line: f"{line},"), "same"),
    "delimiters at the end of rows": (lines(lambda i, line: f"{line}," if i else line), "error"),
    "the header again": (lines(lambda i, line: f"{line}\nstay,t,code,value,unit" if i == 9 else line), ""),
    "columns the other way round": (lines(lambda i, line: ",".join(line.split(",")[::-1])), "same"),
    "names of two columns swapped": (text("lab/b.csv", lambda old: old.replace("value,unit", "unit,value", 1)), ""),
    "a column missing in a file": (lines(lambda i, line: line.rsplit(",", 1)[0]), "error"),
    "a file twice": (lambda f: shutil.copy(f / "lab/b.csv", f / "lab/b (1).csv"), "same"),
    "a file of another kind": (lambda f: (f / "lab/b.csv").rename(f / "lab/b.bak"), "not read: lab/b.bak"),
    "gzip cut off": (
        lambda f: [(f / "lab/b.csv.gz").write_bytes(gzip.compress((f / "lab/b.csv").read_bytes())[:-40]),
                   (f / "lab/b.csv").unlink()], "error"),
    "admission is discharge": (field(3, lambda old: str(datetime.fromisoformat(old) - timedelta(days=1)),
                                     name="stays.csv"), ""),
    "negative stays": (field(3, lambda old: "2024-01-01 00:00", name="stays.csv"), "ends before it starts"),
    "a stay under two ids": (
        lambda f: [text("stays.csv", lambda old: old + old.split("\n")[1].replace("1001", "2001") + "\n")(f),
                   text("labels.csv", lambda old: f"{old}2001,1\n")(f)], "begin before another stay"),
    "sites in several forms": (field(4, str.lower, name="stays.csv"), "2 sites have a name"),
    "people under one id": (field(1, lambda old: "0", every=1, name="stays.csv"), "12 of 12 stays are of one subject"),
    "sites missing": (field(4, lambda old: "", name="stays.csv"), "4 of 12 stays have no site"),
    "labels that disagree": (text("labels.csv", lambda old: f"{old}1001,1\n"), "error"),
    "labels of other ids": (field(0, lambda old: f"0{old}", every=1, name="labels.csv"), "error: name no stay"),
    "limits by a column": (lines(lambda i, line: f"{line},{'op' if i == 0 else '<' if i == 5 else '='}"), "a limit"),
    **{f"{what} in {column}": (parquet(table, column, new), "error")
       for table, column in (("lab/b", "t"), ("lab/b", "stay"), ("lab/b", "code"), ("stays", "start"),
                             ("stays", "site"), ("labels", "died"))
       for what, new in (("lists", pl.concat_list(column)), ("bytes", pl.lit(b"\xff")))},
    "durations as ids": (parquet("lab/b", "stay", pl.lit(timedelta(hours=3))), ""),
    "durations as times": (parquet("lab/b", "t", pl.lit(timedelta(hours=3))), ""),
    "durations in the stays": (parquet("stays", "site", pl.lit(timedelta(hours=3))), "error: holds durations"),
    "text as bytes": (parquet("lab/b", "code", pl.col("code").cast(pl.Binary)), "same"),
}  # fmt: skip
rng = random.Random(18)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, IngestReport]:
    folder = tmp_path_factory.mktemp("truth")
    write(folder)
    return ingest(folder)


@pytest.mark.parametrize("kind", FAULTS)
def test_no_fault_passes_in_silence(kind: str, truth: tuple[Cohort, IngestReport], tmp_path: Path) -> None:
    spoil, expected = FAULTS[kind]
    write(tmp_path)
    spoil(tmp_path)
    try:
        cohort, report = ingest(tmp_path)
    except DataError as error:
        refused = str(error)
    else:
        refused = ""
    if refused:
        assert not expected or expected.startswith("error"), refused
        assert expected.removeprefix("error").removeprefix(": ") in refused
        return
    clean, account = truth
    notes = [note for note in report.notes if note not in account.notes]
    same = cohort.stay_ids.tolist() == clean.stay_ids.tolist() and np.array_equal(cohort.labels, clean.labels)
    same = same and np.array_equal(cohort.values, clean.values, equal_nan=True)
    assert not expected.startswith("error")
    if expected == "same":
        assert same
    else:
        told = [*notes, *report.rows_dropped]
        assert any(expected in words for words in told) if expected else same or told


def test_the_account_is_told_where_no_row_is_left(tmp_path: Path) -> None:
    write(tmp_path)
    for name in ("lab/a.csv", "lab/b.csv"):
        field(1, moment("%Y-%m-%d"), every=1, name=name)(tmp_path)
    with pytest.raises(DataError, match=r"none of 144 rows can be used: 144 outside the window; .*144 times"):
        require_some(read_event_tables(folder=tmp_path, mapping=mapping_of(), until_hours=6.0))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["kPa", "mmol/L", "L/h", "mark", ""]), st.floats(0.15, 0.85))
def test_a_second_heap_of_values_is_told(seed: int, slip: str, share: float) -> None:
    """Values of another unit or without their decimal mark, though plausible; never the tail of one heap.

    Of 400 values at least 30 are of the lesser heap but twice in 10^6 draws (binomial); ten near its middle are needed.
    """
    random_ = np.random.default_rng(seed)
    name, unit, low, high, middle = {
        "kPa": ("PaO2", "mmHg", 30, 450, 95),
        "mmol/L": ("Glucose", "mg/dL", 40, 400, 120),
        "L/h": ("Urine", "mL/h", 0, 500, 80),
        "mark": ("WBC", "10^9/L", 0, 40, 9),
        "": ("Bilirubin", "mg/dL", 0, 12, 1.2),
    }[slip]
    variable = Variable(name, unit, 0.001, 9000, low, high, middle, "mean")
    lines = other_units(variable)
    values = np.round(random_.lognormal(np.log(middle), 0.25 if slip else 1.0, 400), 1)
    spoilt = random_.random(400) < share
    factor = 0.1 if slip == "mark" else dict(lines).get(slip, (1.0, 0.0))[0]
    values[spoilt] = np.round(values[spoilt] / factor, 0 if slip == "mark" else 4)
    notes = heap_notes(variable, lines, Values(*np.unique(values[values > 0], return_counts=True)))
    words = "decimal mark" if slip == "mark" else f"where those in {slip} would"
    assert [words in note for note in notes] == ([True] if slip else [])


def test_figures_of_many_predictions_of_few_people_are_held_back(tmp_path: Path) -> None:
    """Twelve people with 36 predictions; glucose of seven of them, in 21 of these."""
    write(tmp_path)
    kept = [line for line in LAB.split("\n") if not (line > "1008" and "Glucose" in line and line[0] == "1")]
    shutil.rmtree(tmp_path / "lab")
    (tmp_path / "lab.csv").write_text("\n".join(kept))
    cohort, report = ingest(tmp_path, prediction_times={"every": "2h", "until": "end", "at_most": "6h"})
    assert len(cohort.stay_ids) == 3 * N
    assert cohort.observed[:, :, 1].any(axis=1).sum() == 21
    look = look_at(cohort, report)
    heart, glucose = look["variables"]
    assert (heart["stays"], glucose["stays"], glucose["share_of_stays"]) == (36, "<10", "<10")
    assert set(glucose["quantiles"]) == {"<10"}
    assert look["ingest"]["coverage"] == {"HR": 1.0, "Glucose": "<10"}
    assert look["ingest"]["prevalence"]["died"] == "<10"  # of six people each, in 18 predictions
    assert people_of_classes(cohort.labels[:, 0], cohort.subject_index) == {"0": 6, "1": 6}
    profile = cohort_profile(cohort, report)
    assert math.isnan(profile["Glucose: median"])
    assert math.isnan(profile["died: prevalence"])
    assert profile["HR: median"] > 70
    shorter, _ = ingest(tmp_path, prediction_times={"every": "2h", "until": "end", "at_most": "4h"})
    (tmp_path / "stays.csv").write_text("\n".join(STAYS.split("\n")[:-4]) + "\n")
    fewer, _ = ingest(tmp_path, prediction_times={"every": "2h", "until": "end", "at_most": "6h"})
    whole, before, left = (outline_of(item, b"key") for item in (cohort, shorter, fewer))
    assert changes(before, whole)["stays_added"] == 12
    found = changes(whole, left)
    assert (found["stays_added"], found["stays_removed"], found["stays_corrected"]) == ("withheld", "<10", 0)
