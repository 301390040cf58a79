"""The first rows of every table under a mapping: what becomes of them, and some of those that cannot be used.

For the site's own screen: the rows are patients' data, and go into no file, report or log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, final

import polars as pl

from pipeline.core.errors import ConfigError
from pipeline.ingest.engine.event_tables import needed_columns, read_file
from pipeline.ingest.engine.parts.row_fates import FilePart, gather
from pipeline.ingest.engine.reading import Reading
from pipeline.ingest.engine.stay_table import read_stays, stays_of_files
from pipeline.ingest.engine.together.small_files import grouped
from pipeline.ingest.mapping.layout import CRITICAL_REASONS, EventsLayout
from pipeline.ingest.mapping.load import SourceMapping
from pipeline.ingest.table_files import find_files

ROWS: Final = 1000
SHOWN: Final = 10


@final
@dataclass(frozen=True, eq=False, repr=False)
class FirstRows:
    """`tables`: (table, rows, rows used, rows by reason), of a table with a column per variable cells for rows;
    `offending`: as the quarantine holds them, the first `SHOWN` of every reason."""

    tables: tuple[tuple[str, int, int, dict[str, int]], ...]
    offending: pl.DataFrame

    def lines(self, *, with_rows: bool) -> Iterator[str]:
        """The account, and on a screen that is the site's own the rows."""
        for name, rows, used, dropped in self.tables:
            why = ", ".join(f"{count} {reason}" for reason, count in dropped.items())
            yield f"table   {name}: {used} of {rows} used{f'; {why}' if why else ''}"
        if not self.offending.height:
            return
        if not with_rows:
            yield "rows    shown on a terminal alone: they are patients' data"
            return
        for reason, *cells in self.offending.iter_rows():
            told = zip(self.offending.columns[1:], cells, strict=True)
            yield f"row     {reason}: " + ", ".join(f"{name} {cell}" for name, cell in told if cell is not None)


def first_rows(folder: Path, mapping: SourceMapping, most: int = ROWS) -> FirstRows:
    """Read the table of stays, and `most` rows of each table of events.

    Raises:
        ConfigError: the mapping has no layout.
        DataError: a file or column is missing or damaged, or no stay is left.
    """
    if mapping.layout is None:
        raise ConfigError(f"mapping {mapping.name} has no [layout], so it cannot read tables")
    layout = replace(mapping.layout, criticality=dict.fromkeys(CRITICAL_REASONS, "quarantine"))
    mapping = replace(mapping, layout=layout)
    reading = Reading(mapping, layout, None, float("inf"))
    found = [(table, find_files(folder, table.file, optional=table.optional)) for table in layout.events]
    if layout.stays.file is not None:
        reading.stays = read_stays(folder, layout, needed_columns(mapping), reading.clock, reading.tally)
    else:
        reading.stays = stays_of_files([(table, paths[:most]) for table, paths in found])
    parts = [(table, list(_parts(table, paths, reading, most))) for table, paths in found]
    aside = gather(part.fates for _, own in parts for part in own)
    rows = pl.DataFrame(schema={"reason": pl.String}) if aside is None else aside.frame
    return FirstRows(
        tuple(_told(table, own) for table, own in parts),
        rows.filter(pl.int_range(pl.len()).over("reason") < SHOWN).sort("reason", maintain_order=True),
    )


def _parts(table: EventsLayout, paths: list[Path], reading: Reading, most: int) -> Iterator[FilePart]:
    for group in grouped(paths, apart=True):
        if most <= 0:
            return
        own = replace(reading, most_rows=most)
        part = read_file(table, group, own)
        most -= part.lines
        yield part


def _told(table: EventsLayout, parts: list[FilePart]) -> tuple[str, int, int, dict[str, int]]:
    dropped = Counter[str]()
    for part in parts:
        for reasons in part.fates.counts.values():
            dropped.update(reasons)
    rows = sum(part.rows for part in parts)
    return table.file, rows, rows - sum(dropped.values()), dict(dropped.most_common())
