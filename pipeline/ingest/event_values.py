"""A column of raw values as numbers in the variables' units, each row with the reason that bars its use, or none."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, final

import polars as pl

from pipeline.ingest.layout import Layout
from pipeline.ingest.source_codes import SourceCodes
from pipeline.ingest.tables import CODED_MISSING, VALUE_MISSING, VALUE_NOT_FINITE
from pipeline.ingest.units import conversion, spell

VALUE_TEXT: Final = "text instead of a number"
VALUE_LIMIT: Final = "a limit (< or >) instead of a number"
VALUE_COMMA: Final = "decimal comma"
UNIT_STRANGE: Final = "unit without a conversion"

_LIMIT: Final = r"^[<>]=?\s*(-?\d+(?:\.\d+)?)$"
_COMMA: Final = r"^(-?\d+),(\d+)$"


@final
@dataclass
class Conversions:
    """How many values were converted, by variable and from which unit; and mended, by variable."""

    converted: Counter[tuple[str, str]] = field(default_factory=Counter)
    mended: Counter[str] = field(default_factory=Counter)


def numbers(raw: pl.Series, layout: Layout) -> tuple[pl.Series, pl.Series]:
    """Float64 values, and the reason (text) where there is none. Booleans are 0 and 1."""
    if raw.dtype.is_numeric() or raw.dtype in (pl.Boolean, pl.Null):
        value = raw.cast(pl.Float64)
        text = pl.Series([None] * len(raw), dtype=pl.String)
        missing = value.is_null()
    else:
        text = raw.cast(pl.String).str.strip_chars()
        if layout.decimal_comma:
            text = text.str.replace(_COMMA, "${1}.${2}")
        if layout.take_limits:
            text = text.str.replace(_LIMIT, "${1}")
        missing = text.is_null() | (text == "")
        value = text.cast(pl.Float64, strict=False)
    frame = pl.DataFrame({"value": value, "text": text, "missing": missing})
    codes = list(layout.missing_codes)
    reason = (
        pl.when(pl.col("missing"))
        .then(pl.lit(VALUE_MISSING))
        .when(pl.col("value").is_null() & pl.col("text").str.contains(_LIMIT))
        .then(pl.lit(VALUE_LIMIT))
        .when(pl.col("value").is_null() & pl.col("text").str.contains(_COMMA))
        .then(pl.lit(VALUE_COMMA))
        .when(pl.col("value").is_null())
        .then(pl.lit(VALUE_TEXT))
        .when(~pl.col("value").is_finite())
        .then(pl.lit(VALUE_NOT_FINITE))
        .when(pl.col("value").is_in(codes) if codes else pl.lit(False))
        .then(pl.lit(CODED_MISSING))
        .otherwise(pl.lit(None, pl.String))
    )
    return value, frame.select(reason.alias("reason")).to_series()


def in_units(frame: pl.DataFrame, codes: SourceCodes, done: Conversions) -> pl.DataFrame:
    """`frame` (variable, value, reason, unit: text or null) with values in the variables' units.

    A unit that the mapping declares for a code goes before the row's own. A row's own unit is converted where it is
    known and another than the variable's; a spelling that is not known is taken for the variable's unit; one that is
    known but has no conversion is a reason.
    """
    pairs = frame.filter(pl.col("reason").is_null()).select("variable", "unit").unique().sort("variable", "unit")
    rules: list[tuple[str, str | None, float | None, float | None]] = []
    for source, text in pairs.iter_rows():
        line: tuple[float, float] | None = codes.lines.get(source)
        unit = spell(text) if text is not None else None
        if line is None and unit is not None and source in codes.units:
            name, target = codes.units[source]
            wanted = spell(target) or target
            line = (1.0, 0.0) if unit == wanted else conversion(name, unit, wanted)
            if line is None:
                rules.append((source, text, None, None))
                continue
        if line is not None and line != (1.0, 0.0):
            rules.append((source, text, *line))
    if not rules:
        return frame
    table = pl.DataFrame(
        rules,
        schema={"variable": pl.String, "unit": pl.String, "factor": pl.Float64, "offset": pl.Float64},
        orient="row",
    ).with_columns(ruled=pl.lit(True))
    joined = frame.join(table, on=["variable", "unit"], how="left", nulls_equal=True, maintain_order="left")
    usable = pl.col("reason").is_null()
    for source, text, rows in (
        joined.filter(usable & pl.col("factor").is_not_null()).group_by("variable", "unit").len().iter_rows()
    ):
        unit = None if source in codes.lines or text is None else spell(text)
        done.converted[codes.units[source][0], unit or "the declared unit"] += rows
    strange = usable & pl.col("ruled").fill_null(False) & pl.col("factor").is_null()
    return joined.with_columns(
        value=pl.when(pl.col("factor").is_not_null())
        .then(pl.col("value") * pl.col("factor") + pl.col("offset"))
        .otherwise("value"),
        reason=pl.when(strange).then(pl.lit(UNIT_STRANGE)).otherwise("reason"),
    ).drop("factor", "offset", "ruled")


def mend(
    frame: pl.DataFrame, codes: SourceCodes, ranges: dict[str, tuple[float, float]], done: Conversions
) -> pl.DataFrame:
    """Values outside the plausible range (by source name) that a slip of the mapping's `[mend]` brings back into it.

    The rule is fixed beforehand and looks at one value at a time, so nothing about other patients enters a value.
    """
    for source in frame["variable"].unique().to_list():
        low, high = ranges.get(source, (0.0, 0.0))
        for factor, offset in codes.mends.get(source, ()):
            value, moved = pl.col("value"), pl.col("value") * factor + offset
            slipped = (
                (pl.col("variable") == source)
                & pl.col("reason").is_null()
                & ~value.is_between(low, high)
                & moved.is_between(low, high)
            ).fill_null(False)
            rows = int(frame.select(slipped.sum()).item())
            if rows:
                done.mended[codes.units[source][0]] += rows
                frame = frame.with_columns(pl.when(slipped).then(moved).otherwise("value").alias("value"))
    return frame
