"""A table's file is parsed once: its part is kept as a piece, and stands as long as the file and its stays do.

What becomes of a row depends on the file, the mapping and the stays that the file's rows may belong to. The first two
are in the piece's key; of the stays the piece holds a digest of those whose ids the file names, so that stays that come
or change elsewhere leave it be. A file that holds rows of somebody who has withdrawn has a piece for that very list.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import astuple
from typing import Any, Final, final

import numpy as np
import polars as pl

from pipeline.core.codec import to_plain
from pipeline.core.digest import digest_bytes
from pipeline.ingest.containers import holder
from pipeline.ingest.engine.batches import FILE_STEM
from pipeline.ingest.engine.event_units import Seen
from pipeline.ingest.engine.instants import ClockKinds
from pipeline.ingest.engine.parts.row_fates import FilePart, RowFates
from pipeline.ingest.engine.reading import Reading
from pipeline.ingest.engine.stay_table import END, EXCLUDED, KEY
from pipeline.ingest.engine.together.small_files import Group
from pipeline.ingest.kept.pieces import Pieces
from pipeline.ingest.mapping.layout import EventsLayout
from pipeline.ingest.splits import START
from pipeline.ingest.table_files import partitions, stem
from pipeline.ingest.withdrawn import WITHDRAWN, Withdrawn

MOST_ROWS: Final = 1 << 22  # of a file: the part of a larger one is not kept, as it would be held in memory whole
_BY_STAY: Final = ("stay_id", KEY, START, END, EXCLUDED)

Put = Callable[[pl.DataFrame], None]
Read = Callable[[EventsLayout, Group, Reading, Put, FilePart], None]


@final
class PartCache:
    """The parts of one reading; files may be read by several threads."""

    def __init__(self, pieces: Pieces, reading: Reading, withdrawn: Withdrawn, read: Read) -> None:
        assert reading.stays is not None
        self._pieces, self._reading, self._withdrawn, self._read = pieces, reading, withdrawn, read
        self._stays = reading.stays.frame.with_row_index("row")
        gone = self._stays.filter(pl.col(EXCLUDED) == WITHDRAWN)
        self._gone = {*gone["stay_id"].to_list(), *gone[KEY].to_list()}
        self._lock = threading.Lock()
        _ = reading.keys  # made once, before threads ask

    def part(self, table: EventsLayout, group: Group, put: Put) -> FilePart:
        """The part of a file, or of a group of small ones, its rows put; found, or read and kept.

        Raises:
            DataError: as reading the file does. EnvironmentProblem: it vanished or changed while it was read.
        """
        base = self._base(table, group)
        for key in (base, self._pieces.key(base, self._withdrawn.fingerprint)):
            facts = self._pieces.facts(key)
            if facts is not None and facts["stays"] == self._stays_digest(table, facts["keys"]):
                return self._found(table, group, key, facts, put)
        return self._parsed(table, group, base, put)

    def _base(self, table: EventsLayout, group: Group) -> str:
        mapping = self._reading.mapping
        until = repr(self._reading.until_hours)
        files = [
            [
                self._pieces.marks.digest(holder(path)),
                path.suffixes if holder(path) == path else path.relative_to(holder(path)).as_posix(),
                stem(path) if table.key == FILE_STEM else "",
                partitions(path),
            ]
            for path in group
        ]
        return self._pieces.key("part", files, mapping.digest, to_plain(table), until)

    def _parsed(self, table: EventsLayout, group: Group, base: str, put: Put) -> FilePart:
        frames, rows = list[pl.DataFrame](), 0

        def both(frame: pl.DataFrame) -> None:
            nonlocal rows
            rows += frame.height
            if rows <= MOST_ROWS:
                frames.append(frame)
            else:
                frames.clear()
                part.keys = None
            put(frame)

        own = copy.copy(self._reading)  # with what it has worked out so far, and a clock of its own
        own.clock = ClockKinds()
        fates = RowFates(group[0].name, table, own.names, own.layout.criticality)
        part = FilePart(fates, keys=set())
        self._read(table, group, own, both, part)
        self._merge(own.clock)
        if rows <= MOST_ROWS and not fates.quarantined:
            self._keep(table, part, frames, own.clock, base)
        part.keys = None  # parts are held to the end of the reading, and such a set names every stay of the file
        return part

    def _keep(
        self, table: EventsLayout, part: FilePart, frames: list[pl.DataFrame], clock: ClockKinds, base: str
    ) -> None:
        assert part.keys is not None
        every = sorted(part.keys)
        gone = {key for key, held in zip(every, self._withdrawn.holds(every), strict=True) if held}
        gone |= part.keys & self._gone
        keys = [key for key in every if key not in gone]
        key = self._pieces.key(base, self._withdrawn.fingerprint) if gone else base
        if frames:
            rows = pl.concat(frames)
            stays, codes = np.unique(rows["row"].to_numpy(), return_inverse=True)
            rows = rows.drop("row").with_columns(
                pl.Series("stay", codes.astype(np.uint32)), pl.col("variable").cast(pl.String)
            )
        else:
            stays, rows = np.zeros(0, np.uint32), pl.DataFrame({"stay": []}, schema={"stay": pl.UInt32})
        facts = {
            "keys": keys,
            "stays": self._stays_digest(table, keys),
            "ids": self._stays["stay_id"].gather(stays).to_list(),
            "rows": part.rows,
            "copies": part.copies,
            "loose": part.loose,
            "seen": [part.loose_codes, part.nobodys, part.quoted, part.columns, part.latest],
            "counts": part.fates.counts,
            "converted": [[*key, count] for key, count in sorted(part.done.converted.items())],
            "mended": dict(part.done.mended),
            "units": [[*key, seen.rows, seen.sample] for key, seen in sorted(part.done.seen.items())],
            "clock": list(astuple(clock)),
        }
        self._pieces.use(self._pieces.add([key], [rows.height], [facts], rows, passing=True))

    def _found(self, table: EventsLayout, group: Group, key: str, facts: dict[str, Any], put: Put) -> FilePart:
        own = self._reading
        self._merge(ClockKinds(*facts["clock"]))
        part = FilePart(RowFates(group[0].name, table, own.names, own.layout.criticality), rows=facts["rows"])
        part.files, part.copies, part.loose = len(group), facts["copies"], facts["loose"]
        part.loose_codes, part.nobodys, part.quoted, part.columns, part.latest = facts["seen"]
        part.fates.counts.update({name: dict(reasons) for name, reasons in facts["counts"].items()})
        part.done.converted.update({(name, unit): count for name, unit, count in facts["converted"]})
        part.done.mended.update(facts["mended"])
        part.done.seen.update({(name, text, said): Seen(n, some) for name, text, said, n, some in facts["units"]})
        rows = self._pieces.take([key])
        if rows.height:
            ids = pl.DataFrame({"stay_id": facts["ids"]}, schema={"stay_id": pl.String})
            place = ids.join(self._stays.select("stay_id", "row"), on="stay_id", how="left", maintain_order="left")
            put(rows.select(
                place["row"].gather(rows["stay"]).cast(pl.UInt32).alias("row"),
                "hours",
                pl.col("variable").cast(own.kind),
                "value",
                *(["known"] if own.keeps_known else []),
            ))  # fmt: skip
        return part

    def _stays_digest(self, table: EventsLayout, keys: list[str]) -> str:
        """Digest of all that the table of stays says of these keys, in its order."""
        by = "stay_id" if table.link == "stay" else KEY
        wanted = pl.Series(keys, dtype=pl.String)
        own = self._stays.filter(pl.col(by).is_in(wanted.implode())).select(_BY_STAY)
        return digest_bytes(own.write_csv(null_value="\x00").encode())

    def _merge(self, clock: ClockKinds) -> None:
        with self._lock:
            self._reading.clock.add(clock)
            self._reading.clock.require_zone(self._reading.layout.timezone)
