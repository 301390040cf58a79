"""Any source with a layout: stays, then every table of events batch by batch, every row with its fate.

Rows that cannot be used are counted by reason and dropped while a batch is in memory; what is kept is narrow. Nothing
later than `until_hours` (the end of the input and of all label windows) is kept at all.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.ingest.cohort.stay_blocks import added_up
from pipeline.ingest.containers import holder
from pipeline.ingest.engine.batches import Tally, coded_batches, header
from pipeline.ingest.engine.coded import Batch, id_text
from pipeline.ingest.engine.event_rows import Usable, in_window, locate, names_of, use
from pipeline.ingest.engine.event_units import UNIT_UNKNOWN, assumed_notes, require_known_units, unit_uses
from pipeline.ingest.engine.instants import MICROSECONDS_PER_HOUR
from pipeline.ingest.engine.parts.part_cache import PartCache
from pipeline.ingest.engine.parts.row_fates import FilePart, RowFates, add_count, gather
from pipeline.ingest.engine.reading import Reading
from pipeline.ingest.engine.repeats import settle_repeats
from pipeline.ingest.engine.stay_table import END, EXCLUDED, KEY, exclude_withdrawn, read_stays, stays_of_files
from pipeline.ingest.engine.table_account import loose_notes, require_used, table_notes, table_uses, told
from pipeline.ingest.engine.together.small_files import Group, grouped, joined_batches
from pipeline.ingest.kept.pieces import Pieces
from pipeline.ingest.kept.quarantine import MOST_KEPT, Quarantine
from pipeline.ingest.kept.rows import KeptRows
from pipeline.ingest.kept.spilled import SpilledRows, are_large
from pipeline.ingest.mapping.layout import EventsLayout
from pipeline.ingest.mapping.load import SourceMapping
from pipeline.ingest.mapping.time_to_event import TimeRule
from pipeline.ingest.mapping.toml_table import id_columns
from pipeline.ingest.source_tables import UNKNOWN_VARIABLE, UNNAMED, CountsByVariable, SourceTables, totals
from pipeline.ingest.splits import START
from pipeline.ingest.table_files import find_files, layout_files, unread_note
from pipeline.ingest.text_stream import UTF8
from pipeline.ingest.windows import LENGTH
from pipeline.ingest.withdrawn import NOBODY, WITHDRAWN, Withdrawn

MALFORMED: Final = "malformed line"
_MOST_WORKERS: Final = 4
_MOST_UNPACKED: Final = 16  # bytes of usable rows per byte of file: 24 a row, of which a well packed shard needs two


def read_event_tables(
    *,
    folder: Path | str,
    mapping: SourceMapping,
    until_hours: float = float("inf"),
    on_step: OnStep = ignore_step,
    scratch: Path | None = None,
    pieces: Pieces | None = None,
    withdrawn: Withdrawn = NOBODY,
) -> SourceTables:
    """Read a folder by the mapping's layout; stays in the order of their table (or by id where events name them).

    With `pieces` only files are parsed that are new or changed, or whose stays are. Rows of `withdrawn` subjects are
    counted and dropped.

    `on_step` is called as (files read, files in all, rows per second). Events that are more than memory should hold are
    spilled to a file in `scratch`, if there is one; then what is held in memory grows with the stays alone.

    Raises:
        ConfigError: the mapping has no layout.
        DataError: a file or column is missing or damaged, ids are repeated, or no stay is left.
    """
    layout, root = mapping.layout, Path(folder)
    if layout is None:
        raise ConfigError(f"mapping {mapping.name} has no [layout], so it cannot read tables")
    if not root.is_dir():
        raise DataError(f"{root} not found; expected the folder that holds the source's tables")
    reading = Reading(mapping, layout, None, until_hours)
    if layout.stays.file is not None:
        reading.stays = read_stays(root, layout, needed_columns(mapping), reading.clock, reading.tally)
    found = [(table, find_files(root, table.file, optional=table.optional)) for table in layout.events]
    apart = bool(layout.criticality)  # copies of rows name the file that they lie in
    work = [(table, group) for table, paths in found for group in grouped(paths, apart=apart)]
    absent = tuple(f"there is no table {table.file}, which is optional" for table, paths in found if not paths)
    if layout.stays.file is None:
        reading.stays = stays_of_files(work)
    assert reading.stays is not None
    reading.stays = exclude_withdrawn(reading.stays, withdrawn)
    cache = None if pieces is None else PartCache(pieces, reading, withdrawn, _read_into)
    rows_of: KeptRows | SpilledRows = KeptRows(reading.kind, known=reading.keeps_known)
    if scratch is not None and _may_be_large(work):
        rows_of = SpilledRows(reading.stays.frame.height, reading.names, scratch, known=reading.keeps_known)

    def read(number: int) -> FilePart:
        put = partial(rows_of.add, number)
        return read_file(*work[number], reading, put) if cache is None else cache.part(*work[number], put)

    parts, started, rows, done = [_stay_fates(reading)], time.monotonic(), 0, 0
    files = sum(len(group) for _, group in work)
    with ThreadPoolExecutor(max_workers=min(_MOST_WORKERS, os.cpu_count() or 1)) as pool:
        for part in pool.map(read, range(len(work))):
            parts.append(part)
            rows += part.rows
            done += part.files
            on_step(done, files, rows / max(time.monotonic() - started, 1e-9))
    tables = _tables(parts, rows_of, reading, root.name)
    unread = unread_note(root, layout_files(root, layout))
    return dataclasses.replace(tables, notes=(*absent, *unread, *tables.notes))


def _may_be_large(work: list[tuple[EventsLayout, Group]]) -> bool:
    """Whether the usable rows could be more than memory should hold, judged by the files' sizes before reading."""
    return are_large(sum(holder(path).stat().st_size for _, group in work for path in group) * _MOST_UNPACKED)


