"""A source's events as flat arrays in the mapping's terms, each with its fate: used, or dropped for a named reason."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import polars as pl

from pipeline.core.errors import DataError
from pipeline.core.types import ArrayRecord, StaticVariable, Variable
from pipeline.ingest.mapping.load import SourceMapping
from pipeline.ingest.source_tables import KNOWN, SourceTables
from pipeline.ingest.windows import before

USED, OUTSIDE, IMPLAUSIBLE, REPEATED, UNKNOWN, LATE = range(6)
REASONS: Final = (
    "used", "outside the window", "implausible", "repeated static", "unknown variable", "known after the prediction"
)  # fmt: skip
OTHER_NAME: Final = "(other name)"
_MAX_NAMED: Final = 5


@final
@dataclass(frozen=True, eq=False, repr=False)
class FlatEvents(ArrayRecord):
    """`name` indexes `names`: the mapping's series, its statics, its label variables, then names it does not know."""

    stay: np.ndarray  # (event,) int32, row of the stay
    name: np.ndarray  # (event,) int32
    hours: np.ndarray  # (event,) float64
    value: np.ndarray  # (event,) float32
    fate: np.ndarray  # (event,) int8, index into REASONS
    names: tuple[str, ...]


def flatten(
    tables: SourceTables, mapping: SourceMapping, step: np.ndarray, horizon_hours: float = np.inf
) -> FlatEvents:
    """The events of `tables`, fated by name, plausible range and window (`step` is -1 outside); statics stay open.

    A row that became known after `horizon_hours` is no input, nor is a static later than that: neither was known when
    the prediction is made.

    Raises:
        DataError: names the mapping does not know, unless it says to drop them.
    """
    own = own_names(mapping)
    codes = {raw: own.index(name) for raw, name in {**mapping.source_names, **mapping.static_sources}.items()}
    coded, distinct = _coded(tables.events["variable"])
    strangers = [raw for raw in distinct if raw not in codes]
    codes.update({raw: len(own) + i for i, raw in enumerate(strangers)})
    name = np.array([codes[raw] for raw in distinct], dtype=np.int32)[coded]
    if strangers and mapping.unknown_variables == "error":
        raise DataError(_unknown(strangers, int((name >= len(own)).sum()), tables.source, mapping.name))
    ids = tables.events["stay_id"]
    if ids.dtype != pl.Enum(tables.stays["stay_id"]):
        ids = ids.cast(pl.Enum(tables.stays["stay_id"]))
    stay = ids.to_physical().to_numpy().astype(np.int32)
    value = tables.events["value"].to_numpy().astype(np.float32)
    hours = tables.events["hours"].to_numpy()
    is_unknown = name >= len(own)
    is_static = (name >= len(mapping.variables)) & (name < len(mapping.variables) + len(mapping.static_variables))
    is_label = ~is_unknown & ~is_static & (name >= len(mapping.variables))
    fate = np.zeros(len(name), dtype=np.int8)
    fate[np.where(is_static, ~before(hours, horizon_hours, closed=mapping.closed_window), is_label | (step < 0))] = (
        OUTSIDE
    )
    if KNOWN in tables.events.columns:
        known = before(tables.events[KNOWN].to_numpy(), horizon_hours, closed=mapping.closed_window)
        fate[(fate == USED) & ~known] = LATE
    fate[~plausible(name, value, mapping)] = IMPLAUSIBLE
    fate[is_unknown] = UNKNOWN
    return FlatEvents(stay, name, hours, value, fate, (*own, *(printable(raw) for raw in strangers)))


def own_names(mapping: SourceMapping) -> list[str]:
    """The mapping's own names: series, statics and label variables."""
    rows: tuple[Variable | StaticVariable, ...]
    rows = (*mapping.variables, *mapping.static_variables, *mapping.label_variables)
    return [row.name for row in rows]


def _coded(variable: pl.Series) -> tuple[np.ndarray, list[str]]:
    """Each event's source name as an index of the sorted names that occur."""
    if isinstance(variable.dtype, pl.Enum):
        categories = variable.dtype.categories.to_list()
        codes = variable.to_physical().to_numpy()
        occurring = [i for i, n in enumerate(np.bincount(codes, minlength=len(categories))) if n]
        order = sorted(occurring, key=lambda i: categories[i])
        place = np.zeros(len(categories), dtype=np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        return place[codes], [categories[i] for i in order]
    distinct = sorted(variable.unique().to_list())
    return variable.cast(pl.Enum(distinct)).to_physical().to_numpy(), distinct


def n_own(mapping: SourceMapping) -> int:
    """How many names the mapping has: series, statics and label variables."""
    return len(mapping.variables) + len(mapping.static_variables) + len(mapping.label_variables)


def plausible(name: np.ndarray, value: np.ndarray, mapping: SourceMapping) -> np.ndarray:
    """`(event,)` bool: within the plausible range, limits included, and a known category where there are categories.

    Limits are compared in single precision, as the values are: 0.21 read as float32 is not below a limit of 0.21.
    """
    rows: tuple[Variable | StaticVariable, ...]
    rows = (*mapping.variables, *mapping.static_variables, *mapping.label_variables)
    low = np.array([row.plausible_low for row in rows], dtype=np.float32)
    high = np.array([row.plausible_high for row in rows], dtype=np.float32)
    known = np.minimum(name, len(rows) - 1)
    good: np.ndarray = (value >= low[known]) & (value <= high[known])
    for index, static in enumerate(mapping.static_variables, start=len(mapping.variables)):
        if static.categories:
            here = np.flatnonzero(name == index)
            good[here] &= in_categories(value[here], static)
    return good | (name >= len(rows))


def in_categories(value: np.ndarray, static: StaticVariable) -> np.ndarray:
    """`(event,)` bool: one of the category codes."""
    return np.isin(value, [code for code, _ in static.categories])


def printable(name: str) -> str:
    """A variable's name if it looks like one; a mis-mapped column could hold values, which no message may show."""
    return name if re.fullmatch(r"[A-Za-z][\w .%/()\[\]-]{0,60}", name) else OTHER_NAME


def _unknown(strangers: list[str], rows: int, source: str, mapping: str) -> str:
    shown = list(dict.fromkeys(printable(raw) for raw in strangers))[:_MAX_NAMED]
    return (
        f"{source}: {rows} rows of {len(strangers)} variables that mapping {mapping} does not know "
        f'({", ".join(shown)}); add them, or set unknown_variables = "drop" to drop and count them'
    )
