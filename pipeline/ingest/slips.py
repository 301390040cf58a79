"""Slips of unit that a distribution gives away: reported with what would mend them, never mended by themselves.

Two signs. Many of a variable's implausible values would be ordinary in another unit of the same quantity (98.6 degrees
Celsius). Or the middle of all its values lies beyond the clinical range, and would lie inside in another unit (a
glucose of 6 mg/dL). Only counts are told, and only of ten values or more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from pipeline.core.types import Variable
from pipeline.ingest.events import IMPLAUSIBLE, OUTSIDE, USED, FlatEvents
from pipeline.ingest.mapping import SourceMapping
from pipeline.ingest.source_codes import Line
from pipeline.ingest.units import conversion

_CANDIDATES: Final[Mapping[str, tuple[str, ...]]] = {  # unit -> units that such values are mistaken in
    "degC": ("degF",),
    "mmHg": ("kPa", "cmH2O"),
    "mg/dL": ("mmol/L", "umol/L", "g/L"),
    "mmol/L": ("mg/dL",),
    "g/dL": ("g/L",),
    "ug/L": ("ng/L",),
    "fraction": ("%",),
    "%": ("fraction",),
    "kg": ("lb", "g"),
    "cm": ("in", "m"),
    "10^9/L": ("/uL",),
}
_FEWEST: Final = 10
_MOST: Final = 0.5


def slip_notes(events: FlatEvents, mapping: SourceMapping) -> tuple[str, ...]:
    """A sentence for each likely slip of unit, in the order of the mapping's variables."""
    notes: list[str] = []
    for index, variable in enumerate(mapping.variables):
        here = events.name == index
        bad = events.value[here & (events.fate == IMPLAUSIBLE)].astype(np.float64)
        good = events.value[here & ((events.fate == USED) | (events.fate == OUTSIDE))].astype(np.float64)
        for unit, line in _lines(variable):
            ordinary = int(_within(bad, line, variable).sum())
            if ordinary >= _FEWEST and ordinary > _MOST * len(bad):
                notes.append(
                    f"{ordinary} of {len(bad)} implausible values of {variable.name} would be ordinary in {unit}: "
                    f'declare the unit of their code, or set mend.{variable.name} = ["{unit}"]'
                )
                break
            if len(good) >= _FEWEST and _misplaced(good, line, variable):
                notes.append(
                    f"the middle of {len(good)} values of {variable.name} lies outside its clinical range in "
                    f"{variable.unit}, and would lie inside in {unit}: check the unit of their code"
                )
                break
    return tuple(notes)


def _lines(variable: Variable) -> list[tuple[str, Line]]:
    found = [(unit, conversion(variable.name, unit, variable.unit)) for unit in _CANDIDATES.get(variable.unit, ())]
    return [(unit, line) for unit, line in found if line is not None]


def _within(values: np.ndarray, line: Line, variable: Variable) -> np.ndarray:
    moved = values * line[0] + line[1]
    inside: np.ndarray = (moved >= variable.scale_low) & (moved <= variable.scale_high)
    return inside


def _misplaced(values: np.ndarray, line: Line, variable: Variable) -> bool:
    middle = np.median(values, keepdims=True)
    outside = not variable.scale_low <= middle[0] <= variable.scale_high
    return outside and bool(_within(middle, line, variable).all())