def needed_columns(mapping: SourceMapping) -> tuple[str, ...]:
    """The columns of the stays that labels and statics would like."""
    columns = {getattr(rule, key, "") for rule in mapping.tasks for key in ("column", "followed")}
    columns |= set(mapping.static_sources)
    return tuple(sorted(columns - {""}))


def _stay_fates(reading: Reading) -> FilePart:
    """The stays that are excluded because something is wrong with them, where the mapping wants them looked at."""
    assert reading.stays is not None
    fates = RowFates(reading.layout.stays.file or "", None, reading.names, reading.layout.criticality)
    frame = reading.stays.frame.filter(pl.col(EXCLUDED).is_in(list(fates.criticality)))
    for reason in frame[EXCLUDED].unique().sort().to_list():
        fates.stays(reason, frame.filter(pl.col(EXCLUDED) == reason)["stay_id"])
    return FilePart(fates)


def read_file(
    table: EventsLayout, group: Group, reading: Reading, put: Callable[[pl.DataFrame], None] | None = None
) -> FilePart:
    """The usable events of a file, or of a group of small ones, and the account of all its rows.

    The same files, stays and mapping give the same part. With `put` each frame goes there as soon as it is made, and
    is not kept.

    Raises:
        DataError: a file is missing or damaged, or the mapping says that something in it stops the reading.
    """
    part = FilePart(RowFates(group[0].name, table, reading.names, reading.layout.criticality))
    _read_into(table, group, reading, part.kept.append if put is None else put, part)
    return part


def _read_into(
    table: EventsLayout, group: Group, reading: Reading, put: Callable[[pl.DataFrame], None], part: FilePart
) -> None:
    """Put the usable rows of the files, batch by batch, and their account into `part`."""
    part.files = len(group)
    tally = Tally(keep=MOST_KEPT if part.fates.criticality.get(MALFORMED) == "quarantine" else 0)
    for batch in (batch.with_id(table.key) for batch in _batches(table, group, reading, tally)):
        if reading.most_rows is not None:
            batch = batch.head(reading.most_rows - part.lines)
        part.lines += batch.height
        if part.keys is not None:
            part.keys.update(id_text(batch.coded(table.key).distinct, batch.path.name).drop_nulls().to_list())
        found = _long(batch, part, reading) if table.code is not None else _wide(batch, part, reading)
        for usable in (item for item in found if len(item.stay)):
            part.latest = max(part.latest, float(usable.hours.max()))
            put(part_of(usable, reading))
        if part.lines == reading.most_rows:
            break
    if UNIT_UNKNOWN not in part.fates.criticality:
        require_known_units(part.done, group[0].name)
    part.quoted += tally.quoted
    part.rows += tally.malformed
    part.fates.malformed(MALFORMED, tally.malformed, tally.lines)


