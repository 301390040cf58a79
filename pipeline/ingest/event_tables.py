"""Any source with a layout: stays, then every table of events batch by batch, every row with its fate.

Rows that cannot be used are counted by reason and dropped while a batch is in memory; what is kept is narrow. Nothing
later than `until_hours` (the end of the input and of all label windows) is kept at all.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

import polars as pl

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.ingest.batches import FILE_STEM, Tally, batches, find_files, header, stem
from pipeline.ingest.event_rows import Reading, add_count, known_rows, plain_text, usable_rows
from pipeline.ingest.event_values import Conversions
from pipeline.ingest.layout import EventsLayout, Layout
from pipeline.ingest.mapping import SourceMapping
from pipeline.ingest.repeats import settle_repeats
from pipeline.ingest.splits import START
from pipeline.ingest.stay_table import END, EXCLUDED, KEY, StayTable, read_stays
from pipeline.ingest.tables import UNKNOWN_VARIABLE, UNNAMED, CountsByVariable, SourceTables, totals

MALFORMED: Final = "malformed line"
_MOST_WORKERS: Final = 4


@final
@dataclass
class _Part:
    """One file's share."""

    kept: list[pl.DataFrame] = field(default_factory=list)
    counts: CountsByVariable = field(default_factory=dict)
    done: Conversions = field(default_factory=Conversions)
    rows: int = 0


def read_event_tables(
    *,
    folder: Path | str,
    mapping: SourceMapping,
    until_hours: float = float("inf"),
    on_step: OnStep = ignore_step,
) -> SourceTables:
    """Read a folder by the mapping's layout; stays in the order of their table (or by id where events name them).

    `on_step` is called as (files read, files in all, rows per second).

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
        reading.stays = read_stays(root, layout, _needed(mapping), reading.clock, reading.tally)
    work = [(table, path) for table in layout.events for path in find_files(root, table.file)]
    if layout.stays.file is None:
        reading.stays = _stays_of_files(work, reading)
    parts, started, rows = list[_Part](), time.monotonic(), 0
    with ThreadPoolExecutor(max_workers=min(_MOST_WORKERS, os.cpu_count() or 1)) as pool:
        for part in pool.map(lambda job: _read_file(job[0], job[1], reading), work):
            parts.append(part)
            rows += part.rows
            on_step(len(parts), len(work), rows / max(time.monotonic() - started, 1e-9))
    return _tables(parts, reading, root.name)


def layout_files(folder: Path, layout: Layout) -> list[Path]:
    """Every file that the layout reads under `folder`, each once, in order.

    Raises:
        DataError: one of them is not there.
    """
    patterns = [table.file for table in layout.events] + [join.file for join in layout.stays.joins]
    patterns += [] if layout.stays.file is None else [layout.stays.file]
    return sorted({path for pattern in patterns for path in find_files(folder, pattern)})


def _needed(mapping: SourceMapping) -> tuple[str, ...]:
    columns = {getattr(rule, "column", "") for rule in mapping.tasks} | set(mapping.static_sources)
    return tuple(sorted(columns - {""}))


def _stays_of_files(work: list[tuple[EventsLayout, Path]], reading: Reading) -> StayTable:
    """The stays that events name, by id: as the table of stays that there is not."""
    ids: set[str] = set()
    for table, path in work:
        if table.key == FILE_STEM:
            ids.add(stem(path))
            continue
        for frame in batches(path, (table.key,), Tally()):
            ids.update(plain_text(frame[table.key]).drop_nulls().unique().to_list())
    ordered = sorted(ids - {""}, key=lambda name: (len(name), name))
    frame = pl.DataFrame({"stay_id": ordered}, schema={"stay_id": pl.String})
    frame = frame.with_columns(
        pl.col("stay_id").alias("subject_id"),
        pl.col("stay_id").alias(KEY),
        pl.lit(None, pl.Int64).alias(START),
        pl.lit(None, pl.Int64).alias(END),
        pl.lit(None, pl.String).alias(EXCLUDED),
    )
    return StayTable(frame, False, ())


def _read_file(table: EventsLayout, path: Path, reading: Reading) -> _Part:
    part = _Part()
    tally = Tally()
    for rows, frame in _long_batches(table, path, reading, tally, part.counts):
        part.rows += rows
        frame = usable_rows(frame, table, reading, part.counts, part.done)
        if frame.height:
            part.kept.append(frame)
    if tally.malformed:
        part.rows += tally.malformed
        add_count(part.counts, UNNAMED, MALFORMED, tally.malformed)
    return part


def _long_batches(
    table: EventsLayout, path: Path, reading: Reading, tally: Tally, counts: CountsByVariable
) -> Iterator[tuple[int, pl.DataFrame]]:
    """(rows or cells read, frame of key, time, variable, raw, unit); a wide table's unmapped columns are counted."""
    if table.code is not None:
        columns = tuple(dict.fromkeys(c for c in (table.key, table.time, table.code, table.value, table.unit) if c))
        for frame in batches(path, columns, tally):
            yield frame.height, known_rows(frame, table, reading.mapping, counts)
        return
    names = {name.lower(): name for name in header(path)}
    apart = {table.key.lower(), table.time.lower()}
    known = {**reading.mapping.source_names, **reading.mapping.static_sources}
    wanted = [source.removeprefix(table.prefix) for source in known if source.startswith(table.prefix)]
    wanted = list(dict.fromkeys(name for name in wanted if name.lower() in names and name.lower() not in apart))
    others = len(set(names) - apart - {name.lower() for name in wanted})
    for frame in batches(path, tuple(dict.fromkeys((table.key, table.time, *wanted))), tally):
        if others:
            add_count(counts, UNNAMED, UNKNOWN_VARIABLE, others * frame.height)
        cells = [frame.select(
            pl.col(table.key).alias("key"),
            pl.col(table.time).alias("time"),
            pl.lit(table.prefix + name).alias("variable"),
            pl.col(name).cast(pl.String).alias("raw"),
            pl.lit(None, pl.String).alias("unit"),
        ) for name in wanted]  # fmt: skip
        if cells:
            yield (len(wanted) + others) * frame.height, pl.concat(cells)
        else:
            yield (
                others * frame.height,
                frame.head(0)
                .select(
                    key=pl.lit(""), time=pl.lit(""), variable=pl.lit(""), raw=pl.lit(""), unit=pl.lit(None, pl.String)
                )
                .head(0),
            )


