"""The PhysioNet/CinC Challenge 2012 format: one text file per stay (`Time,Parameter,Value`) and an outcomes file.

The files are joined in memory, in blocks, and parsed by one call per block: a parser call per file would cost more than
the parsing. RecordID rows are bookkeeping; -1 means missing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from pipeline.core.errors import DataError
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.ingest.kept.pieces import Pieces
from pipeline.ingest.source_tables import (
    SourceTables,
    as_text_ids,
    check_ids,
    drop_unusable,
    require_columns,
    totals,
)
from pipeline.ingest.sources.archive import text_files
from pipeline.ingest.sources.files import read_table
from pipeline.ingest.sources.stay_files import StayFile, members
from pipeline.ingest.withdrawn import NOBODY, Withdrawn

HEADER: Final = b"Time,Parameter,Value\n"
RECORD_ID: Final = "RecordID"
MISSING_CODE: Final = -1.0
_MAX_NAMED: Final = 3
_BLOCK_BYTES: Final = 8 << 20
_MINUTES_PER_HOUR: Final = 60.0
_SCHEMA: Final = {"Time": pl.Categorical, "Parameter": pl.Categorical, "Value": pl.Float64}  # few distinct texts


def read_physionet2012(
    *,
    records: Sequence[Path | str],
    outcomes: Sequence[Path | str],
    pieces: Pieces | None = None,
    withdrawn: Withdrawn = NOBODY,
    on_step: OnStep = ignore_step,
) -> SourceTables:
    """Read folders or archives of stays and their outcome files; stays in the order given, by RecordID within each.

    With `pieces` only new and changed records are parsed, and of folders only those are opened; what was parsed of a
    withdrawn subject is not kept. `on_step` is called as (stays read, stays in the outcome files, stays per second).

    Raises:
        DataError: anything missing, truncated, malformed, repeated, or records and outcomes that do not match.
    """
    paths, outcome_paths = [Path(path) for path in records], [Path(path) for path in outcomes]
    if not paths or not outcome_paths:
        raise DataError("a PhysioNet 2012 source needs at least one path of records and one of outcomes")
    expected = read_outcomes(outcome_paths)
    started, ids, parts = time.monotonic(), list[str](), list[pl.DataFrame]()

    def told(before: int, here: int) -> None:
        on_step(before + here, expected.height, (before + here) / max(time.monotonic() - started, 1e-9))

    for path in paths:
        done = partial(told, len(ids))
        if pieces is None:
            here, events = _read_all(path, done)
        else:
            here, events = _read_new(path, pieces, withdrawn, done)
        if not here:
            raise DataError(f"{path} holds no text file (*.txt) of a stay")
        order = sorted(range(len(here)), key=lambda row: (len(here[row]), here[row]))
        place = np.empty(len(here), dtype=np.uint32)
        place[order] = np.arange(len(ids), len(ids) + len(here), dtype=np.uint32)
        parts.append(events.with_columns(stay=place[events["stay"].to_numpy()]))
        ids += [here[row] for row in order]
    where = ", ".join(path.name for path in paths)
    check_ids(pl.Series("stay_id", ids, dtype=pl.String), "RecordID (as file name)", where)
    stays = match_outcomes(ids, expected, where)
    return tidy(_enumerated(pl.concat(parts), ids), stays, where)


def tidy(events: pl.DataFrame, stays: pl.DataFrame, source: str) -> SourceTables:
    """Account for RecordID rows and -1; no subject ids exist, so every stay is its own subject."""
    kept, counts = drop_unusable(events, (MISSING_CODE,), bookkeeping=RECORD_ID)
    return SourceTables(
        events=kept,
        stays=stays.with_columns(subject_id=pl.col("stay_id")),
        rows_read=events.height,
        rows_dropped=totals(counts),
        dropped_by_variable=counts,
        subjects_known=False,
        source=source,
    )


def read_outcomes(paths: Sequence[Path]) -> pl.DataFrame:
    """The outcome files one below the other, `stay_id` first; numbers stay as they are until a task asks for them."""
    frames = []
    for path in paths:
        table = read_table(path)
        require_columns(table.columns, (RECORD_ID,), str(path))
        ids = as_text_ids(table[RECORD_ID], str(path)).str.strip_chars().alias("stay_id")
        frames.append(table.drop(RECORD_ID).insert_column(0, ids))
    if len({tuple(frame.columns) for frame in frames}) > 1:
        raise DataError(f"the outcome files {', '.join(path.name for path in paths)} differ in their columns")
    joined = pl.concat(frames)
    check_ids(joined["stay_id"], RECORD_ID, ", ".join(path.name for path in paths))
    return joined


def match_outcomes(ids: list[str], outcomes: pl.DataFrame, where: str) -> pl.DataFrame:
    """One row of outcomes per stay, in the order of `ids`; refuses stays that only one side has."""
    stays = pl.DataFrame({"stay_id": ids}, schema={"stay_id": pl.String})
    unlabelled = stays.join(outcomes, on="stay_id", how="anti").height
    recordless = outcomes.join(stays, on="stay_id", how="anti").height
    if unlabelled or recordless:
        raise DataError(
            f"{where}: {unlabelled} records have no row in the outcomes and {recordless} outcomes have no record"
        )
    return stays.join(outcomes, on="stay_id", how="left", maintain_order="left")


def _enumerated(events: pl.DataFrame, ids: list[str]) -> pl.DataFrame:
    """The events with the stays' ids in the place of their numbers, and names: nobody compares texts from here on."""
    stay_id = events["stay"].cat.to(pl.Enum(ids)).alias("stay_id")
    names = pl.Enum(sorted(events["variable"].drop_nulls().unique()))
    return pl.DataFrame([stay_id, events["hours"], events["variable"].cast(names), events["value"]])


