"""What becomes of the rows of a batch: whose, when, how much, in which unit; or the reason that bars their use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, final

import numpy as np
import polars as pl

from pipeline.core.errors import DataError
from pipeline.ingest.cohort.events import IMPLAUSIBLE, REASONS, plausible
from pipeline.ingest.engine.coded import ABSENT, Batch, Coded, id_text, loose_ids, plain_text
from pipeline.ingest.engine.event_stays import BETWEEN, FOUND, UNKNOWN
from pipeline.ingest.engine.event_times import hours_since_start, kept, moments, rows_of, times_of, when_known
from pipeline.ingest.engine.event_units import UNIT_REASONS, UNIT_UNKNOWN, Conversions, in_units
from pipeline.ingest.engine.event_values import VALUE_LIMIT, VALUE_REASONS, mend, numbers
from pipeline.ingest.engine.instants import MICROSECONDS_PER_HOUR
from pipeline.ingest.engine.parts.row_fates import FilePart, RowFates
from pipeline.ingest.engine.reading import Reading
from pipeline.ingest.mapping.layout import EventsLayout
from pipeline.ingest.source_tables import (
    OUTSIDE_WINDOW,
    UNKNOWN_VARIABLE,
    UNNAMED,
    VARIABLE_MISSING,
)
from pipeline.ingest.windows import before
from pipeline.ingest.withdrawn import WITHDRAWN

STAY_MISSING: Final = "stay or subject missing"
STAY_UNKNOWN: Final = "no such stay or subject"
STAY_EXCLUDED: Final = "stay excluded"
BETWEEN_STAYS: Final = "outside every stay"
AFTER_END: Final = "after the end of the stay"
OTHER_SUBJECT: Final = "another subject than the stay's"

_LIMITS: Final = ("<", "<=", "=<", ">", ">=", "=>", "\u2264", "\u2265", "4171756", "4171754", "4172704", "4171755")
"""What a column of operators says of limits: the sign, or OMOP's concept of it."""


@final
@dataclass(frozen=True, eq=False, repr=False)
class Located:
    """The rows of a batch that belong to a stay, in order; the others by reason. `hours` since the stay's start.

    A row that lies in the windows of several stays is there once for each: `copies` of rows are more than were read.
    """

    rows: np.ndarray
    stay: np.ndarray  # (row,) int32, row of the table of stays
    hours: np.ndarray
    lost: list[tuple[str, np.ndarray]]
    copies: int = 0
    loose: int = 0  # of the rows that name nobody: those that name somebody but for the form of the id
    nobodys: int = 0  # rows of a stay that name a subject without one
    known: np.ndarray | None = None  # (row,) hours since the stay's start; inf where a row does not say; None = `hours`


@final
@dataclass
class Usable:
    """The rows of a batch that can be used."""

    stay: np.ndarray
    hours: np.ndarray
    name: np.ndarray
    value: np.ndarray
    known: np.ndarray | None = None  # hours; None where no table of the layout says so

    def take(self, keep: np.ndarray) -> None:
        """Only these rows, `(row,)` bool."""
        rows = np.flatnonzero(keep)  # a place is looked up faster than a mask is gone through, once for each column
        self.stay, self.hours, self.name, self.value = (
            column[rows] for column in (self.stay, self.hours, self.name, self.value)
        )
        self.known = None if self.known is None else self.known[rows]


def names_of(batch: Batch, table: EventsLayout, reading: Reading, part: FilePart) -> np.ndarray:
    """int32 `(row of the batch,)`: the index of each row's source name, `ABSENT` where it means nothing (counted).

    Raises:
        DataError: codes that the mapping does not know, unless it says to drop them.
    """
    assert table.code is not None
    coded = batch.coded(table.code)
    meant = plain_text(coded.distinct).to_list()
    rows = np.bincount(coded.codes + 1, minlength=len(meant) + 1)
    table_of = [reading.place.get(table.prefix + text, ABSENT) if text else ABSENT for text in meant]
    empty = int(rows[0]) + sum(int(n) for text, n in zip(meant, rows[1:], strict=True) if not text)
    strange = [int(n) for text, at, n in zip(meant, table_of, rows[1:], strict=True) if text and at == ABSENT and n]
    if reading.mapping.unknown_variables == "error" and strange:
        raise DataError(
            f"{sum(strange)} rows of {len(strange)} codes that mapping {reading.mapping.name} does not know; "
            'add them, or set unknown_variables = "drop" to drop and count them'
        )
    if strange:
        alike = loose_ids(pl.Series(meant, dtype=pl.String)).is_in(reading.loose_codes(table).implode()).to_list()
        part.loose_codes += sum(
            int(n) for near, at, n in zip(alike, table_of, rows[1:], strict=True) if near and at == ABSENT
        )
    for reason, gone in ((VARIABLE_MISSING, empty), (UNKNOWN_VARIABLE, sum(strange))):
        if gone:
            part.fates.count(UNNAMED, reason, gone)
    return coded.look_up(np.array(table_of, dtype=np.int32), ABSENT)


