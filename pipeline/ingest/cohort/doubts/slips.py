"""Slips that a distribution gives away: reported with what would mend them, never mended by themselves.

Many of a variable's implausible values would be ordinary in another unit of the same quantity (98.6 degrees
Celsius). Or the middle of all its values lies beyond the clinical range, and would lie inside in another unit (a
glucose of 6 mg/dL). Or some values lie apart from the others, at the distance of another unit or of a lost decimal
mark: of one hospital, one device, one year. Or single values lie so apart from the others of their stay. And codes for
"missing" that a plausible range lets pass: a number such as 999, there ten times as often as any value near it. Only
counts are told, of ten values or more, or of three that lie apart in their stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, final

import numpy as np

from pipeline.core.types import Variable
from pipeline.ingest.cohort.doubts.heaps import Values, heap_notes, moved_within
from pipeline.ingest.cohort.doubts.neighbours import FEWEST, LEAST_SHARE, in_other_unit
from pipeline.ingest.cohort.events import IMPLAUSIBLE, OUTSIDE, USED, FlatEvents
from pipeline.ingest.mapping.load import SourceMapping
from pipeline.ingest.mapping.units import Line, conversion

_CANDIDATES: Final[Mapping[str, tuple[str, ...]]] = {  # unit -> units that such values are mistaken in
    "degC": ("degF",),
    "mmHg": ("kPa", "cmH2O"),
    "mg/dL": ("mmol/L", "umol/L", "g/L"),
    "mmol/L": ("mg/dL",),
    "g/dL": ("g/L",),
    "ug/L": ("ng/L",),
    "mL/h": ("L/h",),
    "fraction": ("%",),
    "%": ("fraction",),
    "kg": ("lb", "g"),
    "cm": ("in", "m"),
    "10^9/L": ("/uL",),
}
_CODES: Final = (
    *(sign * int(digit * n) / ten for digit in "6789" for n in (2, 3, 4) for ten in (1, 10) for sign in (1, -1)),
    *(9.0, 0.0, -1.0),
)
"""Numbers that stand for "missing" in exports: 99, 99.9, 888, 0, -1 and their like."""
_NEAR: Final = 0.05  # of the clinical range: how far values may lie to be compared with a code
_ENOUGH: Final = 50_000
_FAR: Final = 5
_OFTENER: Final = 10
_LEAST_SHARE: Final = 0.005
_FEWEST: Final = 10
_MOST: Final = 0.5
_NONE: Final = 2 / 3  # of the values of a volume may be no volume


@final
class Slips:
    """Looks at the events of one block of stays after the other."""

    def __init__(self, mapping: SourceMapping) -> None:
        self._variables = mapping.variables
        self._looked = [(i, variable, other_units(variable)) for i, variable in enumerate(mapping.variables)]
        none = Values(np.zeros(0), np.zeros(0, np.int64))
        self._bad, self._good = ([none for _ in mapping.variables] for _ in range(2))
        self._single = Counter[tuple[int, str]]()

    def add(self, events: FlatEvents) -> None:
        """Look at the events of further stays."""
        name = np.minimum(events.name, len(self._looked)).astype(np.int16)  # two bytes are sorted by their digits
        order = np.argsort(name, kind="stable")
        edges = np.searchsorted(name[order], np.arange(len(self._looked) + 1))
        for index, _, lines in self._looked:
            here = order[edges[index] : edges[index + 1]]
            if not lines:  # no unit to be mistaken in: a part is enough to find a code by its share
                here = here[: max(_ENOUGH - len(self._good[index]), 0)]
            value, fate = events.value[here].astype(np.float64), events.fate[here]
            self._bad[index] += _counted(value[fate == IMPLAUSIBLE])
            usable = (fate == USED) | (fate == OUTSIDE)
            self._good[index] += _counted(value[usable])
            for unit, line in lines:
                rows = in_other_unit(events.stay[here][usable], value[usable], line, self._variables[index])
                self._single[index, unit] += rows

    def notes(self) -> tuple[str, ...]:
        """A sentence for each likely slip of unit, then for each likely code, in the order of the variables."""
        units = slip_notes((variable, lines, self._bad[i], self._good[i]) for i, variable, lines in self._looked)
        heaps = (note for i, _, lines in self._looked for note in self._apart(i, lines))
        return (
            *units,
            *heaps,
            *(note for i, variable, _ in self._looked for note in code_notes(variable, self._good[i])),
        )

    def _apart(self, index: int, lines: list[tuple[str, Line]]) -> tuple[str, ...]:
        """The sentence on values in another unit: those of a second heap, or single ones of their stays."""
        variable, good = self._variables[index], self._good[index]
        notes = heap_notes(variable, lines, good)
        for unit, rows in ((unit, self._single[index, unit]) for unit, _ in lines):
            if not notes and rows >= max(FEWEST, LEAST_SHARE * len(good)):
                notes = (
                    f"{rows} values of {variable.name} lie apart from the others of their stay, where those in {unit} "
                    "would: check the unit of their rows",
                )
        return notes

    def medians(self) -> list[float]:
        """The middle of each variable's plausible values; NaN of fewer than ten."""
        return [float(good.middle()[0]) if len(good) >= _FEWEST else np.nan for good in self._good]


