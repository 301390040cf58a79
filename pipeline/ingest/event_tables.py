"""Any source with a layout: stays, then every table of events batch by batch, every row with its fate.

Rows that cannot be used are counted by reason and dropped while a batch is in memory; what is kept is narrow. Nothing
later than `until_hours` (the end of the input and of all label windows) is kept at all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

import polars as pl

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.ingest.batches import FILE_STEM, Tally, batches, find_files, header, stem
from pipeline.ingest.event_values import Conversions, in_units, mend, numbers
from pipeline.ingest.grid import TIME_TOLERANCE_HOURS
from pipeline.ingest.instants import MICROSECONDS_PER_HOUR, ClockKinds, instants
from pipeline.ingest.layout import EventsLayout, Layout
from pipeline.ingest.mapping import SourceMapping
from pipeline.ingest.repeats import settle_repeats
from pipeline.ingest.splits import START
from pipeline.ingest.stay_table import END, EXCLUDED, KEY, StayTable, read_stays
from pipeline.ingest.tables import (
    OUTSIDE_WINDOW,
    TIME_MISSING,
    TIME_NOT_FINITE,
    UNKNOWN_VARIABLE,
    UNNAMED,
    VARIABLE_MISSING,
    CountsByVariable,
    SourceTables,
    totals,
)

MALFORMED: Final = "malformed line"
STAY_MISSING: Final = "stay or subject missing"
STAY_UNKNOWN: Final = "no such stay or subject"
STAY_EXCLUDED: Final = "stay excluded"
BETWEEN_STAYS: Final = "outside every stay"
TIME_UNREADABLE: Final = "unreadable time"

_HOURS: Final = {"hours": 1.0, "minutes": 1.0 / 60.0, "days": 24.0}
_MOST_WORKERS: Final = 4
_MAX_NAMED: Final = 5


@final
@dataclass
class _Reading:
    """What the batches of all files share."""

    mapping: SourceMapping
    layout: Layout
    stays: StayTable | None
    until_hours: float
    clock: ClockKinds = field(default_factory=ClockKinds)
    tally: Tally = field(default_factory=Tally)
    done: Conversions = field(default_factory=Conversions)


@final
@dataclass
class _Part:
    """One file's share."""

    kept: list[pl.DataFrame]
    counts: CountsByVariable
    rows: int


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
    reading = _Reading(mapping, layout, None, until_hours)
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


def _stays_of_files(work: list[tuple[EventsLayout, Path]], reading: _Reading) -> StayTable:
    """The stays that events name, by id: as the table of stays that there is not."""
    ids: set[str] = set()
    for table, path in work:
        if table.key == FILE_STEM:
            ids.add(stem(path))
            continue
        for frame in batches(path, (table.key,), Tally()):
            ids.update(_text(frame[table.key]).drop_nulls().unique().to_list())
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


def _read_file(table: EventsLayout, path: Path, reading: _Reading) -> _Part:
    part = _Part([], {}, 0)
    tally = Tally()
    for rows, frame in _long_batches(table, path, reading, tally, part.counts):
        part.rows += rows
        frame = _with_stay(_known(frame, reading, part.counts), table, reading, part.counts)
        frame = _with_hours(frame, table, reading, part.counts)
        frame = _with_value(frame, reading, part.counts)
        if frame.height:
            part.kept.append(frame)
    if tally.malformed:
        part.rows += tally.malformed
        _add(part.counts, UNNAMED, MALFORMED, tally.malformed)
    return part


