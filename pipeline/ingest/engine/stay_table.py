"""The stays of a source that has a layout: one row per stay, who is excluded, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import polars as pl

from pipeline.core.errors import DataError
from pipeline.ingest.engine.batches import FILE_STEM, Tally, batches, header
from pipeline.ingest.engine.coded import ID_FORMS, id_text, joined_ids, loose_ids, plain_text
from pipeline.ingest.engine.derive import derive, underived
from pipeline.ingest.engine.instants import MICROSECONDS_PER_HOUR, ClockKinds, instants
from pipeline.ingest.mapping.inclusion import Inclusion
from pipeline.ingest.mapping.layout import ROW_NUMBER, EventsLayout, Join, Layout, StaysLayout
from pipeline.ingest.mapping.toml_table import id_columns
from pipeline.ingest.number_text import AMBIGUOUS, read_numbers
from pipeline.ingest.source_tables import as_text_ids
from pipeline.ingest.splits import START
from pipeline.ingest.table_files import find_files, stem
from pipeline.ingest.withdrawn import WITHDRAWN, Withdrawn, withdrawn_note

END: Final = "(end)"
KEY: Final = "(key)"
EXCLUDED: Final = "(excluded)"
_END_LOST: Final = "(end lost)"
_MANY, _MOST_OF_ONE = 10, 0.05  # stays of one subject, and which share of all is too much for one


@final
@dataclass(frozen=True)
class StayTable:
    """`frame`: stay_id, subject_id, (key), (start) and (end) in microseconds UTC, (excluded) = the reason or null,
    and the columns that joins, derived columns, labels and statics need."""

    frame: pl.DataFrame
    subjects_known: bool
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"StayTable(<{self.frame.height}>)"


def read_stays(folder: Path, layout: Layout, needed: Iterable[str], clock: ClockKinds, tally: Tally) -> StayTable:
    """Read, join, derive and select; `needed` are further columns that labels and statics would like.

    Raises:
        DataError: a file or column is missing, a stay or a joined key is there twice, or no stay is left.
    """
    stays = layout.stays
    notes = list[str]()
    frame = _rows(folder, layout, set(needed), tally, notes)
    notes += _malformed(stays.file or "", tally, 0)
    for join in stays.joins:
        before = tally.malformed
        frame = _joined(frame, folder, join, tally, notes)
        notes += _malformed(join.file, tally, before)
    times = [column for item in stays.derived if item.kind.endswith("between") for column in item.columns]
    if stays.start is not None:
        frame = frame.with_columns(instants(frame[stays.start], layout.timezone, clock, layout.dates).alias(START))
        shift = round(stays.start_shift_hours * MICROSECONDS_PER_HOUR)
        frame = frame.with_columns(pl.col(START) + shift)
    else:
        frame = frame.with_columns(pl.lit(None, pl.Int64).alias(START))
    end = (
        instants(frame[stays.end], layout.timezone, clock, layout.dates)
        if stays.end
        else pl.Series([None], dtype=pl.Int64)
    )
    frame = frame.with_columns(end.alias(END) if stays.end else pl.lit(None, pl.Int64).alias(END))
    if stays.end:
        lost = frame[END].is_null() & (plain_text(frame[stays.end]).fill_null("") != "")
        frame = frame.with_columns(lost.alias(_END_LOST))
    frame = _with_ids(frame, stays, folder)  # may sort
    days = ClockKinds(clock.offset, clock.local)  # a date of death is a date, and nothing to tell
    clocks = {name: instants(frame[name], layout.timezone, days, layout.dates) for name in dict.fromkeys(times)}
    for item in stays.derived:
        made = derive(item, frame, clocks, layout).alias(item.name)
        notes += underived(item, frame, made)
        frame = frame.with_columns(made)
    if layout.decimal_comma:
        frame = frame.with_columns(_decimal_points(frame[name], layout) for name in needed if name in frame.columns)
    frame = _named(frame, stays)
    frame = frame.with_columns(_excluded(frame, stays, layout.inclusion).alias(EXCLUDED))
    frame = frame.drop(_END_LOST, strict=False)
    out = frame[EXCLUDED].drop_nulls().value_counts().sort(EXCLUDED)
    notes += [
        *_twins(frame, stays),
        *_odd_sites(frame),
        *_overlaps(frame),
        *(f"{rows} stays excluded: {reason}" for reason, rows in out.iter_rows()),
    ]
    if frame[EXCLUDED].null_count() == 0:
        raise DataError(f"{folder.name}: no stay is left; {'; '.join(notes) or 'the table of stays is empty'}")
    return StayTable(frame, stays.subject is not None, tuple(notes))


def _malformed(file: str, tally: Tally, before: int) -> list[str]:
    rows = tally.malformed - before
    return [f"{rows} lines of {file} do not have the header's number of fields and were passed over"] if rows else []


def _twins(frame: pl.DataFrame, stays: StaysLayout) -> list[str]:
    """Ids that may be one: a person under two of them would be in two parts of a split."""
    notes = []
    for column, what in (("subject_id", "subjects"), ("stay_id", "stays")):
        if column == "subject_id" and stays.subject is None:
            continue
        ids = frame[column].unique()
        alike = len(ids) - loose_ids(ids).n_unique()
        if alike:
            notes.append(f"{alike} {what} have an id that differs from another's only by {ID_FORMS}: are they one?")
    most = frame["subject_id"].value_counts()["count"].max()
    if isinstance(most, int) and most >= _MANY and most > _MOST_OF_ONE * frame.height:
        notes.append(f"{most} of {frame.height} stays are of one subject: is its id one, or a mark of nobody's?")
    return notes


def _odd_sites(frame: pl.DataFrame) -> list[str]:
    """Stays without a site, and sites that may be one: each would be held out, or not, on its own."""
    if "site" not in frame.columns:
        return []
    sites = plain_text(frame["site"]).fill_null("")
    named = sites.filter(sites != "").unique()
    alike, without = len(named) - loose_ids(named).n_unique(), int((sites == "").sum())
    return [
        *([f"{without} of {len(sites)} stays have no site"] if without else []),
        *([f"{alike} sites have a name that differs from another's only by {ID_FORMS}"] if alike else []),
    ]


def _overlaps(frame: pl.DataFrame) -> list[str]:
    """Stays of one person at the same time: nested ones of a hierarchy, or one stay under two ids."""
    known = frame.filter(pl.col(START).is_not_null(), pl.col(END) > pl.col(START)).sort("subject_id", START)
    before = pl.col(END).cum_max().shift(1).over("subject_id")
    rows = known.select((before > pl.col(START)).fill_null(False).sum()).item() if known.height else 0
    return [f"{rows} stays begin before another stay of the same subject has ended: are they one?"] if rows else []


def _rows(folder: Path, layout: Layout, needed: set[str], tally: Tally, told: list[str]) -> pl.DataFrame:
    stays = layout.stays
    assert stays.file is not None
    files = find_files(folder, stays.file)
    there = {name.lower() for name in header(files[0], stays.encoding)}
    joined = {new for join in stays.joins for new in join.columns}
    named = {stays.subject, stays.subject_key, stays.start, stays.end, stays.site, stays.unit, stays.split, stays.stay}
    named |= {key for join in stays.joins for key in join.on} | {c for item in stays.derived for c in item.columns}
    columns = {column for name in named if name is not None for column in id_columns(name)}
    wanted = sorted((columns | set(stays.where)) - joined - {ROW_NUMBER})
    made = joined | {item.name for item in stays.derived} | set(wanted)
    wanted += sorted(name for name in needed - made if name.lower() in there)
    parts, alike, rows = [], 0, 0
    for path in files:
        for frame in batches(path, tuple(wanted), tally, stays.encoding):
            rows += frame.height
            _refuse_durations(frame, path)
            parts.append(frame.filter(*(_matches(name, kept) for name, kept in stays.where.items())))
            loose = frame.filter(*(_matches(name, kept, loosely=True) for name, kept in stays.where.items()))
            alike += loose.height - parts[-1].height
    if alike:
        told.append(f"{alike} rows of {stays.file} hold a text of `where` but for its case, and were not selected")
    frame = pl.concat(parts, how="vertical_relaxed") if parts else pl.DataFrame()
    if frame.height < rows:
        told.append(f"{frame.height} of {rows} rows of {stays.file} were selected by `where`")
    if frame.height == 0:
        raise DataError(f"{folder.name}: {stays.file} holds no stay that the layout's `where` selects")
    return frame.unique(maintain_order=True) if stays.distinct else frame


def _refuse_durations(frame: pl.DataFrame, path: Path) -> None:
    spans = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Duration)]
    if spans:
        raise DataError(f"{path}: column {spans[0]} holds durations; write it as a number, or as two times")


def _matches(column: str, kept: tuple[str, ...], *, loosely: bool = False) -> pl.Expr:
    text = pl.col(column).cast(pl.String).str.strip_chars()
    if loosely:
        text, kept = text.str.to_lowercase(), tuple(item.lower() for item in kept)
    exact = [item for item in kept if not item.endswith("*")]
    found = text.is_in(exact)
    for item in kept:
        if item.endswith("*"):
            found = found | text.str.starts_with(item[:-1])
    return found.fill_null(False)


def _joined(frame: pl.DataFrame, folder: Path, join: Join, tally: Tally, told: list[str]) -> pl.DataFrame:
    """The stays with the join's columns; `told` gets how many stays have no row, and why that may be."""

    def keyed(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.with_columns(id_text(rows[name], join.file).alias(f"(on {name})") for name in join.on)

    names = [f"(on {name})" for name in join.on]
    left = keyed(frame)
    wanted = left.select(names).unique()
    columns = tuple(dict.fromkeys((*join.on, *join.columns.values(), *join.where)))
    parts, rows, alike = [], 0, 0
    loose = _loose(wanted, names)
    for path in find_files(folder, join.file):
        for batch in batches(path, columns, tally, join.encoding):
            _refuse_durations(batch, path)
            batch = batch.filter(*(_matches(name, kept) for name, kept in join.where.items()))
            rows += batch.height
            met = keyed(batch)
            parts.append(met.join(wanted, on=names, how="semi"))
            strange = met.select(names).join(wanted, on=names, how="anti").drop_nulls()
            alike += _loose(strange, names).join(loose, on=names, how="semi").height
    if not rows:  # a file with a header and no row: nobody has an entry (no death, no label)
        told.append(f"{join.file} holds no row: no stay has {', '.join(join.columns)}")
        return left.drop(names).with_columns(pl.lit(None, pl.String).alias(new) for new in join.columns)
    right = pl.concat(parts, how="vertical_relaxed")
    right = right.select(*names, *(pl.col(old).alias(new) for new, old in join.columns.items()))
    if not right.height:
        told.append(f"none of {rows} rows of {join.file} belongs to a stay by {', '.join(join.on)}")
    without = left.join(right, on=names, how="anti").height
    if without and right.height:
        told.append(f"{without} of {left.height} stays have no row of {join.file} by {', '.join(join.on)}")
    if alike:
        told.append(f"{alike} rows of {join.file} name no stay, but one whose key differs only by {ID_FORMS}")
    twice = right.height - right.select(names).n_unique()
    if twice:
        raise DataError(f"{folder.name}: {join.file} has {twice} rows that repeat {', '.join(join.on)}")
    return left.join(right, on=names, how="left", maintain_order="left").drop(names)


def _loose(keys: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """Keys but for their form, each once."""
    return keys.select(loose_ids(keys[name]).alias(name) for name in names).unique()


def _decimal_points(column: pl.Series, layout: Layout) -> pl.Series:
    """A column of numbers with a decimal comma as `as_numbers` reads them; what is no number stays as it is."""
    if column.dtype != pl.String:
        return column
    value, kind = read_numbers(column, decimal_comma=True, no_thousands=layout.no_thousands)
    ambiguous = kind == AMBIGUOUS  # left with a comma, so that it is read as no number anywhere
    return column.zip_with(value.is_null(), value.cast(pl.String)).zip_with(~ambiguous, column.str.replace(r"\.", ","))


def _with_ids(frame: pl.DataFrame, stays: StaysLayout, folder: Path) -> pl.DataFrame:
    where = f"{folder.name}: {stays.file}"
    columns = []
    for name in (stays.stay, stays.subject, stays.subject_key):
        frame = frame if name is None else _with_id(frame, name)
    if stays.subject_key is not None:  # first: it may be called subject_id, which is ours from here on
        frame = frame.with_columns(as_text_ids(frame[stays.subject_key], where).str.strip_chars().alias(KEY))
    if stays.subject is not None:
        columns.append(as_text_ids(frame[stays.subject], where).str.strip_chars().alias("subject_id"))
    if stays.stay != ROW_NUMBER:
        ids = as_text_ids(frame[stays.stay], where).str.strip_chars().alias("stay_id")
        twice = len(ids) - ids.n_unique()
        if twice:
            raise DataError(f"{where}: {twice} rows repeat a {stays.stay} that must be unique")
        columns.append(ids)
    frame = frame.with_columns(columns)
    if stays.stay == ROW_NUMBER:
        frame = frame.sort("subject_id", START, maintain_order=True)
        number = pl.int_range(pl.len()).over("subject_id") + 1
        frame = frame.with_columns(pl.format("{}/{}", "subject_id", number).alias("stay_id"))
    if stays.subject is None:
        frame = frame.with_columns(pl.col("stay_id").alias("subject_id"))
    return frame if stays.subject_key is not None else frame.with_columns(pl.col("subject_id").alias(KEY))


def _with_id(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    parts = id_columns(name)
    return frame if len(parts) == 1 else frame.with_columns(joined_ids([frame[part] for part in parts]).alias(name))


def _named(frame: pl.DataFrame, stays: StaysLayout) -> pl.DataFrame:
    own = {"site": stays.site, "unit": stays.unit, "split": stays.split}
    given = [pl.col(name).cast(pl.String).alias(new) for new, name in own.items() if name is not None]
    frame = frame.with_columns(given)
    return frame.drop([new for new, name in own.items() if name is None and new in frame.columns])


def _excluded(frame: pl.DataFrame, stays: StaysLayout, inclusion: Inclusion) -> pl.Series:
    """The first reason that applies to each stay, or null."""
    rules: list[tuple[pl.Expr, str]] = []
    if stays.start is not None:
        rules.append((pl.col(START).is_null(), "no readable start"))
    if stays.end is not None:
        rules.append((pl.col(_END_LOST), "no readable end"))
    rules.append((pl.col(END) < pl.col(START), "ends before it starts"))
    if inclusion.age is not None:
        if "age" not in frame.columns:
            raise DataError("inclusion by age needs a column age in the table of stays; derive it in layout.stays")
        age = pl.col("age").cast(pl.Float64, strict=False)
        rules += [(age.is_null(), "age unknown"), (~age.is_between(*inclusion.age), "age outside the inclusion")]
    if inclusion.hours is not None:
        hours = (pl.col(END) - pl.col(START)) / MICROSECONDS_PER_HOUR
        rules += [(hours.is_null(), "length unknown"), (~hours.is_between(*inclusion.hours), "length not included")]
    if inclusion.units:
        if stays.unit is None:
            raise DataError("inclusion by unit needs layout.stays.unit")
        rules.append((~pl.col("unit").is_in(inclusion.units).fill_null(False), "another unit"))
    if inclusion.first_stay:  # among all stays of the subject, included or not
        rules.append((pl.col(START).rank("ordinal").over("subject_id") > 1, "not the first stay"))
    applies = [pl.when(rule.fill_null(False)).then(pl.lit(reason)) for rule, reason in rules]
    return frame.select(pl.coalesce(*applies, pl.lit(None, pl.String)).alias("(why)")).to_series()


def stays_of_files(work: Iterable[tuple[EventsLayout, Sequence[Path]]]) -> StayTable:
    """The stays that events name, by id: as the table of stays that there is not."""
    ids: set[str] = set()
    for table, path in ((table, path) for table, group in work for path in group):
        if table.key == FILE_STEM:
            ids.add(stem(path))
            continue
        for frame in batches(path, id_columns(table.key), Tally(), table.encoding):
            ids.update(id_text(_with_id(frame, table.key)[table.key], path.name).drop_nulls().unique().to_list())
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


def exclude_withdrawn(stays: StayTable, withdrawn: Withdrawn) -> StayTable:
    """The table of stays with those of withdrawn subjects excluded."""
    gone = pl.Series(withdrawn.holds(stays.frame["subject_id"].cast(pl.String).to_list()), dtype=pl.Boolean)
    if not gone.any():
        return stays
    why = pl.select(pl.when(gone).then(pl.lit(WITHDRAWN)).otherwise(stays.frame[EXCLUDED]).alias(EXCLUDED)).to_series()
    return StayTable(
        stays.frame.with_columns(why), stays.subjects_known, (*stays.notes, withdrawn_note(int(gone.sum())))
    )
