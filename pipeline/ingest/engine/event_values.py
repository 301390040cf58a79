"""A column of raw values as numbers in the variables' units, each row with the reason that bars its use, or none.

Names and units come as codes, so that a spelling is looked at once; nothing runs over rows but arithmetic.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, final

import numpy as np
import polars as pl

from pipeline.ingest.engine.coded import Coded
from pipeline.ingest.mapping.layout import Layout
from pipeline.ingest.mapping.source_codes import SourceCodes
from pipeline.ingest.mapping.units import conversion, spell
from pipeline.ingest.source_tables import CODED_MISSING, VALUE_MISSING, VALUE_NOT_FINITE

VALUE_TEXT: Final = "text instead of a number"
VALUE_LIMIT: Final = "a limit (< or >) instead of a number"
VALUE_COMMA: Final = "decimal comma"
UNIT_STRANGE: Final = "unit without a conversion"
VALUE_REASONS: Final = ("", VALUE_MISSING, VALUE_LIMIT, VALUE_COMMA, VALUE_TEXT, VALUE_NOT_FINITE, CODED_MISSING)
"""What `numbers` may say of a row, by code; 0 = the number can be used."""

_LIMIT: Final = r"^[<>]=?\s*(-?\d+(?:\.\d+)?)$"
_COMMA: Final = r"^(-?\d+),(\d+)$"


@final
@dataclass
class Conversions:
    """How many values were converted, by variable and from which unit; and mended, by variable."""

    converted: Counter[tuple[str, str]] = field(default_factory=Counter)
    mended: Counter[str] = field(default_factory=Counter)


def numbers(raw: pl.Series, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Float64 values (NaN = none) and int8 indices of `VALUE_REASONS`. Booleans are 0 and 1.

    Most texts are numbers as they stand; only the others are trimmed, mended and looked at.
    """
    is_text = not (raw.dtype.is_numeric() or raw.dtype in (pl.Boolean, pl.Null))
    text = raw.cast(pl.String) if is_text else None
    column = raw.cast(pl.Float64) if text is None else text.cast(pl.Float64, strict=False)
    missing = np.flatnonzero(column.is_null().to_numpy()) if column.null_count() else np.zeros(0, np.int64)
    value = (column.fill_null(float("nan")) if len(missing) else column).to_numpy()
    why = np.zeros(len(value), dtype=np.int8)
    if text is None:
        why[missing] = VALUE_REASONS.index(VALUE_MISSING)
    elif len(missing):
        value = value.copy()
        value[missing], why[missing] = _odd_texts(text.gather(missing), layout)
    finite = np.isfinite(value)
    if not finite.all():
        why[~finite & (why == 0)] = VALUE_REASONS.index(VALUE_NOT_FINITE)
    for code in layout.missing_codes:
        why[(value == code) & (why == 0)] = VALUE_REASONS.index(CODED_MISSING)
    return value, why


def _odd_texts(text: pl.Series, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Values and reasons of texts that are no numbers as they stand."""
    text = text.str.strip_chars()
    if layout.decimal_comma:
        text = text.str.replace(_COMMA, "${1}.${2}")
    if layout.take_limits:
        text = text.str.replace(_LIMIT, "${1}")
    value = text.cast(pl.Float64, strict=False)
    frame = pl.DataFrame({"text": text, "value": value})
    reason = (
        pl.when(pl.col("text").is_null() | (pl.col("text") == ""))
        .then(VALUE_REASONS.index(VALUE_MISSING))
        .when(pl.col("value").is_not_null())
        .then(0)
        .when(pl.col("text").str.contains(_LIMIT))
        .then(VALUE_REASONS.index(VALUE_LIMIT))
        .when(pl.col("text").str.contains(_COMMA))
        .then(VALUE_REASONS.index(VALUE_COMMA))
        .otherwise(VALUE_REASONS.index(VALUE_TEXT))
    )
    codes = frame.select(reason.cast(pl.Int8).alias("reason")).to_series()
    return value.fill_null(float("nan")).to_numpy(), codes.to_numpy()


def in_units(
    value: np.ndarray,
    name: np.ndarray,
    unit: Coded | None,
    names: tuple[str, ...],
    codes: SourceCodes,
    done: Conversions,
) -> tuple[np.ndarray, np.ndarray]:
    """`value` `(row,)` in the variables' units, and a mask of the rows whose unit has no conversion.

    `name` indexes `names`, the source's names. A unit that the mapping declares for a code goes before the row's own.
    A row's own unit is converted where it is known and another than the variable's; a spelling that is not known is
    taken for the variable's unit; one that is known but has no conversion is strange.
    """
    strange = np.zeros(len(value), dtype=bool)
    texts = [None] if unit is None else [*unit.distinct.cast(pl.String).to_list(), None]
    if not codes.lines and len(texts) == 1:
        return value, strange
    pair = name.astype(np.int64) * len(texts)
    pair += 0 if unit is None else np.where(unit.codes < 0, len(texts) - 1, unit.codes)
    occurring = np.flatnonzero(np.bincount(pair, minlength=1))
    factor, offset = np.ones(len(names) * len(texts)), np.zeros(len(names) * len(texts))
    bad = np.zeros(len(factor), dtype=bool)
    moved: dict[tuple[str, str], list[int]] = {}
    for index in occurring.tolist():
        source, text = names[index // len(texts)], texts[index % len(texts)]
        line = _line(source, text, codes)
        if line is None:
            bad[index] = True
        elif line != (1.0, 0.0):
            factor[index], offset[index] = line
            known = None if source in codes.lines or text is None else spell(text)
            moved.setdefault((codes.units[source][0], known or "the declared unit"), []).append(index)
    if moved:
        rows = np.bincount(pair, minlength=len(factor))
        for told, indices in moved.items():
            done.converted[told] += int(rows[indices].sum())
        there = (factor != 1) | (offset != 0)
        changed = np.flatnonzero(there[pair])
        value = value.copy()
        value[changed] = value[changed] * factor[pair[changed]] + offset[pair[changed]]
    return value, bad[pair] if bad.any() else strange


def _line(source: str, text: str | None, codes: SourceCodes) -> tuple[float, float] | None:
    """(factor, offset) of a source name's values that carry the unit `text`; None = no way is known."""
    declared = codes.lines.get(source)
    if declared is not None:
        return declared
    unit = spell(text) if text is not None else None
    if unit is None or source not in codes.units:
        return 1.0, 0.0
    variable, target = codes.units[source]
    wanted = spell(target) or target
    return (1.0, 0.0) if unit == wanted else conversion(variable, unit, wanted)


def mend(
    value: np.ndarray,
    name: np.ndarray,
    names: tuple[str, ...],
    codes: SourceCodes,
    ranges: dict[str, tuple[float, float]],
    done: Conversions,
) -> np.ndarray:
    """Values outside the plausible range (by source name) that a slip of the mapping's `[mend]` brings back into it.

    The rule is fixed beforehand and looks at one value at a time, so nothing about other patients enters a value.
    """
    for source, lines in codes.mends.items():
        if source not in names:
            continue
        low, high = ranges.get(source, (0.0, 0.0))
        rows = np.flatnonzero(name == names.index(source))
        for factor, offset in lines:
            here = value[rows]
            moved = here * factor + offset
            slipped = ~((here >= low) & (here <= high)) & (moved >= low) & (moved <= high)
            if slipped.any():
                done.mended[codes.units[source][0]] += int(slipped.sum())
                value = value.copy()
                value[rows[slipped]] = moved[slipped]
    return value