def _read_all(path: Path, told: Callable[[int], None]) -> tuple[list[str], pl.DataFrame]:
    """The ids of all records, in order, and their events: stay (place among the ids), hours, variable, value."""
    ids = list[str]()
    parts: list[Future[pl.DataFrame]] = []
    with ThreadPoolExecutor(max_workers=1) as parser:  # parses a block while the next one is decompressed
        for block_ids, bodies in _blocks(path, text_files(path)):
            parts.append(parser.submit(_parse, block_ids, bodies, path, len(ids)))
            ids += block_ids
            told(len(ids))
    return ids, pl.concat([part.result() for part in parts]) if parts else _parse([], [], path)


def _read_new(
    path: Path, pieces: Pieces, withdrawn: Withdrawn, told: Callable[[int], None]
) -> tuple[list[str], pl.DataFrame]:
    """The same as `_read_all`, but only records without a piece are parsed."""
    files = list[StayFile]()
    listing = members(path, pieces, withdrawn)

    def unknown() -> Iterator[tuple[str, bytes]]:
        for file in listing:
            files.append(file)
            if file.content is not None:
                yield file.name, file.content
                files[-1] = StayFile(file.name, file.key, file.kept, None)

    made = dict[str, str]()
    keys = dict[str, str | None]()
    for block_ids, bodies in _blocks(path, unknown()):
        keys |= {file.name: file.key if file.kept else None for file in files if file.name not in keys}
        events = _parse(block_ids, bodies, path)
        lines = [body.count(b"\n") for body in bodies]
        named = pieces.add([keys[name] for name in block_ids], lines, [None] * len(lines), events)
        made.update(zip(block_ids, named, strict=True))
        told(len(files))
    wanted = [made.get(file.name, file.key) for file in files]
    told(len(files))
    stay = np.repeat(np.arange(len(files), dtype=np.uint32), [pieces.rows(key) for key in wanted])
    return [file.name for file in files], pieces.take(wanted).with_columns(stay=stay)


def _blocks(path: Path, files: Iterable[tuple[str, bytes]]) -> Iterator[tuple[list[str], list[bytes]]]:
    """(ids, lines) of some megabytes of records at a time."""
    ids: list[str] = []
    bodies: list[bytes] = []
    headless: list[str] = []
    size = 0
    for name, content in files:
        body = _body(content)
        if body is None:
            headless.append(name)
            continue
        ids.append(name)
        bodies.append(body)
        size += len(body)
        if size >= _BLOCK_BYTES:
            yield ids, bodies
            ids, bodies, size = [], [], 0
    if headless:
        what = f"{len(headless)} text files do not begin with {HEADER.decode().strip()}"
        raise DataError(f"{path}: {what}: {_named(headless)}")
    if ids:
        yield ids, bodies


