"""Tables in shards: only new and changed shards, and those whose stays changed, are parsed; the tables are the same."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import DataError
from pipeline.ingest.kept import watermarks as watermarks_module
from pipeline.ingest.kept.pieces import Pieces
from pipeline.ingest.kept.watermarks import Watermarks, files_below
from pipeline.ingest.mapping.load import SourceMapping, parse_mapping
from pipeline.ingest.source_tables import SourceTables
from pipeline.ingest.sources.readers import read_source
from pipeline.ingest.withdrawn import NOBODY, WITHDRAWN, Withdrawn

NOW = time.time()
BY_SUBJECT = {"file": "events", "link": "subject", "key": "who", "time": "at", "code": "what", "value": "much"}
BY_STAY = {"file": "events", "key": "who", "time": "hour", "time_unit": "hours", "code": "what", "value": "much"}
STAYS = {"file": "stays", "stay": "id", "subject": "person", "start": "in", "end": "out"}
PER_FILE = {"file": "events", "key": "(file)", "time": "hour", "time_unit": "hours", "code": "what", "value": "much"}
LAYOUTS: dict[str, dict[str, Any]] = {
    "by subject and time": {"stays": STAYS, "events": [BY_SUBJECT]},
    "by stay": {"stays": STAYS, "events": [{**BY_STAY, "key": "stay"}]},
    "a file per stay": {"events": [PER_FILE]},
    "stays that events name": {"events": [{**BY_STAY, "key": "stay"}]},
}


LATE = {"kind": "event", "variables": ["HR"], "op": ">=", "threshold": 1, "after_hours": 48, "to_hours": 72}


def mapping(layout: dict[str, Any]) -> SourceMapping:
    raw = {
        "unknown_variables": "drop",
        "variables": {"HR": {"unit": "/min", "plausible": [10, 320], "scale": [30, 180], "normal": 80}},
        "statics": {"age": {"source": "Age", "unit": "a", "plausible": [0, 120], "scale": [0, 120], "normal": 60}},
        "tasks": {"late": LATE},
        "layout": layout,
    }
    return parse_mapping(raw, "test", "test.toml", "0" * 64)


class Ward:
    """People with stays, and shards of their events."""

    def __init__(self, folder: Path, *, with_stays: bool) -> None:
        self.folder, self.with_stays, self.draw = folder, with_stays, random.Random(5)
        self.stays: dict[str, tuple[str, int]] = {}  # stay -> person, day of admission
        (folder / "events").mkdir(parents=True)

    def admit(self) -> None:
        stay = f"s{len(self.stays) + 100}"
        self.stays[stay] = (f"p{self.draw.randrange(len(self.stays) // 2 + 1)}", self.draw.randrange(1, 28))

    def shard(self, name: str) -> None:
        """A shard about a few people: usable rows, and rows that are dropped for many reasons."""
        rows = []
        for stay in self.draw.sample(sorted(self.stays), min(4, len(self.stays))):
            person, day = self.stays[stay]
            for _ in range(6):
                what = self.draw.choice(("HR", "HR", "HR", "Age", "other"))
                much = self.draw.choice(("80", "85.5", "", "n/a", "999"))
                hour = self.draw.randrange(0, 70)
                at = f"2024-01-{min(day + hour // 24, 31):02d} {hour % 24:02d}:00"
                rows.append(f"{stay},{person},{at},{hour},{what},{much}")
        rows.append("nobody,nobody,2024-01-02 00:00,1,HR,80")
        (self.folder / "events" / name).write_text("stay,who,at,hour,what,much\n" + "\n".join(rows) + "\n")

    def write(self) -> None:
        if self.with_stays:
            rows = [f"{s},{p},2024-01-{d:02d} 00:00,2024-01-{d + 2:02d} 00:00" for s, (p, d) in self.stays.items()]
            (self.folder / "stays.csv").write_text("id,person,in,out\n" + "\n".join(rows) + "\n")


def night(
    ward: Ward, layout: dict[str, Any], store: Path, withdrawn: Withdrawn = NOBODY
) -> tuple[SourceTables, Pieces]:
    marks = Watermarks(store / "marks.json")
    pieces = Pieces(store / "pieces", "v", marks)
    tables = whole(ward, layout, withdrawn, pieces)
    marks.require_unchanged()
    pieces.finish("night")
    marks.save()
    return tables, pieces


def whole(ward: Ward, layout: dict[str, Any], withdrawn: Withdrawn = NOBODY, pieces: Any = None) -> SourceTables:
    return read_source(
        "tables", folder=ward.folder, mapping=mapping(layout), until_hours=72.0, pieces=pieces, withdrawn=withdrawn
    )


def same(one: SourceTables, other: SourceTables) -> None:
    assert one.events.equals(other.events)
    assert one.events.schema == other.events.schema
    assert one.stays.equals(other.stays)
    for name in ("rows_read", "rows_dropped", "dropped_by_variable", "notes", "subjects_known", "source"):
        assert getattr(one, name) == getattr(other, name), name


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of this second count as old enough."""
    monkeypatch.setattr(watermarks_module.time, "time", lambda: NOW + 7200)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_random_month_of_nights_equals_full_readings(kind: str, tmp_path: Path) -> None:
    layout = LAYOUTS[kind]
    ward = Ward(tmp_path / "export", with_stays="stays" in layout)
    for _ in range(10):
        ward.admit()
    for number in range(6):
        ward.shard(f"{number}.csv")
    withdrawn, parsed = Withdrawn(b"key"), []
    for day in range(10):
        act = ward.draw.choice(("admit", "new shard", "correct", "delete", "discharge later", "withdraw", "nothing"))
        shards = sorted((ward.folder / "events").iterdir())
        if act == "admit":
            ward.admit()
        elif act == "new shard":
            ward.shard(f"{10 + day}.csv")
        elif act == "correct":
            ward.shard(ward.draw.choice(shards).name)
        elif act == "delete" and len(shards) > 3:
            ward.draw.choice(shards).unlink()
        elif act == "discharge later":
            stay = ward.draw.choice(sorted(ward.stays))
            ward.stays[stay] = (ward.stays[stay][0], ward.draw.randrange(1, 28))
        elif act == "withdraw":
            person = ward.draw.choice(sorted(ward.stays.values()))[0] if ward.with_stays else shards[0].stem
            withdrawn = Withdrawn(b"key", withdrawn.marks | {withdrawn.mark(person), withdrawn.mark("s103")})
        ward.write()
        tables, pieces = night(ward, layout, tmp_path / "store", withdrawn)
        same(tables, whole(ward, layout, withdrawn))
        parsed.append(pieces.parsed)
    assert sum(parsed[1:]) < 9 * 6 * 0.9  # few people, so that a stay that changes touches many shards


