"""Where the rows of a file went: counts by reason and source name, and copies of those that the site wants to see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np
import polars as pl

from pipeline.core.errors import DataError
from pipeline.ingest.engine.coded import Batch
from pipeline.ingest.engine.event_units import Conversions
from pipeline.ingest.kept.quarantine import MOST_KEPT, QUARANTINE_SCHEMA, Quarantine
from pipeline.ingest.mapping.layout import Criticality, EventsLayout
from pipeline.ingest.source_tables import UNNAMED, CountsByVariable


@final
@dataclass
class RowFates:
    """The account of one file; `names` are the source's names that the mapping knows."""

    file: str
    table: EventsLayout | None
    names: tuple[str, ...]
    criticality: Mapping[str, Criticality]
    counts: CountsByVariable = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)
    kept: list[pl.DataFrame] = field(default_factory=list)

    def drop(self, reason: str, name: np.ndarray, batch: Batch, rows: np.ndarray, column: str) -> None:
        """Count the rows `rows` of `batch`, whose source names are `name` `(rows,)` and whose values are in `column`.

        Raises:
            DataError: the mapping says that such a row stops the reading.
        """
        if not len(rows):
            return
        occurring = np.bincount(name, minlength=len(self.names))
        for index in np.flatnonzero(occurring):
            self.count(self.names[index], reason, int(occurring[index]))
        self.look(reason, name, batch, rows, column)

    def count(self, name: str, reason: str, rows: int) -> None:
        """Count rows that are told apart no further."""
        add_count(self.counts, name, reason, rows)

    def look(self, reason: str, name: np.ndarray, batch: Batch, rows: np.ndarray, column: str) -> None:
        """Keep copies of rows if the mapping wants them quarantined, or stop; they are counted elsewhere.

        Raises:
            DataError: as `drop`.
        """
        wanted = self.criticality.get(reason, "drop")
        if wanted == "stop" and len(rows):
            raise DataError(
                f"{self.file}: {len(rows)} rows or more with {reason}, and the mapping's layout.criticality says stop"
            )
        if wanted == "quarantine" and len(rows):
            self.quarantined[reason] = self.quarantined.get(reason, 0) + len(rows)
            room = MOST_KEPT - sum(frame.height for frame in self.kept)
            if room > 0:
                self.kept.append(self._copies(reason, name[:room], batch, rows[:room], column))

    def malformed(self, reason: str, rows: int, lines: list[str]) -> None:
        """Lines that never became rows of a batch: counted, and kept as text without a number."""
        if not rows:
            return
        self.count(UNNAMED, reason, rows)
        wanted = self.criticality.get(reason, "drop")
        if wanted == "stop":
            raise DataError(f"{self.file}: {rows} times {reason}, and the mapping's layout.criticality says stop")
        if wanted == "quarantine":
            self.quarantined[reason] = self.quarantined.get(reason, 0) + rows
            columns = {"reason": [reason] * len(lines), "file": [self.file] * len(lines), "value": lines}
            self.kept.append(_frame(columns))

    def stays(self, reason: str, ids: pl.Series) -> None:
        """Stays that are excluded for a reason that the mapping names: kept by id, or a stop.

        Raises:
            DataError: as `drop`.
        """
        if self.criticality[reason] == "stop":
            raise DataError(f"{self.file}: {len(ids)} stays: {reason}, and the mapping's layout.criticality says stop")
        if self.criticality[reason] == "quarantine":
            self.quarantined[reason] = self.quarantined.get(reason, 0) + len(ids)
            shown = ids.head(MOST_KEPT)
            self.kept.append(_frame({"reason": [reason] * len(shown), "file": [self.file] * len(shown), "key": shown}))

    def _copies(self, reason: str, name: np.ndarray, batch: Batch, rows: np.ndarray, column: str) -> pl.DataFrame:
        copies: dict[str, object] = {"reason": [reason] * len(rows), "file": [self.file] * len(rows)}
        copies["row"] = batch.first + rows + 1
        copies["code"] = pl.Series(self.names, dtype=pl.String).gather(name)
        table = self.table
        for ours, theirs in {} if table is None else {"key": table.key, "time": table.time, "value": column}.items():
            if not theirs:
                continue
            copies[ours] = batch.series(theirs).gather(rows).cast(pl.String)
        return _frame(copies)


@final
@dataclass
class FilePart:
    """Frames of a file's usable rows (see `event_tables.part_of`), and where the others went."""

    fates: RowFates
    kept: list[pl.DataFrame] = field(default_factory=list)  # none where they were put elsewhere
    done: Conversions = field(default_factory=Conversions)
    rows: int = 0
    lines: int = 0  # rows of the file: of a table with a column per variable not its cells
    files: int = 1
    loose: int = 0  # rows that name nobody, but somebody whose id is another only in form
    copies: int = 0  # of the rows: those that are there again since they lie in the windows of several stays
    loose_codes: int = 0  # rows whose code means nothing, but would in another form
    nobodys: int = 0  # rows of a stay that name a subject without one
    quoted: int = 0  # lines of the file that lie within quotes
    columns: list[str] = field(default_factory=list)  # of a table with a column per variable: those that are there
    latest: float = 0.0  # the last hour of a usable row
    keys: set[str] | None = None  # whose rows the file holds, where somebody wants to know

    def again(self, copies: int) -> None:
        """Count rows that are there once more for another stay: to the account they are rows like any."""
        self.copies += copies
        self.rows += copies


def gather(accounts: Iterable[RowFates]) -> Quarantine | None:
    """What the accounts of all files kept, in their order, up to `MOST_KEPT`; None where no row was quarantined."""
    counts: Counter[str] = Counter()
    frames: list[pl.DataFrame] = []
    for fates in accounts:
        counts.update(fates.quarantined)
        frames += fates.kept
    if not counts:
        return None
    return Quarantine(pl.concat([pl.DataFrame(schema=QUARANTINE_SCHEMA), *frames]).head(MOST_KEPT), dict(counts))


def _frame(columns: Mapping[str, object]) -> pl.DataFrame:
    frame = pl.DataFrame(columns)
    lacking = [pl.lit(None, kind).alias(name) for name, kind in QUARANTINE_SCHEMA.items() if name not in frame.columns]
    return frame.with_columns(lacking).select(pl.col(name).cast(kind) for name, kind in QUARANTINE_SCHEMA.items())


def add_count(counts: CountsByVariable, name: str, reason: str, rows: int) -> None:
    """Add `rows` to what is counted under a name and a reason."""
    found = counts.setdefault(name, {})
    found[reason] = found.get(reason, 0) + rows