def _body(content: bytes) -> bytes | None:
    """The lines below the header, each ended by one newline; None without the header."""
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if content.startswith(b"\xef\xbb\xbf"):
        content = content[3:]
    if not content.startswith(HEADER):
        return b"" if content == HEADER.strip() else None
    body = content[len(HEADER) :]
    if body.startswith(b"\n") or b"\n\n" in body:
        body = b"\n".join(line for line in body.split(b"\n") if line)
    return body if not body or body.endswith(b"\n") else body + b"\n"


def _parse(ids: list[str], bodies: list[bytes], path: Path, first: int = 0) -> pl.DataFrame:
    """The events of some records, which are numbered from `first`: stay, hours, variable, value."""
    lines = np.fromiter((body.count(b"\n") for body in bodies), dtype=np.int64, count=len(bodies))
    table = _parse_csv(b"".join(bodies), path) if lines.sum() else pl.DataFrame(schema=_SCHEMA)
    if table.height != lines.sum():
        raise DataError(f"{path}: {lines.sum()} lines give {table.height} rows; some lines are malformed")
    stay = np.repeat(np.arange(len(ids), dtype=np.uint32), lines)
    _check_record_ids(table, ids, stay, path)
    stays = pl.Series("stay", stay + np.uint32(first))
    return pl.DataFrame(
        [stays, _hours(table["Time"], path), table["Parameter"].alias("variable"), table["Value"].alias("value")]
    )


def _parse_csv(text: bytes, path: Path) -> pl.DataFrame:
    def parse(**types: type[pl.DataType]) -> pl.DataFrame:
        return pl.read_csv(text, has_header=False, schema={**_SCHEMA, **types}, quote_char=None)

    try:
        return parse()
    except pl.exceptions.PolarsError:
        pass
    try:
        values = parse(Value=pl.String)["Value"]
    except pl.exceptions.PolarsError:
        raise DataError(f"{path}: some lines do not have the three fields Time, Parameter, Value") from None
    broken = values.str.strip_chars().cast(pl.Float64, strict=False).null_count() - values.null_count()
    if not broken:
        raise DataError(f"{path}: some lines cannot be parsed as Time, Parameter, Value")
    raise DataError(f"{path}: {broken} rows of column Value hold text where numbers are expected")


def _hours(times: pl.Series, path: Path) -> pl.Series:
    """HH:MM since the start of the stay, as hours; few distinct times, so each is parsed once."""
    if not len(times):
        return pl.Series("hours", [], dtype=pl.Float64)
    distinct = times.unique()
    parts = distinct.cast(pl.String).str.extract_groups(r"^(-?)(\d{1,4}):([0-5]\d)$").struct.unnest()
    sign, hours, minutes = parts.get_columns()
    parsed = hours.cast(pl.Float64) + minutes.cast(pl.Float64) / _MINUTES_PER_HOUR
    parsed = pl.select(pl.when(sign == "-").then(-parsed).otherwise(parsed)).to_series()
    if parsed.null_count():
        broken = times.is_in(distinct.filter(parsed.is_null()).implode(), nulls_equal=True).sum()
        raise DataError(f"{path}: {broken} rows of column Time are not of the form HH:MM")
    return times.replace_strict(distinct, parsed, return_dtype=pl.Float64).alias("hours")


def _check_record_ids(table: pl.DataFrame, ids: list[str], stay: np.ndarray, path: Path) -> None:
    rows = (table["Parameter"] == RECORD_ID).arg_true()
    named = pl.Series(ids, dtype=pl.String)[stay[rows.to_numpy()]]
    wrong = named.filter(table["Value"][rows].cast(pl.Int64, strict=False).cast(pl.String).ne_missing(named)).unique()
    if len(wrong):
        what = f"in {len(wrong)} text files RecordID differs from the file's name"
        raise DataError(f"{path}: {what}: {_named(wrong.sort())}")


def _named(stays: Iterable[str]) -> str:
    """Files for the site's own log and terminal; what leaves the machine leaves them out (`outward`)."""
    names = [re.sub(r"\s", "?", stay) + ".txt" for stay in stays]  # one word each, and a pattern that finds the file
    return ", ".join(names[:_MAX_NAMED]) + (f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else "")
