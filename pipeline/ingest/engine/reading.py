"""What the batches of all files of a reading share: the mapping, the stays, and what is worked out of them once."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

import numpy as np
import polars as pl

from pipeline.core.types import StaticVariable, Variable
from pipeline.ingest.cohort.events import own_names
from pipeline.ingest.engine.batches import Tally
from pipeline.ingest.engine.coded import Coded, loose_ids, plain_text
from pipeline.ingest.engine.event_stays import StayKeys, positions
from pipeline.ingest.engine.instants import MICROSECONDS_PER_HOUR, ClockKinds
from pipeline.ingest.engine.stay_table import KEY, StayTable
from pipeline.ingest.mapping.layout import EventsLayout, Layout
from pipeline.ingest.mapping.load import SourceMapping
from pipeline.ingest.mapping.toml_table import id_columns
from pipeline.ingest.splits import START


@final
@dataclass
class Reading:
    """What the batches of all files share."""

    mapping: SourceMapping
    layout: Layout
    stays: StayTable | None
    until_hours: float
    most_rows: int | None = None  # of a file; None = all
    clock: ClockKinds = field(default_factory=ClockKinds)
    tally: Tally = field(default_factory=Tally)
    _reaching_back: dict[float, StayKeys] = field(default_factory=dict)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The source's names that mean something."""
        return (*self.mapping.source_names, *self.mapping.static_sources)

    def codes_of(self, table: EventsLayout) -> frozenset[str]:
        """The texts that mean something in a table's column of codes."""
        return frozenset(name.removeprefix(table.prefix) for name in self.names if name.startswith(table.prefix))

    def loose_codes(self, table: EventsLayout) -> pl.Series:
        """The texts that mean something in a table, but for their form."""
        return loose_ids(pl.Series(sorted(self.codes_of(table)), dtype=pl.String))

    @property
    def keeps_known(self) -> bool:
        """Whether a table says when its rows were known."""
        return any(table.available is not None for table in self.layout.events)

    @property
    def subject(self) -> str | None:
        """The column that says whose a stay is, where a table of events linked by stay may repeat it."""
        stays = self.layout.stays
        return stays.subject if stays.file is not None and stays.subject_key is None else None

    def subject_beside(self, table: EventsLayout) -> str | None:
        """`subject`, where a table is linked by stay and reads that column for nothing else."""
        read = (*id_columns(table.key), table.time, table.code, table.value, table.unit)
        return None if table.link != "stay" or self.subject in read else self.subject

    @cached_property
    def _owners(self) -> tuple[pl.Series, np.ndarray]:
        """The subjects in order; and int64 `(stay,)`, the place of each stay's."""
        return self._ordered(loose=False)

    @cached_property
    def _loose_owners(self) -> tuple[pl.Series, np.ndarray]:
        """As `_owners`, but for the form of the ids."""
        return self._ordered(loose=True)

    def _ordered(self, *, loose: bool) -> tuple[pl.Series, np.ndarray]:
        assert self.stays is not None
        ids = self.stays.frame[KEY]
        ids = loose_ids(ids) if loose else ids
        ordered = ids.unique().sort()
        return ordered, positions(ordered, ids)

    def of_others(self, said: Coded, stay: np.ndarray) -> tuple[np.ndarray, int]:
        """`(row,)` bool: the row names another subject than its stay's; and how many name one that has no stay."""
        ordered, owner = self._owners
        texts = plain_text(said.distinct)
        named = said.look_up((texts.fill_null("") != "").to_numpy(), False)
        plainly = named & (said.look_up(positions(ordered, texts), -1) != owner[stay])
        if not plainly.any():
            return plainly, 0
        ordered, owner = self._loose_owners
        meant = said.look_up(positions(ordered, loose_ids(texts)), -1)
        return (meant >= 0) & (meant != owner[stay]), int((named & (meant < 0)).sum())

    @cached_property
    def kind(self) -> pl.Enum:
        """`names` as a column's type."""
        return pl.Enum(self.names)

    @cached_property
    def place(self) -> dict[str, int]:
        """The index of each of `names`, in the Unicode form that codes are brought to."""
        return {unicodedata.normalize("NFC", name): index for index, name in enumerate(self.names)}

    @cached_property
    def is_static(self) -> np.ndarray:
        """`(name,)` bool."""
        return np.array([name in self.mapping.static_sources for name in self.names], dtype=bool)

    @cached_property
    def is_flag(self) -> np.ndarray:
        """`(name,)` bool: a variable of 0 and 1, to which true and false are numbers."""
        rows: tuple[Variable | StaticVariable, ...]
        rows = (*self.mapping.variables, *self.mapping.static_variables, *self.mapping.label_variables)
        flags: np.ndarray = np.array([row.plausible_low >= 0 and row.plausible_high <= 1 for row in rows], dtype=bool)
        return flags[self.own] if len(self.own) else np.zeros(0, dtype=bool)

    @cached_property
    def own(self) -> np.ndarray:
        """`(name,)` int32: the index among the mapping's own names."""
        own = own_names(self.mapping)
        sources = {**self.mapping.source_names, **self.mapping.static_sources}
        return np.array([own.index(sources[name]) for name in self.names], dtype=np.int32)

    @cached_property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The plausible range of each source name of a series."""
        rows = {v.name: v for v in (*self.mapping.variables, *self.mapping.label_variables)}
        return {
            source: (rows[name].plausible_low, rows[name].plausible_high)
            for source, name in self.mapping.source_names.items()
        }

    @cached_property
    def loose_stays(self) -> pl.Series:
        """The ids of stays but for their form."""
        return loose_ids(self.keys.stay_ids)

    @cached_property
    def loose_subjects(self) -> pl.Series:
        """The ids of subjects but for their form."""
        return loose_ids(self.keys.subjects)

    @cached_property
    def keys(self) -> StayKeys:
        """The stays, to be found by id or by subject and time."""
        assert self.stays is not None
        return StayKeys.of(self.stays.frame, self.until_hours)

    def earliest(self, table: EventsLayout) -> float:
        """The hour of a stay from which on a table's rows belong to it: its start, or as far back as the table says."""
        back = table.look_back_hours
        return 0.0 if back is None else -self.layout.stays.start_shift_hours - back

    def keys_for(self, table: EventsLayout) -> StayKeys:
        """As `keys`, with the windows of the stays beginning as early as a table's rows belong to them."""
        early = self.earliest(table)
        if early >= 0:
            return self.keys
        assert self.stays is not None
        if early not in self._reaching_back:
            moved = self.stays.frame.with_columns(pl.col(START) + round(early * MICROSECONDS_PER_HOUR))
            self._reaching_back[early] = StayKeys.of(moved, self.until_hours - early)
        return self._reaching_back[early]
