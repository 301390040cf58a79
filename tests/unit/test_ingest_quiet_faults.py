"""Faults that leave every row readable and plausible: the report says what looks odd, and of a clean source nothing.

A source of 260 stays in two sites is spoilt in one way, and the sentence is looked for that the report did not have
before. The embedded stays, which are real, have none of these sentences.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError
from pipeline.core.types import Cohort, IngestReport
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.cohort.doubts.labels import _standard_errors
from pipeline.ingest.cohort.doubts.neighbours import in_other_unit
from pipeline.ingest.cohort.doubts.swaps import swap_notes
from pipeline.ingest.engine.event_tables import read_event_tables
from pipeline.ingest.mapping.load import SourceMapping, load_mapping, parse_mapping
from pipeline.ingest.sources.embedded import read_embedded

CORRECTED: Final = "times a stay has two values of one code less than a minute apart, and no other near: a correction?"
Frames = dict[str, pl.DataFrame]
STAYS: Final = 260
PAIRS: Final = 20  # stay i and stay i + 20 are of one person
BEGIN: Final = datetime(2024, 3, 1, 8)


def variable(unit: str, low: float, high: float, normal: float, **facts: Any) -> dict[str, Any]:
    return {"unit": unit, "plausible": [0, 5000], "scale": [low, high], "normal": normal, **facts}


RAW: Final[dict[str, Any]] = {
    "variables": {
        "pulse": variable("/min", 30, 180, 80, sources=["P"]),
        "warmth": variable("degC", 32, 42, 37, sources=["W"], resolution=0.1),
        "salt": variable("mmol/L", 2, 8, 4.1, sources=["S"]),
        "upper": variable("mmHg", 50, 220, 120, sources=["U"], aggregation="last"),
        "lower": variable("mmHg", 20, 120, 65, sources=["L"], below=["upper"]),
        "water": variable("mL/h", 0, 500, 70, sources=["V"], aggregation="sum"),
    },
    "statics": {
        "sex": {"unit": "0 or 1", "plausible": [0, 1], "scale": [0, 1], "normal": 1, "over_stays": "same"},
        "age": {"unit": "years", "plausible": [10, 120], "scale": [15, 95], "normal": 65, "over_stays": "rising"},
    },
    "tasks": {"died": {"kind": "binary", "column": "died", "final": True}},
    "layout": {
        "timezone": "UTC",
        "stays": {"file": "stays", "stay": "stay", "subject": "person", "start": "start", "site": "site",
                  "join": [{"file": "labels", "on": ["stay"], "columns": {"died": "died"}}]},
        "events": [{"file": "lab", "key": "stay", "time": "t", "code": "code", "value": "value"}],
    },
}  # fmt: skip


def mapping_of(raw: dict[str, Any] = RAW) -> SourceMapping:
    return parse_mapping(raw, "t", "t.toml", "0" * 64)


def source() -> Frames:
    rng = np.random.default_rng(7)
    died = rng.integers(0, 2, STAYS)
    died[:PAIRS] = 0
    stays = pl.DataFrame(
        {
            "stay": [f"s{i:03d}" for i in range(STAYS)],
            "person": [f"p{i - PAIRS if PAIRS <= i < 2 * PAIRS else i:03d}" for i in range(STAYS)],
            "start": [BEGIN + timedelta(days=i + (400 if i >= PAIRS else 0)) for i in range(STAYS)],
            "site": ["AB"[i % 2] for i in range(STAYS)],
            "sex": [i // 3 % 2 if not PAIRS <= i < 2 * PAIRS else (i - PAIRS) // 3 % 2 for i in range(STAYS)],
            "age": [60 + (i - PAIRS) % 30 + 1 if PAIRS <= i < 2 * PAIRS else 60 + i % 30 for i in range(STAYS)],
        }
    )
    rows = []
    for i, (stay, start) in enumerate(stays.select("stay", "start").iter_rows()):
        for hour in range(6):
            pulse = 78 + 20 * died[i] + rng.normal(0, 8)
            values = {"P": round(pulse), "W": round(rng.normal(37.1, 0.6), 1), "S": round(rng.normal(4, 0.4), 1)}
            upper = round(rng.normal(119, 12))
            values |= {"U": upper, "L": upper - 30 - int(rng.integers(0, 40)), "V": int(rng.integers(0, 6)) * 30}
            rows += [(stay, start + timedelta(hours=hour, minutes=5), code, float(v)) for code, v in values.items()]
    lab = pl.DataFrame(rows, schema=["stay", "t", "code", "value"], orient="row")
    return {"stays": stays, "lab": lab, "labels": pl.DataFrame({"stay": stays["stay"], "died": died})}


def ingest(folder: Path, frames: Frames, mapping: SourceMapping | None = None) -> tuple[Cohort, IngestReport]:
    mapping = mapping_of() if mapping is None else mapping
    for name, frame in frames.items():
        frame.write_csv(folder / f"{name}.csv")
    tables = read_event_tables(folder=folder, mapping=mapping, until_hours=6.0)
    return build_cohort(tables, mapping, step_hours=1.0, n_steps=6, split=np.zeros(tables.stays.height, np.int8))


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, IngestReport]:
    cohort, report = ingest(tmp_path_factory.mktemp("clean"), source())
    assert report.notes == ()
    return cohort, report


Spoil = Callable[[Frames], Frames]


def lab(*columns: pl.Expr) -> Spoil:
    return lambda frames: {**frames, "lab": frames["lab"].with_columns(*columns)}


def stays(*columns: pl.Expr) -> Spoil:
    return lambda frames: {**frames, "stays": frames["stays"].with_columns(*columns)}


def whole(where: pl.Expr) -> Spoil:
    return lab(pl.when(where).then(pl.col("value").round()).otherwise("value").alias("value"))


def codes(one: str, other: str, where: pl.Expr | None = None) -> Spoil:
    swapped = pl.col("code").replace({one: other, other: one})
    return lab(swapped if where is None else pl.when(where).then(swapped).otherwise("code").alias("code"))


def corrected(code: str, every: int = 9) -> Spoil:
    def apply(frames: Frames) -> Frames:
        again = frames["lab"].filter(pl.col("code") == code).gather_every(every)
        again = again.with_columns(pl.col("t") + timedelta(seconds=1), pl.col("value") + 3)
        return {**frames, "lab": pl.concat([frames["lab"], again])}

    return apply


def labels(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Spoil:
    return lambda frames: {**frames, "labels": change(frames["labels"])}


IN_B: Final = pl.col("stay").str.slice(1).cast(pl.Int32) % 2 == 1
LATER: Final = pl.col("stay").str.slice(1).cast(pl.Int32).is_between(PAIRS, 2 * PAIRS - 1)
SALT: Final = pl.col("code") == "S"
FAULTS: Final[dict[str, tuple[Spoil, str]]] = {
    "decimals lost": (whole(SALT), r"all 1560 values of salt are whole numbers"),
    "decimals lost, as integers": (whole(pl.col("code") == "W"), r"all 1560 values of warmth are whole numbers"),
    "decimals lost in a site": (whole(SALT & IN_B), r"all 780 values of salt in 1 of the sites are whole numbers"),
    "corrections of a mean": (corrected("P"), rf"174 {re.escape(CORRECTED)} \(their mean is used\)"),
    "corrections of the last": (corrected("U"), rf"174 {re.escape(CORRECTED)} \(the later is used\)"),
    "corrections of a sum": (corrected("V"), rf"174 {re.escape(CORRECTED)} \(their sum is used\)"),
    "pressures swapped": (codes("U", "L"), r"1560 of 1560 steps of 260 stays have a lower above the upper"),
    "pressures swapped in stays": (
        codes("U", "L", pl.col("stay").is_in(["s003", "s004"])), r"12 of 12 steps of 2 stays have a lower above the up"
    ),
    "single values in another unit": (
        lab(
            pl.when(pl.col("code") == "U", pl.col("t").dt.hour() == 10, pl.col("stay").str.contains("(07|19|33)$"))
            .then(pl.col("value") / 7.50062)
            .otherwise("value")
            .alias("value")
        ),
        r"\d values of upper lie apart from the others of their stay, where those in kPa would",
    ),
    "codes swapped": (codes("P", "U"), r"the middles of pulse and upper lie where each other's would"),
    "another sex": (stays((1 - pl.col("sex")).alias("sex")), ""),
    "sexes of others": (
        stays(pl.when(LATER).then(1 - pl.col("sex")).otherwise("sex").alias("sex")),
        r"20 stays have another sex than an earlier stay of the same subject",
    ),
    "ages of others": (
        stays(pl.when(LATER).then(pl.col("age") - 9).otherwise("age").alias("age")), r"in 20 stays age falls"
    ),
    "ages that leap": (
        stays(pl.when(LATER).then(pl.col("age") + 9).otherwise("age").alias("age")), r"outruns the time"
    ),
    "stays of others": (
        stays(pl.when(LATER).then(pl.col("person").shift(7)).otherwise("person").alias("person")), r"stays age falls"
    ),
    "dead before": (
        labels(lambda old: old.with_columns(pl.when(LATER).then(0).otherwise(1 - (~LATER) * 0).alias("died"))),
        r"20 stays without died follow one of the same subject that has it",
    ),
    "labels slipped by a row": (
        labels(lambda old: old.with_columns(pl.col("died").shift(1, fill_value=0))), r"died is related to no variable"
    ),
    "labels in the order of others": (
        labels(lambda old: old.with_columns(pl.col("died").shuffle(seed=3))), r"died is related to no variable"
    ),
    "no volume": (
        lab(pl.when((pl.col("code") == "V") & (pl.col("value") < 150)).then(0.0).otherwise("value").alias("value")),
        r"values of water are 0: is it a code for missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_odd_is_said(name: str, clean: tuple[Cohort, IngestReport], tmp_path: Path) -> None:
    spoil, words = FAULTS[name]
    _, report = ingest(tmp_path, spoil(source()))
    said = [note for note in report.notes if re.search(words, note)] if words else []
    assert bool(said) == bool(words), report.notes
    assert words or not report.notes  # what is no fault is none
    assert not re.search(r"s\d{3}|p\d{3}", " ".join(report.notes))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 59), st.integers(2, 40), st.sampled_from("PWSULV"))
def test_corrections_are_found_at_any_distance(
    tmp_path_factory: pytest.TempPathFactory, seconds: int, every: int, code: str
) -> None:
    frames = source()
    again = frames["lab"].filter(pl.col("code") == code).gather_every(every)
    again = again.with_columns(pl.col("t") + timedelta(seconds=seconds), pl.col("value") + 1)
    _, report = ingest(tmp_path_factory.mktemp("at"), {**frames, "lab": pl.concat([again, frames["lab"]])})
    assert any(note.startswith(f"{again.height} {CORRECTED}") for note in report.notes)


def test_frequent_measurements_and_repeats_are_no_corrections(tmp_path: Path) -> None:
    frames = source()
    pulse = frames["lab"].filter(pl.col("code") == "P")
    often = [pulse.with_columns(pl.col("t") + timedelta(seconds=40 * k), pl.col("value") + k) for k in range(1, 9)]
    same = frames["lab"].with_columns(pl.col("t") + timedelta(seconds=30)).filter(pl.col("code") == "S")
    _, report = ingest(tmp_path, {**frames, "lab": pl.concat([frames["lab"], *often, same])})
    assert not any(CORRECTED in note for note in report.notes)


def test_real_stays_have_none_of_these_notes() -> None:
    """Sets A and B: 8,000 stays, each of its own subject."""
    mapping, tables = load_mapping("physionet2012"), read_embedded()
    _, report = build_cohort(tables, mapping, step_hours=1.0, n_steps=48, split=np.zeros(tables.stays.height, np.int8))
    assert report.notes == (
        "10 stays have no series at all and are kept",
        "the source has no subject ids: every stay counts as its own subject",
    )


@pytest.mark.parametrize(
    ("kind", "name", "fact", "words"),
    [
        ("variables", "lower", {"below": "upper"}, "below has the wrong type"),
        ("variables", "salt", {"resolution": "fine"}, "resolution has the wrong type"),
        ("statics", "age", {"over_stays": "falls"}, "over_stays is one of same, rising"),
        ("tasks", "died", {"final": 1}, "final has the wrong type"),
        ("tasks", "died", {"finl": True}, "unknown key finl"),
    ],
)
def test_facts_are_checked(kind: str, name: str, fact: dict[str, Any], words: str) -> None:
    entries = {**RAW[kind], name: {**RAW[kind][name], **fact}}
    with pytest.raises(ConfigError, match=words):
        mapping_of({**RAW, kind: entries})


def test_decimals_are_read_off_the_constants() -> None:
    facts = mapping_of().facts
    assert facts.decimal == {"warmth", "salt"}
    raw = {**RAW, "variables": {**RAW["variables"], "salt": {**RAW["variables"]["salt"], "resolution": 1}}}
    assert mapping_of(raw).facts.decimal == {"warmth"}
    assert {"pH", "K", "Temp", "Mg"} <= load_mapping("mimic_iv").facts.decimal
    assert "HR" not in load_mapping("mimic_iv").facts.decimal


def test_normal_values_that_lie_together_tell_nothing() -> None:
    near = mapping_of().variables
    assert swap_notes(near, [118.0, 37, 4, 82, 60, 70]) != ()
    assert swap_notes(near, [np.nan, 37, 4, 82, 60, 70]) == ()
    assert swap_notes(near, [80.0, 37, 4, 120, 65, 70]) == ()


def test_a_value_beside_its_stay_in_another_unit_counted_by_hand() -> None:
    """Pressures of 120, once in kPa; and low ones of a stay that is low, or that has too few to say."""
    upper = mapping_of().variables[3]
    stay, line = np.array([5, 5, 5, 7, 7, 7, 9, 9]), (7.50062, 0.0)
    assert in_other_unit(stay, np.array([120, 16, 118.0, 22, 20, 21, 120, 16]), line, upper) == 1
    assert in_other_unit(stay, np.array([120, 12, 118.0, 120, 121, 119, 120, 16]), line, upper) == 0
    assert in_other_unit(stay, np.full(8, 16.0), (1.36, 0.0), upper) == 0  # units that lie together


def test_the_rank_sum_counted_by_hand() -> None:
    """Ranks 1 2 3 4 5 6, of the ones 4 + 5 + 6 = 15, by chance 10.5; variance 3 * 3 * 7 / 12 = 5.25."""
    label = np.array([0.0, 0, 0, 1, 1, 1])
    assert _standard_errors(np.arange(6.0), label) == pytest.approx(4.5 / np.sqrt(5.25))
    ties = np.array([1.0, 1, 1, 1, 1, 2])  # ranks 3 3 3 3 3 6; variance 9 / 12 * (7 - 120 / 30) = 2.25
    assert _standard_errors(ties, label) == pytest.approx(1.5 / np.sqrt(2.25))
    assert _standard_errors(np.ones(6), label) == 0
