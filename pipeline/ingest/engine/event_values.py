"""A column of raw values as numbers, each row with the reason that bars its use, or none; and slips mended by rule."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from pipeline.ingest.engine.event_units import Conversions
from pipeline.ingest.mapping.layout import Layout
from pipeline.ingest.mapping.source_codes import SourceCodes
from pipeline.ingest.source_tables import CODED_MISSING, VALUE_MISSING, VALUE_NOT_FINITE

VALUE_TEXT: Final = "text instead of a number"
VALUE_LIMIT: Final = "a limit (< or >) instead of a number"
VALUE_COMMA: Final = "decimal comma"
VALUE_REASONS: Final = ("", VALUE_MISSING, VALUE_LIMIT, VALUE_COMMA, VALUE_TEXT, VALUE_NOT_FINITE, CODED_MISSING)
"""What `numbers` may say of a row, by code; 0 = the number can be used."""

_LIMIT: Final = r"^[<>]=?\s*(-?\d+(?:\.\d+)?)$"
_COMMA: Final = r"^(-?\d+),(\d+)$"


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
