"""Anybody's tables as a scene: a synthetic or condensed set, the records it was made from, and records of others.

One row per person, or a long table of series that is flattened by summaries (mean, least, largest, last, number of
values per person). Columns meet by name. Numbers are standardised by the holdout, categories become columns of 0 and 1,
gaps are filled with the holdout's median and marked in a column of their own. All attacks on condensed sets then apply.

What would make the audit lie is refused: columns that do not meet, too few rows, a holdout that overlaps the real
table, categories that nobody has. Messages hold names of columns and counts, never a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np
import polars as pl
from scipy import stats

from pipeline.audit.scene import BytesScene, CondensedScene, Scene, TableScene
from pipeline.audit.tables.columns import encoded
from pipeline.core.codec import record_digest
from pipeline.core.errors import DataError
from pipeline.core.types import CondensedSet, Provenance

MIN_PEOPLE: Final = 100  # in the real table and in the holdout: with fewer no figure could decide
MAX_PAIRS: Final = 100_000_000  # distances held at once, 4 bytes each
TWINS: Final = 1e-6  # a holdout that repeats the real table this improbably overlaps it
_SUMMARIES: Final = ("mean", "min", "max", "last", "count")


@final
@dataclass(frozen=True)
class Tables:
    """The three tables, and which columns are no attributes: the person, and the time of a long table."""

    real: pl.DataFrame
    shared: pl.DataFrame
    holdout: pl.DataFrame
    subject_column: str | None = None
    time_column: str | None = None


@final
@dataclass(frozen=True)
class TabularScene:
    """What the audit attacks, and what a reader must know of how the tables were read."""

    scenes: tuple[Scene, ...]
    raw: TableScene  # the shared table as it lies in its file
    columns: tuple[str, ...]  # audited, by their names in the tables
    people: Mapping[str, int]  # real, shared, holdout
    notes: tuple[str, ...]


def read_table(path: Path, role: str) -> pl.DataFrame:
    """A parquet or CSV file.

    Raises:
        DataError: missing, or not such a file; the message names the role, never what was read.
    """
    if not path.is_file():
        raise DataError(f"the {role} table {path.name} is not a file")
    try:
        return pl.read_csv(path) if path.suffix.lower() == ".csv" else pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError, ValueError, UnicodeDecodeError):
        raise DataError(
            f"the {role} table {path.name} cannot be read as {'CSV' if path.suffix == '.csv' else 'parquet'}"
        ) from None


def tabular_scene(tables: Tables, *, name: str = "shared", shared_bytes: bytes | None = None) -> TabularScene:
    """The scene of a table; with `shared_bytes` and a subject column the file's bytes are searched for identifiers.

    Raises:
        DataError: as the module says.
    """
    attributes = _attributes(tables)
    notes: list[str] = []
    left_out = sorted(set(tables.real.columns) - set(attributes) - {tables.subject_column, tables.time_column})
    if left_out:
        notes.append(f"{len(left_out)} columns of the real table are not in the shared one and were not audited")
    parts = {role: _flat(getattr(tables, role), role, attributes, tables) for role in ("real", "shared", "holdout")}
    people = {role: frame[_PERSON].n_unique() for role, frame in parts.items()}
    _enough(people, {role: frame.height for role, frame in parts.items()})
    columns = [column for column in parts["holdout"].columns if column != _PERSON]
    _apart(parts, columns, tables.subject_column is not None)
    matrices, channels, (zero, unit), more = encoded(parts, columns)
    condensed = CondensedSet(
        features=matrices["shared"][:, None, :],
        labels=np.zeros((len(matrices["shared"]), 0), np.float32),
        channels=channels,
        tasks=(),
        step_hours=1.0,
        transforms=({"kind": "table", "public": False, "columns": list(attributes)},),
        method="not known",
        starts_from_records=False,
        guarantee=None,
        provenance=Provenance("table"),
    )
    digest = record_digest(condensed)
    real, holdout = (parts[role][_PERSON].to_numpy() for role in ("real", "holdout"))
    codes = {person: code for code, person in enumerate(np.unique(np.concatenate([real, holdout])).tolist())}
    scenes: list[Scene] = [
        CondensedScene(
            artefact=name,
            artefact_digest=digest,
            condensed=condensed,
            members=matrices["real"][:, None, :],
            holdout=matrices["holdout"][:, None, :],
            member_subjects=np.array([codes[person] for person in real.tolist()], np.int32),
            holdout_subjects=np.array([codes[person] for person in holdout.tolist()], np.int32),
            zero=zero,
            unit=unit,
        )
    ]
    leading = [tables.subject_column, tables.time_column] if tables.time_column else []  # by which a long table lies
    told = [column for column in (*leading, *attributes) if column in tables.shared.columns]
    raw = TableScene(name, digest, {column: _raw(tables.shared[column]) for column in told})
    if shared_bytes is not None and tables.subject_column is not None:
        ids = pl.concat([_ids(tables.real, tables.subject_column), _ids(tables.holdout, tables.subject_column)])
        scenes.append(BytesScene(name, digest, {"shared": shared_bytes}, identifiers=ids.unique().sort().to_list()))
    return TabularScene(tuple(scenes), raw, tuple(attributes), people, (*notes, *more))


_PERSON: Final = "\x00person"  # no table has such a column
_TIME: Final = "\x00time"


def _attributes(tables: Tables) -> tuple[str, ...]:
    """The columns that are compared: those of the shared table, which the others must have, of the same kind."""
    special = {tables.subject_column, tables.time_column} - {None}
    for role in ("real", "holdout", *(("shared",) if tables.time_column else ())):
        for column in sorted(special - set(getattr(tables, role).columns)):  # type: ignore[type-var]
            raise DataError(f"the {role} table has no column {column}")
    found = tuple(column for column in tables.shared.columns if column not in special)
    if not found:
        raise DataError("the shared table has no column to audit")
    for role in ("real", "holdout"):
        absent = [column for column in found if column not in getattr(tables, role).columns]
        if absent:
            raise DataError(
                f"{len(absent)} columns of the shared table are missing from the {role} table, the first is {absent[0]}"
            )
    for column in found:
        kinds = {_kind(getattr(tables, role)[column], column) for role in ("real", "shared", "holdout")} - {"empty"}
        if len(kinds) > 1:
            raise DataError(f"column {column} holds numbers in one table and words in another")
    return found


def _kind(column: pl.Series, name: str) -> str:
    kind = column.dtype
    if kind == pl.Null:
        return "empty"
    if kind.is_numeric() or kind.is_temporal() or kind == pl.Boolean:
        return "number"
    if kind in (pl.String, pl.Categorical) or isinstance(kind, pl.Enum):
        return "category"
    raise DataError(f"column {name} holds neither numbers, times nor words")


def _raw(column: pl.Series) -> np.ndarray:
    """A column as it lies in the file; times are left to their own precision, which no rounding here could keep."""
    if column.dtype.is_float():
        return column.fill_null(float("nan")).to_numpy()
    if column.dtype.is_integer():
        return (
            column.to_numpy() if not column.null_count() else column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        )
    if column.dtype.is_temporal() or column.dtype == pl.Boolean or column.dtype == pl.Null:
        ordered = column.cast(pl.Float64 if column.dtype == pl.Null else pl.Int64)
    else:
        ordered = column.cast(pl.String)
    return np.asarray(ordered.rank("dense").fill_null(0).to_numpy(), np.uint32)


def _ids(frame: pl.DataFrame, column: str) -> pl.Series:
    return frame[column].cast(pl.String).drop_nulls().alias("id")


def _flat(frame: pl.DataFrame, role: str, attributes: Sequence[str], tables: Tables) -> pl.DataFrame:
    """One row per row or person: numbers as float64, words as they are, and the person as text."""
    subject = tables.subject_column
    numbers = [name for name in attributes if _kind(frame[name], name) != "category"]
    words = [name for name in attributes if name not in numbers]
    cast = [_number(frame[name]).alias(name) for name in numbers] + [frame[name].cast(pl.String) for name in words]
    if subject is None or subject not in frame.columns:
        person = pl.Series(_PERSON, [f"{role}{row}" for row in range(frame.height)], dtype=pl.String)
        return pl.DataFrame([person, *cast]) if frame.height else pl.DataFrame([person])
    if frame[subject].null_count():
        raise DataError(f"{frame[subject].null_count()} rows of the {role} table have no {subject}")
    person = frame[subject].cast(pl.String).alias(_PERSON)
    if role == "shared":  # its numbers are nobody's, however they are called
        person = ("shared" + person).alias(_PERSON)
    flat = pl.DataFrame([person, *cast])
    if tables.time_column is None:
        return flat
    order = pl.DataFrame([person, frame[tables.time_column].alias(_TIME), *cast])
    if order[_TIME].null_count():
        raise DataError(f"{order[_TIME].null_count()} rows of the {role} table have no {tables.time_column}")
    return (
        order.sort(_PERSON, _TIME, maintain_order=True)
        .group_by(_PERSON, maintain_order=True)
        .agg(
            *(_summary(name, how) for name in numbers for how in _SUMMARIES),
            *(pl.col(name).drop_nulls().last().alias(name) for name in words),
        )
    )


def _number(column: pl.Series) -> pl.Series:
    """Float64 with null where nothing finite is; times as days."""
    if column.dtype.is_temporal():
        column = column.cast(pl.Datetime("us"), strict=False).cast(pl.Int64) / 86_400e6
    values = column.cast(pl.Float64, strict=False)
    return values.set(~values.is_finite().fill_null(False), None)


def _summary(name: str, how: str) -> pl.Expr:
    values = pl.col(name).drop_nulls()
    summary: pl.Expr = getattr(values, how)()
    return summary.cast(pl.Float64).alias(f"{name}:{how}")


def _enough(people: Mapping[str, int], rows: Mapping[str, int]) -> None:
    for role in ("real", "holdout"):
        if people[role] < MIN_PEOPLE:
            raise DataError(f"the {role} table has {people[role]} people, and at least {MIN_PEOPLE} are needed")
    if not rows["shared"]:
        raise DataError("the shared table has no row")
    if rows["shared"] * max(rows["real"], rows["holdout"]) > MAX_PAIRS:
        raise DataError(
            f"{rows['shared']} shared rows against {rows['real']} real ones are more than {MAX_PAIRS:.0e} pairs: "
            "audit parts of the shared table, each against the whole real one"
        )


def _apart(parts: Mapping[str, pl.DataFrame], columns: Sequence[str], named: bool) -> None:
    """The holdout holds nobody of the real table: by identifier if there are any, by rows that are repeated anyway."""
    real, holdout = parts["real"], parts["holdout"]
    if named:
        both = len(set(real[_PERSON].to_list()) & set(holdout[_PERSON].to_list()))
        if both:
            raise DataError(f"{both} people are in the real table and in the holdout: the holdout must be of others")
    rows = real.select(columns).hash_rows(seed=7).to_numpy()
    others = holdout.select(columns).hash_rows(seed=7).to_numpy()
    repeated = int(np.isin(others, rows).sum())
    counts = np.unique(rows, return_counts=True)[1]
    usual = (counts[counts > 1].sum() + 1) / (len(rows) + 2)  # how often a record has a twin among the real ones
    if repeated and stats.binom.sf(repeated - 1, len(others), usual) < TWINS:
        raise DataError(
            f"{repeated} of {len(others)} rows of the holdout are in the real table, too: the holdout must be of others"
        )
