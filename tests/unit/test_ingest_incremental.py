"""Reading only what is new gives what reading everything gives, bit by bit; and what tells new from old."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.core.codec import record_digest
from pipeline.core.errors import DataError, EnvironmentProblem
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.kept import pieces as pieces_module
from pipeline.ingest.kept import watermarks as watermarks_module
from pipeline.ingest.kept.pieces import Pieces
from pipeline.ingest.kept.watermarks import SETTLED_SECONDS, Watermarks, files_below
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.source_tables import SourceTables
from pipeline.ingest.sources.embedded import DATA
from pipeline.ingest.sources.readers import read_source
from pipeline.ingest.withdrawn import NOBODY, WITHDRAWN, Withdrawn

OUTCOMES = "RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death\n"
LONG_AGO = time.time() - 3600
MAPPING = load_mapping("physionet2012")


def record(stay: int, seed: int) -> str:
    """A stay with every variable of the mapping, at times and values that the seed draws."""
    draw = random.Random(seed)
    statics = {"RecordID": stay, "Age": 40 + seed % 40, "Gender": 1, "Height": 170, "ICUType": 2, "Weight": 70}
    rows = [f"00:00,{name},{value}" for name, value in statics.items()]
    for variable in MAPPING.variables:
        source = next(key for key, name in MAPPING.source_names.items() if name == variable.name)
        low, high = variable.scale_low, variable.scale_high
        minute = draw.randrange(47 * 60)
        rows.append(f"{minute // 60:02d}:{minute % 60:02d},{source},{low + draw.random() * (high - low):.3f}")
    return "Time,Parameter,Value\n" + "\n".join(rows) + "\n"


class Site:
    """A source of two folders and one archive of stays, whose records come, change and go."""

    def __init__(self, root: Path) -> None:
        self.root, self.stays, self.seeds = root, dict[int, tuple[str, int]](), iter(range(1, 10**6))
        for name in ("first", "second", "third"):
            (root / name).mkdir(parents=True)

    def put(self, stay: int, folder: str) -> None:
        seed = next(self.seeds)
        self.stays[stay] = (folder, seed)
        path = self.root / folder / f"{stay}.txt"
        path.write_text(record(stay, seed))
        os.utime(path, (LONG_AGO, LONG_AGO))  # the change time is now all the same

    def drop(self, stay: int) -> None:
        folder, _ = self.stays.pop(stay)
        (self.root / folder / f"{stay}.txt").unlink()

    def source(self) -> dict[str, Any]:
        import tarfile

        rows = "".join(f"{stay},6,1,5,-1,{stay % 2}\n" for stay in sorted(self.stays))
        (self.root / "outcomes.txt").write_text(OUTCOMES + rows)
        with tarfile.open(self.root / "third.tar", "w") as tar:
            for path in sorted((self.root / "third").iterdir(), reverse=True):
                tar.add(path, f"third/{path.name}")
        places = {folder for folder, _ in self.stays.values()}
        records = {"first": "first", "second": "second", "third": "third.tar"}
        return {
            "records": tuple(self.root / name for folder, name in records.items() if folder in places),
            "outcomes": (self.root / "outcomes.txt",),
        }


def digests(tables: SourceTables) -> tuple[str, str]:
    split = np.arange(tables.stays.height, dtype=np.int8) % 2
    cohort, report = build_cohort(tables, MAPPING, step_hours=4.0, n_steps=12, split=split)
    return record_digest(cohort), record_digest(report)


def night(site: Site, store: Path, withdrawn: Withdrawn = NOBODY) -> tuple[SourceTables, Pieces]:
    """An incremental reading, as a process of its own would do it."""
    marks = Watermarks(store / "marks.json")
    pieces = Pieces(store / "pieces", "this version", marks)
    tables = read_source("physionet2012", pieces=pieces, withdrawn=withdrawn, **site.source())
    marks.require_unchanged()
    pieces.finish("night")
    marks.save()
    return tables, pieces


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of this second count as old enough: a clock that is an hour ahead."""
    monkeypatch.setattr(watermarks_module.time, "time", lambda: LONG_AGO + 7200)


def test_a_random_month_of_nights_equals_full_readings(tmp_path: Path, settled: None) -> None:
    draw, site, number = random.Random(7), Site(tmp_path / "source"), iter(range(100, 10**6))
    for _ in range(12):
        site.put(next(number), draw.choice(("first", "second", "third")))
    withdrawn = Withdrawn(b"key")
    for day in range(12):
        for _ in range(draw.randrange(4)):
            act = draw.choice(("add", "correct", "delete", "withdraw"))
            stay = draw.choice(sorted(site.stays))
            if act == "add":
                site.put(next(number), draw.choice(("first", "second", "third")))
            elif act == "correct":
                site.put(stay, site.stays[stay][0])
            elif len(site.stays) > 8 and act == "delete":
                site.drop(stay)
            elif act == "withdraw" and len(withdrawn.marks) < 3:
                withdrawn = Withdrawn(b"key", withdrawn.marks | {withdrawn.mark(str(stay))})
        tables, _ = night(site, tmp_path / "store", withdrawn)
        whole = read_source("physionet2012", withdrawn=withdrawn, **site.source())
        assert tables.events.equals(whole.events), f"night {day}"
        assert tables.stays.equals(whole.stays)
        assert (tables.rows_read, tables.rows_dropped, tables.notes) == (
            whole.rows_read,
            whole.rows_dropped,
            whole.notes,
        )
        assert digests(tables) == digests(whole)