def _long_batches(
    table: EventsLayout, path: Path, reading: _Reading, tally: Tally, counts: CountsByVariable
) -> Iterator[tuple[int, pl.DataFrame]]:
    """(rows or cells read, frame of key, time, variable, raw, unit); a wide table's unmapped columns are counted."""
    if table.code is not None:
        columns = tuple(dict.fromkeys(c for c in (table.key, table.time, table.code, table.value, table.unit) if c))
        for frame in batches(path, columns, tally):
            yield (
                frame.height,
                frame.select(
                    pl.col(table.key).alias("key"),
                    pl.col(table.time).alias("time"),
                    (pl.lit(table.prefix) + _as_text(table.code, frame)).alias("variable"),
                    pl.col(table.value).alias("raw"),
                    (pl.col(table.unit).cast(pl.String) if table.unit else pl.lit(None, pl.String)).alias("unit"),
                ),
            )
        return
    names = {name.lower(): name for name in header(path)}
    apart = {table.key.lower(), table.time.lower()}
    known = {**reading.mapping.source_names, **reading.mapping.static_sources}
    wanted = [source.removeprefix(table.prefix) for source in known if source.startswith(table.prefix)]
    wanted = list(dict.fromkeys(name for name in wanted if name.lower() in names and name.lower() not in apart))
    others = len(set(names) - apart - {name.lower() for name in wanted})
    for frame in batches(path, tuple(dict.fromkeys((table.key, table.time, *wanted))), tally):
        if others:
            _add(counts, UNNAMED, UNKNOWN_VARIABLE, others * frame.height)
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


def _known(frame: pl.DataFrame, reading: _Reading, counts: CountsByVariable) -> pl.DataFrame:
    mapping = reading.mapping
    names = list({**mapping.source_names, **mapping.static_sources})
    empty = frame["variable"].is_null() | (frame["variable"].str.strip_chars() == "")
    frame = _without(frame, empty, VARIABLE_MISSING, counts, UNNAMED)
    strange = ~frame["variable"].is_in(names)
    if mapping.unknown_variables == "error" and strange.any():
        raise DataError(
            f"{int(strange.sum())} rows of {frame['variable'].filter(strange).n_unique()} codes that mapping "
            f'{mapping.name} does not know; add them, or set unknown_variables = "drop" to drop and count them'
        )
    return _without(frame, strange, UNKNOWN_VARIABLE, counts, UNNAMED)


def _with_stay(frame: pl.DataFrame, table: EventsLayout, reading: _Reading, counts: CountsByVariable) -> pl.DataFrame:
    """Adds `row` (of the table of stays), `instant` (microseconds, null for relative times) and the stay's start."""
    assert reading.stays is not None
    key = _text(frame["key"])
    frame = frame.with_columns(key.alias("key"))
    frame = _without(frame, key.is_null() | (key == ""), STAY_MISSING, counts)
    if table.time_unit == "datetime":
        clock = instants(frame["time"], reading.layout.timezone, reading.clock)
        shift = round(table.shift_hours * MICROSECONDS_PER_HOUR)
        frame = frame.with_columns(clock.alias("instant") + shift)
        absent = _text(frame["time"]).fill_null("") == ""
        frame = _without(frame, absent, TIME_MISSING, counts)
        frame = _without(frame, frame["instant"].is_null(), TIME_UNREADABLE, counts)
    else:
        frame = frame.with_columns(pl.lit(None, pl.Int64).alias("instant"))
    stays = reading.stays.frame.with_row_index("row")
    if table.link == "stay":
        found = stays.select(pl.col("stay_id").alias("key"), "row", START, END, EXCLUDED)
        frame = frame.join(found, on="key", how="left", maintain_order="left")
        frame = _without(frame, frame["row"].is_null(), STAY_UNKNOWN, counts)
    else:
        frame = _by_subject(frame, stays, counts)
    frame = _without(frame, frame[EXCLUDED].is_not_null(), STAY_EXCLUDED, counts)
    return frame.drop("key", EXCLUDED, END)


def _by_subject(frame: pl.DataFrame, stays: pl.DataFrame, counts: CountsByVariable) -> pl.DataFrame:
    begun = stays.filter(pl.col(START).is_not_null()).select(pl.col(KEY).alias("key"), "row", START, END, EXCLUDED)
    frame = _without(frame, ~frame["key"].is_in(stays[KEY].unique().implode()), STAY_UNKNOWN, counts)
    frame = frame.with_row_index("order").sort("instant", maintain_order=True)
    frame = frame.join_asof(
        begun.sort(START, "row"),
        left_on="instant",
        right_on=START,
        by="key",
        strategy="backward",
        check_sortedness=False,  # it cannot check within groups; both sides were sorted just now
        coalesce=False,
    )
    frame = frame.sort("order").drop("order")
    ended = (frame["instant"] > frame[END]).fill_null(False)
    return _without(frame, frame["row"].is_null() | ended, BETWEEN_STAYS, counts)


