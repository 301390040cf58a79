"""Static descriptors of a stay: a column of the table of stays, or the earliest plausible event of that name."""

from __future__ import annotations

import numpy as np

from pipeline.core.types import StaticVariable
from pipeline.ingest.cohort.events import REPEATED, USED, FlatEvents, in_categories
from pipeline.ingest.mapping.load import SourceMapping
from pipeline.ingest.mapping.units import require_conversion
from pipeline.ingest.source_tables import SourceTables, as_numbers


def static_values(tables: SourceTables, mapping: SourceMapping, events: FlatEvents) -> np.ndarray:
    """float32 `(stay, static_variable)`, NaN = missing; marks repeated static events in `events.fate`."""
    columns: list[np.ndarray] = []
    source_of = {name: source for source, name in mapping.static_sources.items()}
    for index, static in enumerate(mapping.static_variables, start=len(mapping.variables)):
        rows = np.flatnonzero((events.name == index) & (events.fate == USED))
        if source_of[static.name] in tables.stays.columns:
            values, _ = _from_column(tables, source_of[static.name], static, mapping)
            events.fate[rows] = REPEATED
        else:
            values = _earliest(rows, events, tables.stays.height)
        columns.append(values)
    return np.stack(columns, axis=1) if columns else np.zeros((tables.stays.height, 0), np.float32)


def column_notes(tables: SourceTables, mapping: SourceMapping) -> tuple[str, ...]:
    """What is wrong with statics that are columns of the stays, told of all stays, whatever blocks they are taken in.

    Raises:
        DataError: a column holds something that is no number.
    """
    source_of = {name: source for source, name in mapping.static_sources.items()}
    notes = []
    for static in mapping.static_variables:
        if source_of[static.name] in tables.stays.columns:
            unit = mapping.codes.named.get(source_of[static.name])
            if unit is not None:
                notes.append(f"{static.name} was converted from {unit}, the unit that its column's name says")
            _, dropped = _from_column(tables, source_of[static.name], static, mapping)
            if dropped:
                notes.append(f"{dropped} stays have an implausible {static.name}, taken as missing")
    return tuple(notes)


def _from_column(
    tables: SourceTables, source: str, static: StaticVariable, mapping: SourceMapping
) -> tuple[np.ndarray, int]:
    numbers = as_numbers(tables.stays[source], tables.source).to_numpy()
    if source in mapping.codes.named:
        factor, offset = require_conversion(static.name, mapping.codes.named[source], static.unit, tables.source)
        numbers = numbers * factor + offset
    values = numbers.astype(np.float32)
    good = (values >= np.float32(static.plausible_low)) & (values <= np.float32(static.plausible_high))
    if static.categories:
        good &= in_categories(values, static)
    return np.where(good, values, np.float32(np.nan)), int((np.isfinite(values) & ~good).sum())


def _earliest(rows: np.ndarray, events: FlatEvents, n_stays: int) -> np.ndarray:
    rows = rows[np.lexsort((events.hours[rows], events.stay[rows]))]
    stay = events.stay[rows]
    first = np.append(True, stay[1:] != stay[:-1])[: len(rows)]
    events.fate[rows[~first]] = REPEATED
    values = np.full(n_stays, np.nan, dtype=np.float32)
    values[stay[first]] = events.value[rows[first]]
    return values