def test_only_what_is_new_is_parsed(tmp_path: Path, settled: None) -> None:
    site = Site(tmp_path / "source")
    for stay in range(100, 130):
        site.put(stay, ("first", "second", "third")[stay % 3])
    assert night(site, tmp_path / "store")[1].parsed == 30 + 1  # and the archive's list of members
    tables, pieces = night(site, tmp_path / "store")
    assert (pieces.parsed, tables.stays.height) == (0, 30)
    site.put(100, "second")
    site.put(200, "first")
    assert night(site, tmp_path / "store")[1].parsed == 2
    site.put(201, "third")
    assert night(site, tmp_path / "store")[1].parsed == 1 + 1


def test_an_unchanged_file_is_not_opened(tmp_path: Path, settled: None) -> None:
    site = Site(tmp_path / "source")
    for stay in range(100, 110):
        site.put(stay, "first")
    for stay in (110, 111):
        site.put(stay, "third")
    night(site, tmp_path / "store")
    source = site.source()
    site.source = lambda: source  # type: ignore[method-assign]  # the archive stays as it is
    night(site, tmp_path / "store")
    marks = Watermarks(tmp_path / "store/marks.json")
    pieces = Pieces(tmp_path / "store/pieces", "this version", marks)
    read_source("physionet2012", pieces=pieces, **site.source())
    assert (marks.hashed, pieces.parsed) == (0, 0)
    other = Pieces(tmp_path / "store/pieces", "another version", Watermarks(tmp_path / "store/marks.json"))
    read_source("physionet2012", pieces=other, **site.source())
    assert other.parsed == 13


def test_a_change_that_keeps_size_and_time_is_caught(tmp_path: Path, settled: None) -> None:
    site = Site(tmp_path / "source")
    for stay in range(100, 110):
        site.put(stay, "first")
    site.put(110, "third")
    night(site, tmp_path / "store")
    path = tmp_path / "source/first/104.txt"
    before, text = path.stat(), path.read_text()
    path.write_text(text.replace("Age,", "Age,", 1).replace(",70\n", ",71\n", 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    tables, _ = night(site, tmp_path / "store")
    assert tables.events.equals(read_source("physionet2012", **site.source()).events)
    weights = tables.events.filter(pl.col("variable") == "Weight", pl.col("stay_id") == "104")
    assert 71.0 in weights["value"].to_list()


@pytest.mark.parametrize("ahead", [0.0, -3600.0], ids=["written just now", "a clock that was set back"])
def test_a_file_too_young_to_be_told_apart_is_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    path, place = tmp_path / "a.txt", tmp_path / "marks.json"
    path.write_text("one")
    now = path.stat().st_ctime + ahead
    monkeypatch.setattr(watermarks_module.time, "time", lambda: now)
    first = Watermarks(place)
    first.digest(path)
    first.save()
    again = Watermarks(place)
    again.digest(path)
    assert (first.hashed, again.hashed) == (1, 1)
    monkeypatch.setattr(watermarks_module.time, "time", lambda: path.stat().st_ctime + SETTLED_SECONDS + 1)
    for expected in (1, 0):
        marks = Watermarks(place)
        marks.digest(path)
        marks.save()
        assert marks.hashed == expected


def test_a_source_that_vanishes_or_is_written_while_it_is_read_is_told(tmp_path: Path) -> None:
    site = Site(tmp_path / "source")
    for stay in (100, 101):
        site.put(stay, "first")
    files = sorted(files_below(tmp_path / "source/first"))
    marks = Watermarks()
    for file in files:
        marks.digest(file)
    marks.require_unchanged()
    files[0].write_text("something else")
    with pytest.raises(EnvironmentProblem, match="a file changed while the source was read") as told:
        marks.require_unchanged()
    assert "100" not in str(told.value).replace(str(tmp_path), "")  # a file's name is a patient's number
    files[0].unlink()
    with pytest.raises(EnvironmentProblem, match="vanished while the source was read"):
        marks.require_unchanged()
    with pytest.raises(EnvironmentProblem, match="vanished while the source was read"):
        Watermarks().digest(files[0])


def test_a_full_disk_while_pieces_are_written_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled: None
) -> None:
    site = Site(tmp_path / "source")
    for stay in range(100, 110):
        site.put(stay, ("first", "second", "third")[stay % 3])
    whole, _ = night(site, tmp_path / "store")
    site.put(300, "first")

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pieces_module, "put_whole", full)
        with pytest.raises(EnvironmentProblem, match="the disk is full"):
            night(site, tmp_path / "store")
    tables, pieces = night(site, tmp_path / "store")
    assert tables.stays.height == whole.stays.height + 1
    assert pieces.parsed == 1
    assert tables.events.equals(read_source("physionet2012", **site.source()).events)


