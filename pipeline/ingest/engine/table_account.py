"""The account of a reading, table by table: what was read, what could be used, and what went wrong with the rest.

A table that nothing can be used of is no table that was read: the reading stops. One that lost more than half of its
rows to faults is told.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from pipeline.core.errors import DataError
from pipeline.core.types import TableUse
from pipeline.ingest.engine.coded import ID_FORMS, LOOSE_HINT
from pipeline.ingest.engine.event_rows import STAY_UNKNOWN
from pipeline.ingest.engine.parts.row_fates import FilePart
from pipeline.ingest.mapping.layout import CRITICAL_REASONS
from pipeline.ingest.mapping.load import SourceMapping
from pipeline.ingest.mapping.named_units import named_unit
from pipeline.ingest.mapping.source_codes import SourceCodes
from pipeline.ingest.source_tables import UNKNOWN_VARIABLE, VARIABLE_MISSING

_MOST_FILES: Final = 20
_SHORT: Final = 12  # a table that ends in a twelfth of the window may count in another unit
_BENIGN: Final = (UNKNOWN_VARIABLE, VARIABLE_MISSING)


def table_uses(parts: Sequence[FilePart]) -> tuple[TableUse, ...]:
    """A row for each table of the layout; and for each of its files, where there are few."""
    uses = []
    for name, own in _by_table(parts):
        files = sum(part.files for part in own)
        uses.append(_use(name, f"{files} files" if files > 1 else own[0].fates.file, own))
        if 1 < len(own) == files <= _MOST_FILES:
            uses += [_use(name, part.fates.file, [part]) for part in own]
    return tuple(uses)


def require_used(parts: Sequence[FilePart]) -> tuple[str, ...]:
    """Notes on tables that lost more than half of their rows to faults.

    Raises:
        DataError: nothing of a table can be used, mostly by faults, and the table is not optional.
    """
    notes = []
    for name, own in _by_table(parts):
        use = _use(name, "", own)
        meant = use.rows - sum(use.dropped.get(reason, 0) for reason in _BENIGN)
        faults = {reason: rows for reason, rows in use.dropped.items() if reason in CRITICAL_REASONS}
        lost = sum(faults.values())
        if not 2 * lost > meant:
            continue
        why = ", ".join(f"{rows} {reason}" for reason, rows in sorted(faults.items(), key=lambda item: -item[1]))
        told = f"table {name}: {lost} of {meant} rows with a meaning cannot be used: {why}{_loose(own)}"
        table = own[0].fates.table
        if use.used == 0 and table is not None and not table.optional:
            raise DataError(f"{told}; correct the layout, or mark the table optional = true")
        notes.append(told)
    return tuple(notes)


def loose_notes(parts: Iterable[FilePart]) -> tuple[str, ...]:
    """How many rows name nobody, but somebody whose id is another only in form."""
    rows = sum(part.loose for part in parts)
    return (f"{rows} rows with {STAY_UNKNOWN} {LOOSE_HINT}",) if rows else ()


def table_notes(parts: Sequence[FilePart], mapping: SourceMapping, until_hours: float) -> tuple[str, ...]:
    """Notes on what the tables and files of a reading lack, or hold in a form that may not be what it seems."""
    notes = list[str]()
    for name, own in _by_table(parts):
        table, rows = own[0].fates.table, sum(part.rows for part in own)
        if not rows:
            notes.append(f"table {name} holds no row")
        columns = Counter(column for part in own if part.rows for column in part.columns)
        filled = sum(bool(part.rows) for part in own)
        lacking = [column for column, some in columns.items() if some < filled]
        if lacking:
            notes.append(f"table {name}: not all of its {filled} files have the columns {', '.join(lacking)}")
        latest = max(part.latest for part in own)
        if table is not None and table.time_unit != "datetime" and 0 < latest * _SHORT < until_hours < math.inf:
            notes.append(
                f"table {name}: no row lies after hour {latest:.2g} of {until_hours:g}; is it {table.time_unit}?"
            )
    quoted, codes = sum(part.quoted for part in parts), sum(part.loose_codes for part in parts)
    nobodys = sum(part.nobodys for part in parts)
    if nobodys:
        notes.append(f"{nobodys} rows that were read by their stay name a subject whom no stay has")
    if quoted:
        notes.append(f"{quoted} lines lie within quotes: texts of several lines, or a quote that nobody closed")
    if codes:
        notes.append(f"{codes} rows with {UNKNOWN_VARIABLE} have a code that is a known one but for {ID_FORMS}")
    met = {source for part in parts for source, _, _ in part.done.seen}
    return (*notes, *_contradicted(met, mapping.codes), *_never_met(parts, met, mapping))


def _contradicted(met: set[str], codes: SourceCodes) -> list[str]:
    """Units that the mapping declares, and another that the code's own name says."""
    notes = []
    for source in sorted(met & set(codes.declared)):
        said = named_unit(codes.units[source][0], source, codes.declared[source])
        if said is not None:
            notes.append(f"{source} is declared to be in {codes.declared[source]}, and its name says {said}")
    return notes


def _never_met(parts: Sequence[FilePart], met: set[str], mapping: SourceMapping) -> tuple[str, ...]:
    """The variables of which no row and no column has a code."""
    met = met | {source for part in parts for source in part.fates.counts}
    variables = {variable.name for variable in mapping.variables}
    wanted = {name for source, name in mapping.source_names.items() if name in variables}
    wanted -= {name for source, name in mapping.source_names.items() if source in met}
    names = [variable.name for variable in mapping.variables if variable.name in wanted]
    return (f"no table has a code of {', '.join(names)}",) if names else ()


def told(parts: Sequence[FilePart]) -> tuple[str, ...]:
    """Notes on what was converted, mended, and read for several stays."""
    converted, mended = Counter[tuple[str, str]](), Counter[str]()
    for part in parts:
        converted.update(part.done.converted)
        mended.update(part.done.mended)
    copies = sum(part.copies for part in parts)
    several = f"{copies} rows were read again for another stay, since they lie in the windows of several"
    return (
        *([several] if copies else []),
        *(f"{rows} values of {name} were converted from {unit}" for (name, unit), rows in sorted(converted.items())),
        *(
            f"{rows} implausible values of {name} were mended as the mapping says"
            for name, rows in sorted(mended.items())
        ),
    )


def _loose(own: Sequence[FilePart]) -> str:
    rows = sum(part.loose for part in own)
    return f" ({rows} of them {LOOSE_HINT})" if rows else ""


def _by_table(parts: Sequence[FilePart]) -> list[tuple[str, list[FilePart]]]:
    """The parts of each table of events, by its place in the layout."""
    found: dict[int, list[FilePart]] = {}
    for part in parts:
        if part.fates.table is not None:
            found.setdefault(id(part.fates.table), []).append(part)
    named = []
    for own in found.values():
        table = own[0].fates.table
        named.append((table.file if table is not None else "", own))
    return named


def _use(name: str, file: str, own: Sequence[FilePart]) -> TableUse:
    dropped = Counter[str]()
    for part in own:
        for reasons in part.fates.counts.values():
            dropped.update(reasons)
    rows = sum(part.rows for part in own)
    return TableUse(name, file, rows, rows - sum(dropped.values()), dict(sorted(dropped.items())))
