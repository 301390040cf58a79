"""A firewall of units: a value is used in the unit that its row, or else its mapping, establishes; or it is not used.

A row's own known unit goes before the one that the mapping declares for its code, which serves rows without any, and
that before one that the code's name says. A text that nobody has explained is unknown, and such a row is never taken
for the variable's own unit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, final

import numpy as np
import polars as pl

from pipeline.core.errors import DataError
from pipeline.core.types import UnitUse
from pipeline.ingest.engine.coded import Coded
from pipeline.ingest.mapping.source_codes import DROP, SourceCodes
from pipeline.ingest.mapping.unit_text import NO_CONCEPT, plain
from pipeline.ingest.mapping.units import Line, read_unit
from pipeline.ingest.number_text import NO_VALUE

UNIT_STRANGE: Final = "unit without a conversion"
UNIT_UNKNOWN: Final = "unknown unit"
UNIT_DROPPED: Final = "unit that the mapping drops"
UNIT_REASONS: Final = ("", UNIT_STRANGE, UNIT_UNKNOWN, UNIT_DROPPED)
"""What `in_units` may say of a row, by code; 0 = the value is in the variable's unit."""

_ASSUMED: Final = "no unit"
"""How the verdict on rows begins that carry no unit in a table that has a column of them."""

NO_UNIT: Final = "(none)"
OTHER_TEXT: Final = "(other text)"
_TEXT: Final = re.compile(r"(?=.*[^\W\d_]|.*%)[\w %°µμ/.,*^()\[\]{}+#-]{1,24}")
_SAME: Final[Line] = (1.0, 0.0)
_SAMPLE: Final = 512
_SHOWN: Final = 5
_FEWEST: Final = 10


@final
@dataclass
class Seen:
    """Rows of one source name with one unit text, and some of their values as they stand, for a median."""

    rows: int = 0
    sample: list[float] = field(default_factory=list)


@final
@dataclass
class Conversions:
    """How many values were converted, by variable and from which unit; mended, by variable; and what units there were.

    `seen`: (source name, unit text, verdict) -> its rows.
    """

    converted: Counter[tuple[str, str]] = field(default_factory=Counter)
    mended: Counter[str] = field(default_factory=Counter)
    seen: dict[tuple[str, str, str], Seen] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class _Verdict:
    line: Line = _SAME
    reason: int = 0
    said: str = ""
    moved: tuple[str, str] | None = None  # variable and the unit that it was converted from