def test_who_withdrew_is_left_out_counted_once_and_not_kept(tmp_path: Path, settled: None) -> None:
    site = Site(tmp_path / "source")
    for stay in range(100, 125):
        site.put(stay, "first")
    site.put(125, "third")
    everybody, _ = night(site, tmp_path / "store")
    withdrawn = Withdrawn(b"key")
    withdrawn = Withdrawn(b"key", frozenset({withdrawn.mark("104"), withdrawn.mark("999")}))
    tables, _ = night(site, tmp_path / "other", withdrawn)
    assert tables.stays.height == everybody.stays.height - 1
    assert tables.rows_read == everybody.rows_read
    gone = everybody.events.filter(pl.col("stay_id") == "104").height
    assert tables.rows_dropped[WITHDRAWN] == gone > 0
    assert "fewer than 10 stays of subjects who have withdrawn were left out" in tables.notes
    assert sum(WITHDRAWN in reasons for reasons in tables.dropped_by_variable.values()) == 1
    kept = b"".join(path.read_bytes() for path in files_below(tmp_path / "other/pieces"))
    assert b'"104"' not in kept
    assert sum(len(index) for _, index in pieces_module.indexes(tmp_path / "other/pieces")) == 25 + 1
    many = Withdrawn(b"key", frozenset(withdrawn.mark(str(stay)) for stay in range(100, 112)))
    assert "12 stays of subjects who have withdrawn were left out" in night(site, tmp_path / "other", many)[0].notes


def test_everybody_withdrawn_is_told(tmp_path: Path) -> None:
    site = Site(tmp_path / "source")
    for folder, stay in (("first", 100), ("second", 101), ("third", 102)):
        site.put(stay, folder)
    none = Withdrawn(b"key")
    with pytest.raises(DataError, match="there is no stay"):
        night(site, tmp_path / "store", Withdrawn(b"key", frozenset(none.mark(str(stay)) for stay in (100, 101, 102))))


def test_damaged_marks_and_indexes_are_as_none(tmp_path: Path, settled: None) -> None:
    site = Site(tmp_path / "source")
    for stay in range(100, 106):
        site.put(stay, "first")
    site.put(106, "third")
    whole, _ = night(site, tmp_path / "store")
    for path in (*(tmp_path / "store/pieces").glob("*.json"), tmp_path / "store/marks.json"):
        path.write_bytes(path.read_bytes()[:-9])
    tables, pieces = night(site, tmp_path / "store")
    assert pieces.parsed == 8
    assert tables.events.equals(whole.events)


def test_on_real_stays(tmp_path: Path, settled: None) -> None:
    """Embedded stays, written as text files: pieces change nothing, and the second night parses nothing."""
    table = pl.read_parquet(DATA / "set-a.parquet")
    ids = table["stay_id"].unique(maintain_order=True).head(60)
    folder = tmp_path / "records"
    folder.mkdir()
    for (stay,), rows in table.filter(pl.col("stay_id").is_in(ids.implode())).group_by("stay_id", maintain_order=True):
        lines = [f"{m // 60:02d}:{m % 60:02d},{v},{x}" for m, v, x in
                 rows.select("minutes", pl.col("variable").cast(pl.String), "value").iter_rows()]  # fmt: skip
        (folder / f"{stay}.txt").write_text("Time,Parameter,Value\n" + "\n".join(lines) + "\n")
    outcomes = (DATA / "Outcomes-a.txt").read_text().splitlines()
    wanted = {str(name) for name in ids.to_list()}
    kept = [outcomes[0], *(line for line in outcomes[1:] if line.split(",")[0] in wanted)]
    (tmp_path / "outcomes.txt").write_text("\n".join(kept) + "\n")
    source: dict[str, Any] = {"records": (folder,), "outcomes": (tmp_path / "outcomes.txt",)}
    whole = read_source("physionet2012", **source)

    def read() -> tuple[SourceTables, Pieces]:
        marks = Watermarks(tmp_path / "marks.json")
        pieces = Pieces(tmp_path / "pieces", "v", marks)
        tables = read_source("physionet2012", pieces=pieces, **source)
        pieces.finish("real")
        marks.save()
        return tables, pieces

    first, second = read(), read()
    assert (first[1].parsed, second[1].parsed) == (60, 0)
    assert whole.events.equals(first[0].events)
    assert whole.events.equals(second[0].events)