def _with_hours(frame: pl.DataFrame, table: EventsLayout, reading: _Reading, counts: CountsByVariable) -> pl.DataFrame:
    if table.time_unit == "datetime":
        hours = (frame["instant"] - frame[START]).cast(pl.Float64) / MICROSECONDS_PER_HOUR
    else:
        text = _text(frame["time"])
        frame = frame.with_columns(text.alias("time"))
        empty = (text.is_null() | (text == "")).fill_null(True)
        frame = _without(frame, empty, TIME_MISSING, counts)
        hours = frame["time"].cast(pl.Float64, strict=False) * _HOURS[table.time_unit] + table.shift_hours
        frame = frame.with_columns(hours.alias("hours"))
        frame = _without(frame, frame["hours"].is_null(), TIME_UNREADABLE, counts)
        frame = _without(frame, ~frame["hours"].is_finite(), TIME_NOT_FINITE, counts)
        hours = frame["hours"]
    frame = frame.with_columns(hours.alias("hours")).drop("time", "instant", START)
    statics = list(reading.mapping.static_sources)
    early = (frame["hours"] < 0) & ~frame["variable"].is_in(statics)
    late = frame["hours"] > reading.until_hours + TIME_TOLERANCE_HOURS
    return _without(frame, early | late, OUTSIDE_WINDOW, counts)


def _with_value(frame: pl.DataFrame, reading: _Reading, counts: CountsByVariable) -> pl.DataFrame:
    value, reason = numbers(frame["raw"], reading.layout)
    frame = frame.with_columns(value.alias("value"), reason.alias("reason"))
    frame = in_units(frame, reading.mapping.codes, reading.done)
    frame = mend(frame, reading.mapping.codes, _ranges(reading.mapping), reading.done)
    for why in frame["reason"].drop_nulls().unique().sort().to_list():
        frame = _without(frame, (frame["reason"] == why).fill_null(False), why, counts)
    return frame.select("row", "hours", "variable", "value")


def _ranges(mapping: SourceMapping) -> dict[str, tuple[float, float]]:
    """The plausible range of each source name."""
    rows = {row.name: (row.plausible_low, row.plausible_high) for row in (*mapping.variables, *mapping.label_variables)}
    return {source: rows[name] for source, name in mapping.source_names.items()}


def _tables(parts: list[_Part], reading: _Reading, source: str) -> SourceTables:
    assert reading.stays is not None
    counts: CountsByVariable = {}
    for part in parts:
        for name, reasons in part.counts.items():
            for reason, rows in reasons.items():
                _add(counts, name, reason, rows)
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
        notes=(*reading.stays.notes, *notes, *_told(reading)),
    )


def _told(reading: _Reading) -> tuple[str, ...]:
    converted = sorted(reading.done.converted.items())
    mended = sorted(reading.done.mended.items())
    return (
        *(f"{rows} values of {name} were converted from {unit}" for (name, unit), rows in converted),
        *(f"{rows} implausible values of {name} were mended as the mapping says" for name, rows in mended),
    )


def _text(column: pl.Series) -> pl.Series:
    """Ids and times as trimmed text; whole numbers stored as floats lose their `.0`."""
    if column.dtype.is_float() and bool((column.drop_nulls() == column.drop_nulls().round()).all()):
        column = column.cast(pl.Int64, strict=False)
    return column.cast(pl.String).str.strip_chars()


def _as_text(name: str, frame: pl.DataFrame) -> pl.Series:
    return _text(frame[name])


def _without(
    frame: pl.DataFrame, drop: pl.Series, reason: str, counts: CountsByVariable, name: str | None = None
) -> pl.DataFrame:
    """`frame` less the rows of `drop`, which are counted under `reason`, by variable or all under `name`."""
    if not drop.any():
        return frame
    if name is not None:
        _add(counts, name, reason, int(drop.sum()))
    else:
        for variable, rows in frame.filter(drop)["variable"].value_counts().iter_rows():
            _add(counts, variable, reason, rows)
    return frame.filter(~drop)


def _add(counts: CountsByVariable, name: str, reason: str, rows: int) -> None:
    found = counts.setdefault(name, {})
    found[reason] = found.get(reason, 0) + rows
