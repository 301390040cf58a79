"""What every reader hands on: long events, one row per stay, and where each row that was read went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import polars as pl

from pipeline.core.errors import DataError
from pipeline.core.types import TableUse, UnitUse
from pipeline.ingest.kept.quarantine import Quarantine
from pipeline.ingest.kept.spilled import SpilledRows
from pipeline.ingest.number_text import flags

EVENT_SCHEMA: Final = {"stay_id": pl.String, "hours": pl.Float64, "variable": pl.String, "value": pl.Float64}
KNOWN: Final = "known"
"""A further column of events, where a source says when a row was known: hours since the start, inf = it does not."""
UNNAMED: Final = "(unnamed)"

VARIABLE_MISSING: Final = "variable missing"
TIME_MISSING: Final = "time missing"
TIME_NOT_FINITE: Final = "time not finite"
VALUE_MISSING: Final = "value missing"
VALUE_NOT_FINITE: Final = "value not finite"
CODED_MISSING: Final = "coded missing"
UNKNOWN_VARIABLE: Final = "unknown variable"
OUTSIDE_WINDOW: Final = "outside the window"
BOOKKEEPING: Final = "record id"

_MOST_TOLD: Final = 5
_LARGEST_EXACT: Final = 2.0**53

Counts = dict[str, int]
CountsByVariable = dict[str, dict[str, int]]


@final
@dataclass(frozen=True, eq=False, repr=False)
class SourceTables:
    """A source in long form; `rows_read` = rows of `events` + dropped rows, checked on construction.

    `events`: stay_id (str), hours since the start of the stay (f64), variable (the source's name), value (f64, finite);
    ids and names may be enumerations, of the stays in their order and of names that the source may hold.
    `stays`: stay_id, subject_id, optionally split ("train", "tuning", "held_out"), and the raw label and static
    columns; its row order is the order of the cohort. `subjects_known` is false when the source has no subject ids, and
    every stay then counts as its own subject. `source` names files, never a path's folders. `notes` go into the report.
    """

    events: pl.DataFrame
    stays: pl.DataFrame
    rows_read: int
    rows_dropped: Mapping[str, int]
    dropped_by_variable: Mapping[str, Mapping[str, int]]
    subjects_known: bool
    source: str
    notes: tuple[str, ...] = ()
    quarantine: Quarantine | None = None  # copies of rows that failed, for the site alone
    tables: tuple[TableUse, ...] = ()  # what became of each table and file
    units: tuple[UnitUse, ...] = ()  # what unit texts the rows carried, and what was made of them
    spilled: SpilledRows | None = None  # the events, where they are more than memory; `events` is empty then

    def __post_init__(self) -> None:
        kinds = {name: pl.String if isinstance(kind, pl.Enum) else kind for name, kind in self.events.schema.items()}
        if {name: kind for name, kind in kinds.items() if name != KNOWN} != EVENT_SCHEMA:
            raise DataError(f"{self.source}: events must have the columns {', '.join(EVENT_SCHEMA)} in these types")
        require_columns(self.stays.columns, ("stay_id", "subject_id"), f"{self.source}: the table of stays")
        if self.stays.height == 0:
            raise DataError(f"{self.source}: there is no stay")
        if self.rows_read != self.n_events + sum(self.rows_dropped.values()):
            raise DataError(f"{self.source}: {self.rows_read} rows read are not all accounted for")
        check_ids(self.stays["stay_id"], "stay_id", self.source)
        if self.stays["subject_id"].null_count():
            raise DataError(f"{self.source}: {self.stays['subject_id'].null_count()} stays have no subject_id")
        kind = self.events["stay_id"].dtype
        if isinstance(kind, pl.Enum) and kind.categories.equals(self.stays["stay_id"], check_names=False):
            return  # an event can name no other stay
        strangers = self.events["stay_id"].unique().is_in(self.stays["stay_id"].implode()).not_().sum()
        if strangers:
            raise DataError(f"{self.source}: {strangers} stays have events but no row in the table of stays")

    @property
    def n_events(self) -> int:
        """Rows of events, wherever they are."""
        return self.events.height + (0 if self.spilled is None else self.spilled.height)

    def __repr__(self) -> str:
        return f"SourceTables(source={self.source!r}, events=<{self.n_events}>, stays=<{self.stays.height}>)"


def require_some(tables: SourceTables) -> None:
    """Raise `DataError` with the account of the rows where none of them can be used."""
    if not tables.n_events:
        lost = ", ".join(f"{rows} {reason}" for reason, rows in sorted(tables.rows_dropped.items()) if rows)
        told = "; ".join((lost, *tables.notes[:_MOST_TOLD]))
        raise DataError(f"{tables.source}: none of {tables.rows_read} rows can be used: {told}")


def require_columns(present: list[str], wanted: tuple[str, ...], where: str) -> None:
    """Raise `DataError` naming every wanted column that is not there."""
    missing = [name for name in wanted if name not in present]
    if missing:
        raise DataError(f"{where} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}")


def check_ids(ids: pl.Series, column: str, where: str) -> None:
    """Raise `DataError` when an id is missing, empty, not finite or there twice."""
    absent = ids.null_count() + int((ids.str.strip_chars().str.to_lowercase().is_in(["", "nan", "inf", "-inf"])).sum())
    if absent:
        raise DataError(f"{where}: {absent} rows have no {column}")
    twice = ids.len() - ids.n_unique()
    if twice:
        raise DataError(f"{where}: {twice} rows repeat a {column} that must be unique")


def as_text_ids(column: pl.Series, where: str) -> pl.Series:
    """Ids as text; whole numbers stored as floats lose their `.0`.

    Raises:
        DataError: an id is missing, not finite, not whole, or of a type that cannot be an id.
    """
    if column.dtype.is_float():
        broken = int((~column.fill_null(float("nan")).is_finite() | (column != column.round())).fill_null(True).sum())
        if broken:
            raise DataError(f"{where}: {broken} rows of column {column.name} hold no whole number as id")
        require_exact(column, where)
        column = column.cast(pl.Int64)
    if not (column.dtype.is_integer() or column.dtype in (pl.String, pl.Categorical) or column.dtype == pl.Enum):
        raise DataError(f"{where}: column {column.name} has type {column.dtype}; ids are text or whole numbers")
    text = column.cast(pl.String).str.normalize("NFC")
    absent = text.null_count() + int((text.str.strip_chars() == "").sum())
    if absent:
        raise DataError(f"{where}: {absent} rows have no {column.name}")
    return text


def require_exact(column: pl.Series, where: str) -> None:
    """Raise `DataError` when ids are floats beyond 2^53, where one float stands for several whole numbers."""
    beyond = int((column.abs() > _LARGEST_EXACT).sum()) if column.dtype.is_float() else 0
    if beyond:
        raise DataError(
            f"{where}: {beyond} rows of column {column.name} hold ids as floating point numbers beyond 2^53, where "
            "several ids are one number; export them as text or whole numbers"
        )


def as_numbers(column: pl.Series, where: str) -> pl.Series:
    """A column as float64, null where it was empty; a column of yes and no (in words) as 1 and 0.

    Raises:
        DataError: some entries are not numbers; the message gives their count.
    """
    if column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null):
        return column.cast(pl.Float64)
    if column.dtype not in (pl.String, pl.Categorical):
        raise DataError(f"{where}: column {column.name} has type {column.dtype}; numbers are expected")
    text = column.cast(pl.String).str.strip_chars()
    text = text.set(text == "", None)
    numbers = text.cast(pl.Float64, strict=False)
    broken = numbers.null_count() - text.null_count()
    said = flags(text) if broken else None
    if broken and said is None:
        raise DataError(
            f"{where}: {broken} rows of column {column.name} hold text where numbers are expected; say what each text "
            'means by a column of layout.stays.derived, kind = "codes"'
        )
    return numbers if said is None else said


def drop_unusable(
    events: pl.DataFrame, missing_codes: tuple[float, ...], bookkeeping: str = ""
) -> tuple[pl.DataFrame, CountsByVariable]:
    """Drop rows without a variable, a finite time or a finite value that is no missing code, and count them.

    Rows of the variable named `bookkeeping` repeat the stay's id and are dropped, too.
    """
    variable, hours, value = pl.col("variable"), pl.col("hours"), pl.col("value")
    good = (
        (variable != "")
        & (variable != bookkeeping)
        & hours.is_finite()
        & value.is_finite()
        & ~value.is_in(list(missing_codes))
    )
    keep = events.select(good.fill_null(False)).to_series()
    if keep.all():
        return events, {}
    reason = (
        pl.when(variable.is_null() | (variable == ""))
        .then(pl.lit(VARIABLE_MISSING))
        .when(variable == bookkeeping)
        .then(pl.lit(BOOKKEEPING))
        .when(hours.is_null())
        .then(pl.lit(TIME_MISSING))
        .when(~hours.is_finite())
        .then(pl.lit(TIME_NOT_FINITE))
        .when(value.is_null())
        .then(pl.lit(VALUE_MISSING))
        .when(~value.is_finite())
        .then(pl.lit(VALUE_NOT_FINITE))
        .otherwise(pl.lit(CODED_MISSING))
    )
    bad = events.filter(~keep).group_by("variable", reason.alias("reason")).len()
    counts: CountsByVariable = {}
    for name, why, rows in sorted((row[0] or UNNAMED, row[1], row[2]) for row in bad.iter_rows()):
        found = counts.setdefault(name, {})
        found[why] = found.get(why, 0) + rows
    return events.filter(keep), counts


def totals(counts: Mapping[str, Mapping[str, int]]) -> Counts:
    """Counts by reason over all variables."""
    reasons: Counts = {}
    for found in counts.values():
        for reason, rows in found.items():
            reasons[reason] = reasons.get(reason, 0) + rows
    return dict(sorted(reasons.items()))