def locate(batch: Batch, table: EventsLayout, reading: Reading, rows: np.ndarray) -> Located:
    """Whose and when the rows `rows` of the batch are."""
    lost: list[tuple[str, np.ndarray]] = []
    coded = batch.coded(table.key)
    codes = coded.codes if batch.all_rows(rows) else coded.codes[rows]
    texts = id_text(coded.distinct.alias(table.key), table.file)
    named = Coded(codes, texts).look_up((texts.is_not_null() & (texts != "")).fill_null(False).to_numpy(), False)
    rows, codes, time = kept(named, STAY_MISSING, lost, rows, codes, times_of(batch, table, rows, reading.clock))
    beside: Any = time  # what tells the hours: a moment, or the time as it is written
    moment = None
    if table.time_unit == "datetime":
        rows, codes, moment = moments(time, table, reading, rows, codes, lost)
        beside = moment
    copies = 0
    if table.link == "subject":
        at, stay, why = reading.keys_for(table).windows(texts, codes, moment)
        copies = len(at) - len(rows)
        if copies:
            rows, beside = rows[at], beside.gather(at) if isinstance(beside, pl.Series) else beside[at]
    else:
        stay, why = reading.keys.find(texts, codes)
    loose = nobodys = 0
    if (why == UNKNOWN).any():
        known = reading.loose_subjects if table.link == "subject" else reading.loose_stays
        strange = loose_ids(texts).is_in(known.implode()).fill_null(False).to_numpy()
        here = codes if not copies else codes[at]
        loose = int((Coded(here, texts).look_up(strange, False) & (why == UNKNOWN)).sum())
    for code, reason in ((UNKNOWN, STAY_UNKNOWN), (BETWEEN, BETWEEN_STAYS)):
        if (why == code).any():
            lost.append((reason, rows[why == code]))
    if why.any():
        rows, stay, beside = (rows_of(item, why == FOUND) for item in (rows, stay, beside))
    if reading.keys.withdrawn.any():
        rows, stay, beside = kept(~reading.keys.withdrawn[stay], WITHDRAWN, lost, rows, stay, beside)
    if reading.keys.excluded.any():
        rows, stay, beside = kept(~reading.keys.excluded[stay], STAY_EXCLUDED, lost, rows, stay, beside)
    said = reading.subject_beside(table)
    if said is not None and said in batch.arrays:
        others, nobodys = reading.of_others(_at(batch, said, rows), stay)
        rows, stay, beside = kept(~others, OTHER_SUBJECT, lost, rows, stay, beside)
    if table.time_unit == "datetime":
        hours = (beside - reading.keys.start[stay]) / MICROSECONDS_PER_HOUR
    else:
        rows, stay, hours = hours_since_start(beside, table, rows, stay, lost, reading)
    if reading.keys.any_ends:
        ended = reading.keys.length_hours[stay] <= hours
        ended &= before(hours, reading.until_hours, closed=reading.mapping.closed_window)
        rows, stay, hours = kept(~ended, AFTER_END, lost, rows, stay, hours)
    since = when_known(batch, table, reading, rows, stay, hours) if reading.keeps_known else None
    return Located(rows, stay, hours, lost, copies, loose, nobodys, since)


def in_window(
    located: Located, table: EventsLayout, reading: Reading, is_static: Callable[[], np.ndarray | bool]
) -> Located:
    """The rows that lie in the window, the others lost; a static `(row,)` may lie before it."""
    outside = ~before(located.hours, reading.until_hours, closed=reading.mapping.closed_window)
    early = located.hours < reading.earliest(table)
    if early.any():
        outside |= early & ~np.asarray(is_static())
    if not outside.any():
        return located
    lost, keep = [*located.lost, (OUTSIDE_WINDOW, located.rows[outside])], np.flatnonzero(~outside)
    known = None if located.known is None else located.known[keep]
    rows, stay, hours = (column[keep] for column in (located.rows, located.stay, located.hours))
    return replace(located, rows=rows, stay=stay, hours=hours, lost=lost, known=known)


def use(
    batch: Batch,
    table: EventsLayout,
    located: Located,
    name: np.ndarray,
    column: str,
    reading: Reading,
    fates: RowFates,
    done: Conversions,
) -> Usable:
    """The rows that can be used; `name` `(row of the batch,)` says what each means, `column` holds the values."""
    for reason, gone in located.lost:
        fates.drop(reason, name[gone], batch, gone, column)
    rows = located.rows
    found = Usable(located.stay, located.hours, name[rows], np.zeros(0), located.known)
    raw = pl.Series("value", np.ones(len(rows))) if table.presence else batch.series(column, rows)
    found.value, why = numbers(raw, reading.layout, reading.is_flag[found.name])
    if table.operator is not None and table.operator in batch.arrays and not reading.layout.take_limits:
        said = _at(batch, table.operator, rows)
        limits = plain_text(said.distinct).is_in(_LIMITS).fill_null(False).to_numpy()
        why[said.look_up(limits, False) & (why == 0)] = VALUE_REASONS.index(VALUE_LIMIT)
    if why.any():
        for code in np.unique(why[why > 0]):
            here = why == code
            fates.drop(VALUE_REASONS[code], found.name[here], batch, rows[here], column)
        rows = rows[why == 0]
        found.take(why == 0)
    units = None if table.unit is None else _at(batch, table.unit, rows)
    found.value, why = in_units(found.value, found.name, units, reading.names, reading.mapping.codes, done)
    if why.any():
        for code in np.unique(why[why > 0]):
            if UNIT_REASONS[code] != UNIT_UNKNOWN or UNIT_UNKNOWN in fates.criticality:  # else the file's end stops it
                here = why == code
                fates.drop(UNIT_REASONS[code], found.name[here], batch, rows[here], column)
        rows = rows[why == 0]
        found.take(why == 0)
    codes = reading.mapping.codes
    found.value = mend(found.value, found.name, reading.names, codes, reading.ranges, done)
    if REASONS[IMPLAUSIBLE] in fates.criticality:  # such rows go on, and are counted where the cohort is made
        bad = ~plausible(reading.own[found.name], found.value.astype(np.float32), reading.mapping)
        fates.look(REASONS[IMPLAUSIBLE], found.name[bad], batch, rows[bad], column)
    return found


def _at(batch: Batch, column: str, rows: np.ndarray) -> Coded:
    coded = batch.coded(column)
    return coded if batch.all_rows(rows) else Coded(coded.codes[rows], coded.distinct)