@pytest.mark.parametrize("kind", ["by subject and time", "by stay"])
def test_a_stay_elsewhere_leaves_a_shard_be_and_one_of_its_own_does_not(kind: str, tmp_path: Path) -> None:
    layout = LAYOUTS[kind]
    ward = Ward(tmp_path / "export", with_stays=True)
    for _ in range(4):
        ward.admit()
    ward.shard("0.csv")
    ward.stays["s900"] = ("p900", 3)
    ward.write()
    assert night(ward, layout, tmp_path / "store")[1].parsed == 1
    ward.stays["s901"] = ("p901", 4)
    ward.write()
    assert night(ward, layout, tmp_path / "store")[1].parsed == 0
    ward.stays["s100"] = (ward.stays["s100"][0], ward.stays["s100"][1] + 1)
    ward.write()
    tables, pieces = night(ward, layout, tmp_path / "store")
    assert pieces.parsed == 1
    same(tables, whole(ward, layout))


def test_who_withdrew_is_counted_in_one_figure_and_in_no_piece(tmp_path: Path) -> None:
    layout = LAYOUTS["by subject and time"]
    ward = Ward(tmp_path / "export", with_stays=True)
    for _ in range(4):
        ward.admit()
    for number in range(3):
        ward.shard(f"{number}.csv")
    ward.stays["s900"] = ("p-secret", 3)
    path = ward.folder / "events" / "0.csv"
    path.write_text(
        path.read_text() + "s900,p-secret,2024-01-03 05:00,5,HR,77\ns900,p-secret,2024-01-03 06:00,6,HR,78\n"
    )
    ward.write()
    before = whole(ward, layout)
    withdrawn = Withdrawn(b"key", frozenset({Withdrawn(b"key").mark("p-secret")}))
    tables, pieces = night(ward, layout, tmp_path / "store", withdrawn)
    again, found = night(ward, layout, tmp_path / "store", withdrawn)
    same(tables, again)
    assert (pieces.parsed, found.parsed) == (3, 0)
    assert tables.rows_read == before.rows_read
    assert tables.rows_dropped[WITHDRAWN] >= 2
    assert [name for name, reasons in tables.dropped_by_variable.items() if WITHDRAWN in reasons] == ["(unnamed)"]
    kept = b"".join(path.read_bytes() for path in files_below(tmp_path / "store"))
    assert b"p-secret" not in kept
    assert b"s900" not in kept
    longer = Withdrawn(b"key", withdrawn.marks | {withdrawn.mark("somebody else")})
    assert night(ward, layout, tmp_path / "store", longer)[1].parsed == 1  # the shard that holds a withdrawn person


def test_clocks_of_two_kinds_are_refused_from_pieces_as_well(tmp_path: Path) -> None:
    layout = LAYOUTS["by subject and time"]
    ward = Ward(tmp_path / "export", with_stays=True)
    ward.admit()
    ward.shard("0.csv")
    ward.write()
    night(ward, layout, tmp_path / "store")
    person, day = ward.stays["s100"]
    row = f"s100,{person},2024-01-{day:02d} 05:00+01:00,5,HR,77\n"
    (ward.folder / "events" / "1.csv").write_text("stay,who,at,hour,what,much\n" + row)
    for read in (lambda: night(ward, layout, tmp_path / "store"), lambda: whole(ward, layout)):
        with pytest.raises(DataError, match="name the latter's zone"):
            read()
