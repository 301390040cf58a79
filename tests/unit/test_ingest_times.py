"""Times as databases and laboratories write them: read, or of no known form; never another moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError, DataError
from pipeline.ingest.engine.event_tables import read_event_tables
from pipeline.ingest.engine.instants import ClockKinds, instants
from pipeline.ingest.mapping.load import parse_mapping
from pipeline.ingest.source_tables import SourceTables


def read(texts: list[Any], zone: str | None = None, dates: str | None = None) -> list[datetime | None]:
    found = instants(pl.Series("t", texts), zone, ClockKinds(), dates)
    return pl.from_epoch(found, time_unit="us").to_list()


NOON = datetime(2024, 3, 1, 12, 15)


@pytest.mark.parametrize(
    "text",
    ["2024-03-01 12:15", "2024-03-01T12:15:00.000000000", "2024/03/01 12:15:00", "2024.03.01 12:15", "20240301121500",
     "20240301 1215", "20240301T121500", "2024-3-1 12:15", "2024-03-01 12:15:00,000", 20240301121500],
)  # fmt: skip
def test_forms_of_a_local_time(text: Any) -> None:
    assert read([text]) == [NOON]


@pytest.mark.parametrize("offset", ["+02", "+0200", "+02:00", " +02"])
def test_forms_of_an_offset(offset: str) -> None:
    assert read([f"2024-03-01 14:15:00{offset}"]) == [NOON]


def test_words_for_utc() -> None:
    assert read(["2024-03-01 12:15:00 UTC", "2024-03-01T12:15:00Z"]) == [NOON, NOON]
    assert read(["2024-03-01 12:15", "2024-03-01 12:15:00 UTC"]) == [
        NOON,
        None,
    ]  # which zone the first is of, nobody knows


def test_midnight_at_the_end_of_a_day() -> None:
    assert read(["2024-02-29 24:00", "2024-02-29 24:00:00", "2024-12-31 24:00"]) == [
        datetime(2024, 3, 1), datetime(2024, 3, 1), datetime(2025, 1, 1)
    ]  # fmt: skip
    assert read(["2024-02-29 24:01", "2024-02-29 25:00"]) == [None, None]


def test_orders_of_a_date_need_the_mappings_word() -> None:
    texts = ["02.03.2024 10:15", "2/3/2024 10:15", "2024-03-02 10:15", "31.12.2023"]
    assert read(texts) == [None, None, datetime(2024, 3, 2, 10, 15), None]
    march, december = datetime(2024, 3, 2, 10, 15), datetime(2023, 12, 31)
    assert read(texts, dates="day_first") == [march, march, march, december]
    assert read(texts, dates="month_first") == [datetime(2024, 2, 3, 10, 15)] * 2 + [march, None]
    assert read(["02.03.24 10:15"], dates="day_first") == [None]


def test_numbers_of_unknown_epochs_are_no_times() -> None:
    assert read([1709295300, 1709295300000, 12]) == [None, None, None]


@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)).map(lambda t: t.replace(microsecond=0)),
    st.sampled_from(
        ["%Y-%m-%d %H:%M:%S", "%Y/%m/%dT%H:%M:%S", "%Y%m%d%H%M%S", "%d.%m.%Y %H:%M:%S", "%d-%m-%Y %H:%M:%S"]
    ),
    st.none() | st.integers(-11, 12),
)
def test_a_time_is_itself_in_every_form(moment: datetime, form: str, ahead: int | None) -> None:
    text = moment.strftime(form)
    if ahead is not None and ":" in text:
        text = (moment + timedelta(hours=ahead)).strftime(form) + f"{ahead:+03d}"
    found = read([text.replace(f"{moment.year:d}", f"{moment.year:04d}")], dates="day_first")
    assert found == [moment]
    assert moment.replace(tzinfo=UTC).tzinfo is UTC


def tables(folder: Path, time: pl.Series, **events: Any) -> SourceTables:
    (folder / "stays.csv").write_text("stay,start,died\n1,2024-03-01 08:00,0\n")
    pl.DataFrame(
        {"stay": ["1"] * len(time), "t": time, "x": [1.0] * len(time), **events.pop("columns", {})}
    ).write_parquet(folder / "e.parquet")
    raw = {
        "variables": {"x": {"unit": "u", "plausible": [0, 9], "scale": [0, 9], "normal": 1}},
        "tasks": {"died": {"kind": "binary", "column": "died"}},
        "layout": {
            "stays": {"file": "stays", "stay": "stay", "start": "start"},
            "events": [{"file": "e", "key": "stay", "time": "t", **events}],
        },
    }
    return read_event_tables(folder=folder, mapping=parse_mapping(raw, "t", "t.toml", "0" * 64))


@pytest.mark.parametrize("unit", ["hours", "minutes", "days"])
def test_a_duration_has_its_unit_and_a_time_stamp_is_no_number(tmp_path: Path, unit: str) -> None:
    times = pl.Series([timedelta(hours=2.25), timedelta(minutes=30)]).cast(pl.Duration("ms"))
    assert tables(tmp_path, times, time_unit=unit).events["hours"].round(6).to_list() == [2.25, 0.5]
    with pytest.raises(DataError, match=r'e: column t holds values of type Datetime.* time_unit = "datetime"'):
        tables(tmp_path, pl.Series([datetime(2024, 3, 1, 10)]), time_unit=unit)


def test_a_date_and_a_time_of_day_in_two_columns(tmp_path: Path) -> None:
    days = pl.Series(["2024-03-01", "2024-03-01 00:00:00", "2024-03-01", ""])
    columns = {"clock": ["10:15", "11:30:00", None, "12:00"]}
    found = tables(tmp_path, days, clock="clock", columns=columns)
    assert found.events["hours"].to_list() == [2.25, 3.5]
    assert dict(found.rows_dropped) == {"time missing": 2}
    with pytest.raises(ConfigError, match="clock goes with dates"):
        tables(tmp_path, days, clock="clock", columns=columns, time_unit="hours")
