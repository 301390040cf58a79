"""Readers: what they read, and that every kind of broken input ends in one clear sentence without a value."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.redaction import outward
from pipeline.ingest.source_tables import SourceTables
from pipeline.ingest.sources import physionet2012
from pipeline.ingest.sources.readers import read_source

HEADER = "Time,Parameter,Value\n"
OUTCOMES = "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death\n"


def record(stay: int, rows: str = "00:07,HR,80\n01:30,HR,90.5\n") -> str:
    statics = (
        f"00:00,RecordID,{stay}\n00:00,Age,54\n00:00,Gender,0\n00:00,Height,-1\n00:00,ICUType,4\n00:00,Weight,-1\n"
    )
    return HEADER + statics + rows


def write_folder(folder: Path, records: dict[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in records.items():
        (folder / name).write_text(text, newline="")
    return folder


def write_tar(path: Path, records: dict[str, str], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]  # the mode is a parameter here
        for name, text in records.items():
            info = tarfile.TarInfo(f"set-x/{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def write_outcomes(path: Path, stays: tuple[int, ...] = (11, 12)) -> Path:
    path.write_text(OUTCOMES + "".join(f"{stay},6,1,5,-1,{i % 2}\n" for i, stay in enumerate(stays)))
    return path


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of two good records, and their outcomes."""
    return write_folder(tmp_path / "set", {"11.txt": record(11), "12.txt": record(12)}), write_outcomes(
        tmp_path / "o.txt"
    )


def physionet(records: Path, outcomes: Path, **options: Any) -> SourceTables:
    return read_source("physionet2012", records=(records,), outcomes=(outcomes,), **options)


def test_folder_by_hand(two: tuple[Path, Path]) -> None:
    tables = physionet(*two)
    assert tables.rows_read == 2 * 8
    assert dict(tables.rows_dropped) == {"coded missing": 4, "record id": 2}
    assert tables.dropped_by_variable["Height"] == {"coded missing": 2}
    series = tables.events.filter(pl.col("variable") == "HR")
    assert series.rows() == [
        ("11", 7 / 60, "HR", 80.0),
        ("11", 1.5, "HR", 90.5),
        ("12", 7 / 60, "HR", 80.0),
        ("12", 1.5, "HR", 90.5),
    ]
    assert tables.stays["stay_id"].to_list() == ["11", "12"]
    assert tables.stays["subject_id"].to_list() == ["11", "12"]
    assert not tables.subjects_known


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_archive_equals_folder(two: tuple[Path, Path], tmp_path: Path, mode: str) -> None:
    """Members in any order; hidden twins and other files are passed over."""
    records = {"12.txt": record(12), "._12.txt": "junk", "README": "hello", "11.txt": record(11)}
    tar = physionet(write_tar(tmp_path / "set.tar", records, mode), two[1])
    folder = physionet(*two)
    assert tar.stays.equals(folder.stays)
    assert tar.events.sort("stay_id", "hours").equals(folder.events.sort("stay_id", "hours"))
    assert tar.rows_read == folder.rows_read


def test_line_ends_byte_order_mark_and_blank_lines_change_nothing(two: tuple[Path, Path], tmp_path: Path) -> None:
    ugly = {
        "11.txt": "\ufeff" + record(11).replace("\n", "\r\n"),
        "12.txt": record(12).rstrip("\n").replace("01:30", "\n01:30"),
    }
    assert physionet(write_folder(tmp_path / "ugly", ugly), two[1]).events.equals(physionet(*two).events)


def test_record_without_any_row_is_kept(tmp_path: Path, two: tuple[Path, Path]) -> None:
    folder = write_folder(tmp_path / "bare", {"11.txt": record(11), "12.txt": HEADER})
    tables = physionet(folder, two[1])
    assert tables.stays.height == 2
    assert tables.events["stay_id"].unique().to_list() == ["11"]


def test_rows_without_a_name_are_counted(two: tuple[Path, Path], tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "odd", {"11.txt": record(11, "00:07,HR,80\n00:10,,7\n"), "12.txt": record(12)})
    tables = physionet(folder, two[1])
    assert tables.dropped_by_variable["(unnamed)"] == {"variable missing": 1}
    assert tables.events.height == physionet(*two).events.height - 1
    nameless = write_folder(tmp_path / "none", dict.fromkeys(("11.txt", "12.txt"), f"{HEADER}00:10,,7\n"))
    assert physionet(nameless, two[1]).rows_dropped == {"variable missing": 2}


