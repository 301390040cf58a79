"""A column of raw values as numbers, each row with the reason that bars its use, or none; and slips mended by rule."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from pipeline.ingest.engine.event_units import Conversions
from pipeline.ingest.mapping.layout import Layout
from pipeline.ingest.mapping.source_codes import SourceCodes
from pipeline.ingest.number_text import WORD, read_numbers, two_ways
from pipeline.ingest.source_tables import CODED_MISSING, VALUE_MISSING, VALUE_NOT_FINITE

VALUE_TEXT: Final = "text instead of a number"
VALUE_LIMIT: Final = "a limit (< or >) instead of a number"
VALUE_COMMA: Final = "decimal comma"
VALUE_AMBIGUOUS: Final = "ambiguous thousands"
VALUE_REASONS: Final = (
    "",
    VALUE_MISSING,
    VALUE_LIMIT,
    VALUE_COMMA,
    VALUE_AMBIGUOUS,
    VALUE_TEXT,
    VALUE_NOT_FINITE,
    CODED_MISSING,
)
"""What `numbers` may say of a row, by code; 0 = the number can be used."""

_OF_KIND: Final = np.array(  # what `read_numbers` says of a text (NUMBER, MISSING, LIMIT, ...) -> the reason's code
    [
        VALUE_REASONS.index(reason)
        for reason in ("", VALUE_MISSING, VALUE_LIMIT, VALUE_COMMA, VALUE_AMBIGUOUS, VALUE_TEXT, "")
    ],
    dtype=np.int8,
)


def numbers(raw: pl.Series, layout: Layout, flag: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Float64 values (NaN = none) and int8 indices of `VALUE_REASONS`.

    Most texts are numbers as they stand; only the others are trimmed, mended and looked at. True and false are 1 and 0
    where `flag` `(row,)` says that the row's variable is one of 0 and 1 (None = all are). What is neither text nor
    number (a duration, a date, a list) is `VALUE_TEXT`.
    """
    words = np.zeros(len(raw), dtype=bool) if raw.dtype != pl.Boolean else raw.is_not_null().to_numpy()
    why = np.zeros(len(raw), dtype=np.int8)
    if raw.dtype.is_numeric() or raw.dtype in (pl.Boolean, pl.Null):
        value = raw.cast(pl.Float64).to_numpy()  # NaN where there is none
        if raw.null_count():
            why[raw.is_null().to_numpy()] = VALUE_REASONS.index(VALUE_MISSING)
    elif raw.dtype in (pl.String, pl.Categorical, pl.Enum):
        text = raw.cast(pl.String)
        column = text.cast(pl.Float64, strict=False)
        odd = column.is_null()
        if layout.decimal_comma and not layout.no_thousands:
            odd = odd | two_ways(text)
        value, rows = column.to_numpy(), odd.arg_true().to_numpy()
        if len(rows):
            read, kind = read_numbers(
                text.gather(rows),
                decimal_comma=layout.decimal_comma,
                no_thousands=layout.no_thousands,
                take_limits=layout.take_limits,
            )
            value = value.copy()
            value[rows], why[rows] = read.fill_null(float("nan")).to_numpy(), _OF_KIND[kind.to_numpy()]
            words[rows] = (kind == WORD).to_numpy()
    else:
        codes = [VALUE_REASONS.index(reason) for reason in (VALUE_MISSING, VALUE_TEXT)]
        return np.full(len(raw), np.nan), np.where(raw.is_null().to_numpy(), *codes).astype(np.int8)
    if flag is not None and words.any():
        why[words & ~flag] = VALUE_REASONS.index(VALUE_TEXT)
    finite = np.isfinite(value)
    if not finite.all():
        why[~finite & (why == 0)] = VALUE_REASONS.index(VALUE_NOT_FINITE)
    for code in layout.missing_codes:
        why[(value == code) & (why == 0)] = VALUE_REASONS.index(CODED_MISSING)
    return value, why


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