def in_units(
    value: np.ndarray,
    name: np.ndarray,
    unit: Coded | None,
    names: tuple[str, ...],
    codes: SourceCodes,
    done: Conversions,
) -> tuple[np.ndarray, np.ndarray]:
    """`value` `(row,)` in the variables' units, and int8 `(row,)` indices of `UNIT_REASONS`.

    `name` indexes `names`, the source's names. A spelling is looked at once, nothing runs over rows but arithmetic.
    """
    texts = [None] if unit is None else [*(_stripped(text) for text in unit.distinct.cast(pl.String).to_list()), ""]
    pair = name.astype(np.int64) * len(texts)
    pair += 0 if unit is None else np.where(unit.codes < 0, len(texts) - 1, unit.codes)
    rows = np.bincount(pair, minlength=len(names) * len(texts))
    factor, offset = np.ones(len(rows)), np.zeros(len(rows))
    reason = np.zeros(len(rows), dtype=np.int8)
    for index in np.flatnonzero(rows).tolist():
        source, text = names[index // len(texts)], texts[index % len(texts)]
        verdict = _verdict(source, text, codes)
        (factor[index], offset[index]), reason[index] = verdict.line, verdict.reason
        if verdict.moved is not None:
            done.converted[verdict.moved] += int(rows[index])
        if verdict.said:
            _look(done, (source, text or "", verdict.said), value, pair, index, int(rows[index]))
    there = (factor != 1) | (offset != 0)
    if there.any():
        changed = np.flatnonzero(there[pair])
        value = value.copy()
        value[changed] = value[changed] * factor[pair[changed]] + offset[pair[changed]]
    return value, reason[pair]


def _stripped(text: str | None) -> str | None:
    return None if text is None else text.strip()


def _verdict(source: str, text: str | None, codes: SourceCodes) -> _Verdict:
    """What becomes of a source name's values that carry the unit `text` ("" = none; None = its table has no units)."""
    if source not in codes.units:
        return _Verdict()
    variable, target = codes.units[source]
    declared = codes.declared.get(source)
    if text is not None and text in codes.texts:
        if codes.texts[text] == DROP:
            return _Verdict(reason=UNIT_REASONS.index(UNIT_DROPPED), said="dropped, as the mapping says")
        return _moved(variable, target, codes.texts[text], codes.texts[text], f"{codes.texts[text]}, the mapping says")
    if text is None or not plain(text) or text in (NO_CONCEPT, *NO_VALUE):
        lack = "no column of units" if text is None else _ASSUMED
        if declared is None and source in codes.named:
            unit = codes.named[source]
            return _moved(variable, target, unit, f"{unit}, which its name says", f"{lack}: {unit}, as its name says")
        if declared is None:
            return _Verdict(said=f"{lack}: taken as {target}")
        return _moved(variable, target, declared, "the declared unit", f"{lack}: {declared}, as declared")
    found = read_unit(variable, text, target)
    if found is None:
        return _Verdict(reason=UNIT_REASONS.index(UNIT_UNKNOWN), said="unknown")
    return _moved(variable, target, text, found[0], f"is {found[0]}")


def _moved(variable: str, target: str, text: str, unit: str, said: str) -> _Verdict:
    found = read_unit(variable, text, target)
    if found is None or found[1] is None:
        return _Verdict(reason=UNIT_REASONS.index(UNIT_STRANGE), said=f"dropped: {unit} does not convert to {target}")
    if found[1] == _SAME:
        return _Verdict(said=said)
    return _Verdict(found[1], 0, f"{said}, converted to {target}", (variable, unit))


def _look(
    done: Conversions, key: tuple[str, str, str], value: np.ndarray, pair: np.ndarray, index: int, rows: int
) -> None:
    seen = done.seen.setdefault(key, Seen())
    seen.rows += rows
    room = _SAMPLE - len(seen.sample)
    if room > 0:
        here = value if rows == len(value) else value[pair == index]
        seen.sample += here[:: max(1, -(-len(here) // room))].tolist()


def require_known_units(done: Conversions, file: str) -> None:
    """Stop at rows whose unit nobody has explained.

    Raises:
        DataError: there are some; the sentence names codes, unit texts and rows, and the way out.
    """
    unknown = [(key, seen.rows) for key, seen in done.seen.items() if key[2] == "unknown"]
    if not unknown:
        return
    told = "; ".join(f"{rows} rows of {source} in {shown(text)!r}" for (source, text, _), rows in unknown[:_SHOWN])
    more = f"; and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    raise DataError(
        f"{file}: {sum(rows for _, rows in unknown)} rows have an unknown unit ({told}{more}); say what each means, "
        'layout.units = { "TEXT" = "mg/dL" }, or drop and count it with "drop"'
    )


def shown(text: str) -> str:
    """A unit's text if it looks like one: a column that was taken for units may hold something else."""
    looks = _TEXT.fullmatch(text) and not re.search(r"\d{5}", text)
    return text if looks or text == NO_CONCEPT else OTHER_TEXT


def unit_uses(parts: Iterable[Conversions]) -> tuple[UnitUse, ...]:
    """One row for each source name, unit text and verdict of all files; no median of fewer than ten rows."""
    rows: Counter[tuple[str, str, str]] = Counter()
    samples: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for done in parts:
        for (source, text, said), seen in done.seen.items():
            key = (source, shown(text) if text else NO_UNIT, said)
            rows[key] += seen.rows
            weight = seen.rows / max(len(seen.sample), 1)
            samples.setdefault(key, []).extend((value, weight) for value in seen.sample)
    return tuple(
        UnitUse(*key[:2], count, _median(samples[key]) if count >= _FEWEST else None, key[2])
        for key, count in sorted(rows.items())
    )


def assumed_notes(uses: Iterable[UnitUse]) -> tuple[str, ...]:
    """How many rows carried no unit, although their table has units, and none was declared."""
    rows = [use.rows for use in uses if use.verdict.startswith(f"{_ASSUMED}: taken as")]
    if not rows:
        return ()
    return (f"{sum(rows)} rows of {len(rows)} codes carry no unit and were taken to be in the variable's own",)


def _median(sample: list[tuple[float, float]]) -> float | None:
    if not sample:
        return None
    values, weights = (np.array(column) for column in zip(*sorted(sample), strict=True))
    upto = np.cumsum(weights)
    return float(f"{values[np.searchsorted(upto, upto[-1] / 2)]:.3g}")