def test_records_without_any_row_alone_or_at_the_end(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = physionet(write_folder(tmp_path / "bare", {"11.txt": HEADER, "12.txt": HEADER}), two[1])
    assert bare.events.height == 0
    assert bare.stays.height == 2
    monkeypatch.setattr(physionet2012, "_BLOCK_BYTES", 1)
    last = physionet(write_folder(tmp_path / "last", {"11.txt": record(11), "12.txt": HEADER}), two[1])
    assert last.events["stay_id"].unique().to_list() == ["11"]


def test_missing_and_infinite_values_are_dropped_by_name(tmp_path: Path, two: tuple[Path, Path]) -> None:
    folder = write_folder(
        tmp_path / "odd", {"11.txt": record(11, "00:01,HR,\n00:02,HR,nan\n00:03,HR,inf\n"), "12.txt": record(12)}
    )
    tables = physionet(folder, two[1])
    assert tables.dropped_by_variable["HR"] == {"value missing": 1, "value not finite": 2}
    assert tables.rows_read == tables.events.height + sum(tables.rows_dropped.values())


def test_progress_is_told(two: tuple[Path, Path]) -> None:
    steps: list[tuple[int, int]] = []
    physionet(*two, on_step=lambda done, total, rate: steps.append((done, total)))
    assert steps[-1] == (2, 2)


Break = Callable[[Path, Path], tuple[Path, Path]]


def _records(**changes: str) -> Break:
    def change(folder: Path, outcomes: Path) -> tuple[Path, Path]:
        return write_folder(folder, {f"{name[1:]}.txt": text for name, text in changes.items()}), outcomes

    return change


def _outcomes(text: str) -> Break:
    def change(folder: Path, outcomes: Path) -> tuple[Path, Path]:
        outcomes.write_text(text)
        return folder, outcomes

    return change


def _file(content: bytes) -> Break:
    def change(folder: Path, outcomes: Path) -> tuple[Path, Path]:
        path = folder.parent / "set.tar.gz"
        path.write_bytes(content)
        return path, outcomes

    return change


def _packed() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        noise = np.random.default_rng(0).bytes(40000).hex()  # incompressible, so that a cut falls inside a member
        for name, text in (("11.txt", record(11, noise)), ("12.txt", record(12))):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _bad_checksum() -> bytes:
    packed = bytearray(_packed())
    packed[-6] ^= 0xFF
    return bytes(packed)


BROKEN: dict[str, tuple[Break, str]] = {
    "missing folder": (lambda folder, outcomes: (folder / "none", outcomes), "not found"),
    "folder without records": (lambda folder, outcomes: (outcomes.parent / "empty", outcomes), "no text file"),
    "empty archive": (_file(b""), "empty file"),
    "not a tar": (_file(b"Time,Parameter,Value\n" * 100), "not a tar"),
    "gzip of no tar": (_file(gzip.compress(b"Time,Parameter,Value\n" * 100)), "not a tar"),
    "truncated archive": (_file(_packed()[:30000]), "ends early"),
    "archive cut at its end": (_file(_packed()[:-4]), "ends early"),
    "archive with a flipped bit": (_file(_bad_checksum()), "damaged"),
    "no header": (_records(_12="00:00,HR,777\n"), "do not begin with Time,Parameter,Value: 12.txt"),
    "empty record": (_records(_12=""), "1 text files do not begin with"),
    "text in a number": (
        _records(_12=record(12, "00:01,HR,secret\n00:02,HR,71\n")),
        "1 rows of column Value hold text",
    ),
    "two fields": (_records(_12=record(12, "00:01,HR,7,7,7\n")), "three fields"),
    "time of no form": (_records(_12=record(12, "0107,HR,777\n")), "1 rows of column Time are not of the form HH:MM"),
    "minute 60": (_records(_12=record(12, "01:60,HR,777\n")), "not of the form HH:MM"),
    "wrong record id": (_records(_12=record(777)), "RecordID differs from the file's name: 12.txt"),
    "outcomes missing": (lambda folder, outcomes: (folder, outcomes.with_name("none.txt")), "not found"),
    "outcomes empty": (_outcomes(""), "empty file"),
    "outcomes without id": (_outcomes("Stay,SOFA\n11,1\n12,2\n"), "lacks the column RecordID"),
    "stay without outcome": (_outcomes(OUTCOMES + "11,6,1,5,-1,0\n"), "1 records have no row in the outcomes and 0"),
    "outcome without stay": (
        _outcomes(OUTCOMES + "11,6,1,5,-1,0\n12,6,1,5,-1,1\n777,6,1,5,-1,1\n"),
        "0 records have no row in the outcomes and 1",
    ),
    "outcome twice": (_outcomes(OUTCOMES + "11,6,1,5,-1,0\n12,6,1,5,-1,1\n12,6,1,5,-1,1\n"), "1 rows repeat"),
    "outcome without an id": (_outcomes(OUTCOMES + "11,6,1,5,-1,0\n,6,1,5,-1,1\n"), "1 rows have no RecordID"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_physionet_input_is_one_sentence(name: str, two: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    change, expected = BROKEN[name]
    records, outcomes = change(*two)
    with pytest.raises(DataError) as caught:
        physionet(records, outcomes)
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message
    assert "777" not in message
    assert "secret" not in message
    assert caught.value.exit_code == 11


def test_a_broken_file_is_named_here_and_nowhere_else(two: tuple[Path, Path], tmp_path: Path) -> None:
    """Five of a thousand files are found by their names; a notice, which leaves the machine, has none of them."""
    for stay in ("a b", "Müller", "13", "14", "15"):
        (two[0] / f"{stay}.txt").write_text("no header\n")
    with pytest.raises(DataError) as caught:
        physionet(*two)
    assert str(caught.value).endswith(
        "5 text files do not begin with Time,Parameter,Value: 13.txt, 14.txt, 15.txt and 2 more"
    )
    for stay in ("13", "14", "15"):
        (two[0] / f"{stay}.txt").unlink()
    with pytest.raises(DataError) as caught:
        physionet(*two)
    assert str(caught.value).endswith("Value: Müller.txt, a?b.txt")
    assert outward(str(caught.value)).endswith("… text files do not begin with Time,Parameter,Value: …, …")


def test_plain_tar_that_ends_early(two: tuple[Path, Path], tmp_path: Path) -> None:
    path = write_tar(tmp_path / "set.tar", {"11.txt": record(11), "12.txt": record(12)}, "w")
    path.write_bytes(path.read_bytes()[:1700])
    with pytest.raises(DataError):
        physionet(path, two[1])


def test_the_same_stay_in_two_folders(two: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match="2 rows repeat a RecordID"):
        read_source("physionet2012", records=(two[0], two[0]), outcomes=(two[1],))


def test_outcome_files_that_differ_in_columns(two: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("RecordID,SOFA\n13,1\n")
    with pytest.raises(DataError, match="differ in their columns"):
        read_source("physionet2012", records=(two[0],), outcomes=(two[1], tmp_path / "other.txt"))


EVENTS = (
    "stay_id,hours,variable,value\n1,0.5,HR,80\n2,1,HR,-9\n1,,HR,70\n1,2,,70\n2,nan,HR,70\n2,3,HR,\n2,4,HR,inf\n"
    "2,5,HR,88\n"
)
STAYS = "stay_id,person,part,died\n1,a,train,1\n2,b,held_out,0\n3,a,train,0\n"


@pytest.fixture
def long(tmp_path: Path) -> tuple[Path, Path]:
    """A long CSV with one of each kind of unusable row, and its stays."""
    (tmp_path / "events.csv").write_text(EVENTS)
    (tmp_path / "stays.csv").write_text(STAYS)
    return tmp_path / "events.csv", tmp_path / "stays.csv"


def test_long_table_by_hand(long: tuple[Path, Path]) -> None:
    tables = read_source(
        "long_table", events=long[0], stays=long[1], subject_column="person", split_column="part", missing_codes=(-9.0,)
    )
    assert tables.events.rows() == [("1", 0.5, "HR", 80.0), ("2", 5.0, "HR", 88.0)]
    assert tables.rows_read == 8
    assert dict(tables.rows_dropped) == {
        "coded missing": 1,
        "time missing": 1,
        "time not finite": 1,
        "value missing": 1,
        "value not finite": 1,
        "variable missing": 1,
    }
    assert tables.stays["subject_id"].to_list() == ["a", "b", "a"]
    assert tables.stays["split"].to_list() == ["train", "held_out", "train"]
    assert tables.subjects_known


def test_long_parquet_in_minutes_with_whole_number_ids(tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": [7, 7, 5], "minute": [30, 90, 60], "code": ["HR", "HR", "K"], "x": [1.5, 2.5, 3.5]})
    frame.with_columns(pl.col("code").cast(pl.Categorical)).write_parquet(tmp_path / "e.parquet")
    tables = read_source(
        "long_table",
        events=tmp_path / "e.parquet",
        stay_column="id",
        time_column="minute",
        time_unit="minutes",
        variable_column="code",
        value_column="x",
    )
    assert tables.events["hours"].to_list() == [0.5, 1.5, 1.0]
    assert tables.stays["stay_id"].to_list() == ["7", "5"]
    assert tables.stays["subject_id"].to_list() == ["7", "5"]


def test_subject_in_the_events_when_there_is_no_stays_table(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("stay_id,hours,variable,value,who\n1,0,HR,80,a\n1,1,HR,81,a\n2,0,HR,82,a\n")
    tables = read_source("long_table", events=path, subject_column="who")
    assert tables.stays.select("stay_id", "subject_id").rows() == [("1", "a"), ("2", "a")]
    path.write_text("stay_id,hours,variable,value,who\n1,0,HR,80,a\n1,1,HR,81,b\n")
    with pytest.raises(DataError, match="1 stays have more than one value in who"):
        read_source("long_table", events=path, subject_column="who")


LONG_BROKEN: dict[str, tuple[str, str, dict[str, str], str]] = {
    "header column missing": ("stay_id,hours,value\n1,0,777\n", STAYS, {}, "lacks the column variable"),
    "no rows": ("stay_id,hours,variable,value\n", STAYS, {}, "no row"),
    "empty file": ("", STAYS, {}, "empty file"),
    "text as value": ("stay_id,hours,variable,value\n1,0,HR,positive\n", STAYS, {}, "1 rows of column value hold text"),
    "text as time": (
        "stay_id,hours,variable,value\n1,positive,HR,777\n",
        STAYS,
        {},
        "1 rows of column hours hold text",
    ),
    "stay id missing": ("stay_id,hours,variable,value\n,0,HR,777\n1,0,HR,1\n", STAYS, {}, "1 rows have no stay_id"),
    "unknown stay": ("stay_id,hours,variable,value\n777,0,HR,1\n", STAYS, {}, "1 stays have events but no row"),
    "ragged line": ("stay_id,hours,variable,value\n1,0,HR,1,777\n", STAYS, {}, "cannot be read as CSV"),
    "stays twice": (EVENTS, STAYS + "3,a,train,0\n", {}, "1 rows repeat a stay_id"),
    "stays without id column": (EVENTS, "id,person\n1,a\n", {}, "lacks the column stay_id"),
    "subject column missing": (EVENTS, STAYS, {"subject_column": "nobody"}, "lacks the column nobody"),
    "subject missing": (EVENTS, STAYS.replace("3,a", "3,"), {"subject_column": "person"}, "1 rows have no person"),
    "split column missing": (EVENTS, STAYS, {"split_column": "fold"}, "lacks the column fold"),
}


@pytest.mark.parametrize("name", LONG_BROKEN)
def test_broken_long_table_is_one_sentence(name: str, long: tuple[Path, Path]) -> None:
    events, stays, options, expected = LONG_BROKEN[name]
    long[0].write_text(events)
    long[1].write_text(stays)
    with pytest.raises(DataError) as caught:
        read_source("long_table", events=long[0], stays=long[1], **options)
    assert expected in str(caught.value)
    assert "777" not in str(caught.value)
    assert "positive" not in str(caught.value)


def test_truncated_parquet(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    pl.DataFrame({"stay_id": ["1"], "hours": [0.0], "variable": ["HR"], "value": [1.0]}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read as parquet"):
        read_source("long_table", events=path)


def test_column_of_a_type_that_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    frame = pl.DataFrame({"stay_id": ["1"], "hours": ["2012-01-01"], "variable": ["HR"], "value": [1.0]})
    frame.with_columns(pl.col("hours").str.to_date()).write_parquet(path)
    with pytest.raises(DataError, match="column hours has type Date; numbers are expected"):
        read_source("long_table", events=path)


def test_unknown_reader_and_set() -> None:
    with pytest.raises(ConfigError, match=r"source\.kind names no reader"):
        read_source("fhir")
    with pytest.raises(ConfigError, match="embedded sets are a and b"):
        read_source("embedded", sets=("a", "c"))


def test_repr_shows_no_row(two: tuple[Path, Path]) -> None:
    assert repr(physionet(*two)) == "SourceTables(source='set', events=<10>, stays=<2>)"


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut short, or with three bits flipped."""
    changed = bytearray(content)
    if rng.random() < 0.5:
        return bytes(changed[: rng.integers(1, len(changed))])
    for place in rng.integers(0, len(changed), 3):
        changed[place] ^= 1 << int(rng.integers(0, 8))
    return bytes(changed)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "parquet", "csv"])
def test_no_damage_escapes_as_anything_but_a_data_error(kind: str, two: tuple[Path, Path], tmp_path: Path) -> None:
    """150 random damages of each format: a cohort's tables (the bits may not matter) or a DataError, never another."""
    path = tmp_path / f"set.{kind}"
    if kind.startswith("tar"):
        write_tar(path, {"11.txt": record(11), "12.txt": record(12)}, "w:gz" if kind == "tar.gz" else "w")
    else:
        path.write_text("stay_id,hours,variable,value\n" + "".join(f"{i % 5},{i},HR,{i}\n" for i in range(50)))
    if kind == "parquet":
        pl.read_csv(path).write_parquet(path)
    content, rng, messages = path.read_bytes(), np.random.default_rng(0), list[str]()
    for _ in range(150):
        path.write_bytes(damaged(content, rng))
        try:
            physionet(path, two[1]) if kind.startswith("tar") else read_source("long_table", events=path)
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 30
    assert not any("\n" in message for message in messages)