def _batches(table: EventsLayout, group: Group, reading: Reading, tally: Tally) -> Iterator[Batch]:
    codes, encoding = reading.codes_of(table), table.encoding
    if len(group) > 1 and encoding == UTF8:
        together = joined_batches(group, *_columns(table, group[0], reading), tally, codes)
        if together is not None:
            yield from together
            return
    for path in group:
        yield from coded_batches(path, *_columns(table, path, reading), tally, encoding, codes)


def part_of(usable: Usable, reading: Reading) -> pl.DataFrame:
    """Rows in the form in which they are kept: row of the table of stays, hours, source name, value, when known."""
    frame = pl.DataFrame(
        {
            "row": usable.stay.astype(np.uint32),
            "hours": usable.hours,
            "variable": pl.Series(usable.name.astype(np.uint32)).cat.to(reading.kind),
            "value": usable.value,
        }
    )
    return frame if usable.known is None else frame.with_columns(known=pl.Series(usable.known))


def _columns(table: EventsLayout, path: Path, reading: Reading) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns to read, and those of them that are read as codes."""
    beside = _if_there(table.operator, table, path), _if_there(reading.subject_beside(table), table, path)
    coded = [name for name in (*id_columns(table.key), table.code, table.unit, *beside) if name]
    columns = [name for name in (*coded, table.time, table.clock, table.date, table.available, table.value) if name]
    columns += [] if table.code is not None else _wanted(table, path, reading)[0]
    return tuple(dict.fromkeys(columns)), tuple(dict.fromkeys(coded))


def _if_there(name: str | None, table: EventsLayout, path: Path) -> str | None:
    if name is None:
        return None
    return name if name.lower() in (column.lower() for column in header(path, table.encoding)) else None


def _wanted(table: EventsLayout, path: Path, reading: Reading) -> tuple[list[str], int]:
    """A wide table's columns that mean something, and how many others it has."""
    names = {name.lower(): name for name in header(path, table.encoding)}
    others = (*id_columns(table.key), table.time, table.clock, table.date, table.available)
    apart = {name.lower() for name in others if name}
    wanted = [source.removeprefix(table.prefix) for source in reading.names if source.startswith(table.prefix)]
    wanted = list(dict.fromkeys(name for name in wanted if name.lower() in names and name.lower() not in apart))
    return wanted, len(set(names) - apart - {name.lower() for name in wanted})


def _long(batch: Batch, part: FilePart, reading: Reading) -> list[Usable]:
    """A row per event."""
    table = part.fates.table
    assert table is not None
    part.rows += batch.height
    name = names_of(batch, table, reading, part)
    located = locate(batch, table, reading, np.flatnonzero(name >= 0))
    part.again(located.copies)
    part.loose += located.loose
    part.nobodys += located.nobodys
    located = in_window(located, table, reading, lambda: reading.is_static[name[located.rows]])
    return [use(batch, table, located, name, table.value, reading, part.fates, part.done)]