def _counted(values: np.ndarray) -> Values:
    return Values(*np.unique(values, return_counts=True))


def slip_notes(looked: Iterable[tuple[Variable, list[tuple[str, Line]], Values, Values]]) -> tuple[str, ...]:
    """The sentences; of each variable its lines to other units, its implausible values and the others."""
    notes: list[str] = []
    for variable, lines, bad, good in looked:
        for unit, line in lines:
            ordinary = bad.within(line, variable)
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


def code_notes(variable: Variable, values: Values) -> tuple[str, ...]:
    """The sentences on plausible values that may be a code for missing.

    Zero is none of a volume or a sum, unless it is most of its values; and a variable of 0 and 1 has none.
    """
    notes, width = list[str](), _NEAR * (variable.scale_high - variable.scale_low)
    looked = () if variable.plausible_low >= 0 and variable.plausible_high <= 1 else _CODES
    for code in looked:
        at = np.flatnonzero(values.distinct == np.float64(np.float32(code)))
        if not len(at):
            continue
        rows = int(values.counts[at[0]])
        if code == 0 and _may_be_none(variable):
            if rows > max(_FEWEST, _NONE * len(values)):
                notes.append(f"{rows} of {len(values)} values of {variable.name} are 0: is it a code for missing?")
            continue
        beside = [place for place in (at[0] - 1, at[0] + 1) if 0 <= place < len(values.distinct)]
        near = np.abs(values.distinct - code) <= width
        near[beside] |= np.abs(values.distinct[beside] - code) <= _FAR * width  # whole numbers have nothing nearer
        near[at[0]] = False
        if rows >= max(_FEWEST, _LEAST_SHARE * len(values)) and rows > _OFTENER * values.counts[near].max(initial=0):
            notes.append(
                f"{rows} of {len(values)} values of {variable.name} (of those looked at) are {code:g}, ten times as "
                "many as of any value near it: if it is a code for missing, name it in layout.missing_codes"
            )
    return tuple(notes)


def _may_be_none(variable: Variable) -> bool:
    """Whether zero is a measurement: no urine, no water in a drain."""
    return variable.scale_low <= 0 and (variable.aggregation == "sum" or variable.unit.split("/")[0] in ("mL", "L"))


def other_units(variable: Variable) -> list[tuple[str, Line]]:
    """The units that values of a variable are mistaken in, each with its way to the variable's own."""
    found = [(unit, conversion(variable.name, unit, variable.unit)) for unit in _CANDIDATES.get(variable.unit, ())]
    return [(unit, line) for unit, line in found if line is not None]


def _misplaced(values: Values, line: Line, variable: Variable) -> bool:
    middle = values.middle()
    outside = not variable.scale_low <= middle[0] <= variable.scale_high
    return outside and bool(moved_within(middle, line, variable).all())
