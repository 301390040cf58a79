"""One file's share of a reading."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import polars as pl

from pipeline.ingest.engine.event_units import Conversions
from pipeline.ingest.engine.row_fates import RowFates


@final
@dataclass
class FilePart:
    """Frames of a file's usable rows (see `event_tables.part_of`), and where the others went."""

    fates: RowFates
    kept: list[pl.DataFrame] = field(default_factory=list)  # none where they were put elsewhere
    done: Conversions = field(default_factory=Conversions)
    rows: int = 0
    loose: int = 0  # rows that name nobody, but somebody whose id is another only in form
    copies: int = 0  # of the rows: those that are there again since they lie in the windows of several stays
    keys: set[str] | None = None  # whose rows the file holds, where somebody wants to know

    def again(self, copies: int) -> None:
        """Count rows that are there once more for another stay: to the account they are rows like any."""
        self.copies += copies
        self.rows += copies