def _wide(batch: Batch, part: FilePart, reading: Reading) -> list[Usable]:
    """A cell per event; the cells of columns without a meaning are counted."""
    table = part.fates.table
    assert table is not None
    wanted, others = _wanted(table, batch.path, reading)
    part.columns = wanted
    part.rows += (len(wanted) + others) * batch.height
    if others and batch.height:
        part.fates.count(UNNAMED, UNKNOWN_VARIABLE, others * batch.height)
    located = locate(batch, table, reading, np.arange(batch.height))
    part.again(located.copies * len(wanted))
    part.loose += located.loose * len(wanted)
    part.nobodys += located.nobodys * len(wanted)
    places = [reading.place[table.prefix + column] for column in wanted]
    within = {
        kind: in_window(located, table, reading, lambda kind=kind: kind)  # type: ignore[misc]
        for kind in {bool(reading.is_static[at]) for at in places}
    }
    found = []
    for column, at in zip(wanted, places, strict=True):
        name = np.full(batch.height, at, dtype=np.int32)
        own = within[bool(reading.is_static[at])]
        found.append(use(batch, table, own, name, column, reading, part.fates, part.done))
    return found


def _tables(parts: list[FilePart], rows_of: KeptRows | SpilledRows, reading: Reading, source: str) -> SourceTables:
    assert reading.stays is not None
    counts: CountsByVariable = {}
    for part in parts:
        for name, reasons in part.fates.counts.items():
            for reason, rows in reasons.items():  # of those who have withdrawn no variable is told
                add_count(counts, UNNAMED if reason == WITHDRAWN else name, reason, rows)
    read = sum(part.rows for part in parts)
    if read == 0:
        raise DataError(f"{source}: the tables of events hold no row")
    lost = require_used(parts)
    stays = reading.stays.frame
    is_in = stays[EXCLUDED].is_null().to_numpy()
    place = np.where(is_in, np.cumsum(is_in) - 1, 0).astype(np.uint32)  # rows of the others are not kept
    notes = list[str]()

    def settle(rows: pl.DataFrame) -> pl.DataFrame:
        rows, found = settle_repeats(rows, reading.mapping, reading.layout, counts)
        notes.extend(found)
        return rows.with_columns(row=pl.Series(place[rows["row"].to_numpy()]))

    spilled = None
    if isinstance(rows_of, SpilledRows):
        spilled, kept = (
            rows_of.changed(settle, int(is_in.sum())),
            KeptRows(reading.kind, known=reading.keeps_known).changed(settle),
        )
    else:
        kept = rows_of.changed(settle)
    included = stays.filter(pl.Series(is_in))
    timed = any(isinstance(rule, TimeRule) for rule in reading.mapping.tasks)
    if reading.mapping.prediction_times is not None or (timed and reading.layout.stays.end is not None):
        hours = (pl.col(END) - pl.col(START)) / MICROSECONDS_PER_HOUR
        included = included.with_columns(hours.alias(LENGTH))
    included = included.drop(END, KEY, EXCLUDED)
    if spilled is None:
        stay_id = pl.Series("stay_id", kept["row"]).cat.to(pl.Enum(included["stay_id"]))
    else:  # of no event: an enumeration of all stays is not made for nothing
        stay_id = pl.Series("stay_id", [], dtype=pl.String)
    quarantine = _without_withdrawn(gather(part.fates for part in parts), stays)
    aside = () if quarantine is None else quarantine.notes()
    units = unit_uses(part.done for part in parts)
    return SourceTables(
        events=kept.drop("row").insert_column(0, stay_id),
        spilled=spilled,
        stays=included,
        rows_read=read,
        rows_dropped=totals(counts),
        dropped_by_variable=counts,
        subjects_known=reading.stays.subjects_known,
        source=source,
        notes=(
            *reading.stays.notes,
            *added_up(notes),
            *told(parts),
            *lost,
            *loose_notes(parts),
            *table_notes(parts, reading.mapping, reading.until_hours),
            *reading.clock.notes(),
            *assumed_notes(units),
            *aside,
        ),
        quarantine=quarantine,
        units=units,
        tables=table_uses(parts),
    )


def _without_withdrawn(quarantine: Quarantine | None, stays: pl.DataFrame) -> Quarantine | None:
    """Copies of rows of those who have withdrawn are not kept; they stay in the counts."""
    gone = stays.filter(pl.col(EXCLUDED) == WITHDRAWN)
    if quarantine is None or not gone.height:
        return quarantine
    keys = {*gone["stay_id"].to_list(), *gone[KEY].to_list()}
    return quarantine.without(lambda names: [name in keys for name in names])
