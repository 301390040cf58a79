"""The account of a reading, table by table: what was read, what could be used, and what went wrong with the rest.

A table that nothing can be used of is no table that was read: the reading stops. One that lost more than half of its
rows to faults is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from pipeline.core.errors import DataError
from pipeline.core.types import TableUse
from pipeline.ingest.engine.event_rows import LOOSE_HINT, STAY_UNKNOWN
from pipeline.ingest.engine.row_fates import FilePart
from pipeline.ingest.mapping.layout import CRITICAL_REASONS
from pipeline.ingest.source_tables import UNKNOWN_VARIABLE, VARIABLE_MISSING

_MOST_FILES: Final = 20
_BENIGN: Final = (UNKNOWN_VARIABLE, VARIABLE_MISSING)


def table_uses(parts: Sequence[FilePart]) -> tuple[TableUse, ...]:
    """A row for each table of the layout; and for each of its files, where there are few."""
    uses = []
    for name, own in _by_table(parts):
        uses.append(_use(name, f"{len(own)} files" if len(own) > 1 else own[0].fates.file, own))
        if 1 < len(own) <= _MOST_FILES:
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