def _tables(parts: list[_Part], reading: Reading, source: str) -> SourceTables:
    assert reading.stays is not None
    counts: CountsByVariable = {}
    for part in parts:
        for name, reasons in part.counts.items():
            for reason, rows in reasons.items():
                add_count(counts, name, reason, rows)
    read = sum(part.rows for part in parts)
    if read == 0:
        raise DataError(f"{source}: the tables of events hold no row")
    schema = {"row": pl.UInt32, "hours": pl.Float64, "variable": pl.String, "value": pl.Float64}
    kept = pl.concat([pl.DataFrame(schema=schema), *(frame.cast(schema) for part in parts for frame in part.kept)])  # type: ignore[arg-type]  # polars types a schema's values more narrowly
    kept, notes = settle_repeats(kept, reading.mapping, reading.layout, counts)
    stays = reading.stays.frame.with_row_index("row")
    ids = stays["stay_id"]
    events = kept.select(ids.gather(kept["row"]).alias("stay_id"), "hours", "variable", "value")
    included = stays.filter(pl.col(EXCLUDED).is_null()).drop("row", END, KEY, EXCLUDED)
    return SourceTables(
        events=events,
        stays=included,
        rows_read=read,
        rows_dropped=totals(counts),
        dropped_by_variable=counts,
        subjects_known=reading.stays.subjects_known,
        source=source,
        notes=(*reading.stays.notes, *notes, *_told(parts)),
    )


def _told(parts: list[_Part]) -> tuple[str, ...]:
    converted, mended = Counter[tuple[str, str]](), Counter[str]()
    for part in parts:
        converted.update(part.done.converted)
        mended.update(part.done.mended)
    return (
        *(f"{rows} values of {name} were converted from {unit}" for (name, unit), rows in sorted(converted.items())),
        *(
            f"{rows} implausible values of {name} were mended as the mapping says"
            for name, rows in sorted(mended.items())
        ),
    )
