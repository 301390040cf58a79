"""Numbers as sites write them: decimal commas, marks of thousands, limits; what could mean two numbers means none."""

from __future__ import annotations

from typing import Final

import polars as pl

NUMBER, MISSING, LIMIT, COMMA, AMBIGUOUS, TEXT, WORD = range(7)
"""What `read_numbers` may say of a text; `WORD`: true or false, which is a number where 0 and 1 are meant."""

NO_VALUE: Final = ("NA", "NaN", "nan", "NULL", "null", "None", r"\N")
"""What programs write where there is nothing."""

TRUTH: Final = {"true": 1.0, "false": 0.0}
_YES: Final = ("yes", "y", "ja", "j", "oui")
FLAGS: Final = {**TRUTH, **dict.fromkeys(_YES, 1.0), "no": 0.0, "n": 0.0, "nein": 0.0, "non": 0.0}

_SIGN: Final = r"^(?:[<>\u2264\u2265]=?|=<|=>)\s*"
_PLAIN: Final = r"^[+-]?\d+,\d+$"
_MARKED: Final = r"^[+-]?\d{1,3}(?:\.\d{3})+,\d+$|^[+-]?\d{1,3}(?:\.\d{3}){2,}$"  # 1.080,5 and 1.080.000
_EITHER: Final = r"^[+-]?[1-9]\d{0,2}[.,]\d{3}$"  # 1,080 and 1.080: a mark of thousands, or of decimals


def read_numbers(
    text: pl.Series, *, decimal_comma: bool = False, no_thousands: bool = False, take_limits: bool = False
) -> tuple[pl.Series, pl.Series]:
    """Float64 values, null where there is none, and int8 kinds: `NUMBER`, or what is in a number's place.

    With `decimal_comma` "1,5" is 1.5 and "1.080,5" is 1080.5; "1,080" and "1.080" are `AMBIGUOUS`, unless
    `no_thousands` says that no number carries a mark of thousands. With `take_limits` "<0.5" is 0.5.
    """
    names = {"text": text.cast(pl.String).str.strip_chars()}
    frame = pl.DataFrame(names).with_columns(body=pl.col("text").str.replace(_SIGN, ""))
    body = pl.col("body")
    if decimal_comma:
        mended = (
            pl.when(body.str.contains(_MARKED))
            .then(body.str.replace_all(r"\.", "").str.replace(",", "."))
            .when(body.str.contains(_PLAIN))
            .then(body.str.replace(",", "."))
            .otherwise(body)
        )
    else:
        mended = body
    either = body.str.contains(_EITHER) if decimal_comma and not no_thousands else pl.lit(False)
    truth = body.str.to_lowercase().replace_strict(TRUTH, default=None, return_dtype=pl.Float64)
    number = mended.cast(pl.Float64, strict=False)
    frame = frame.with_columns(
        value=pl.coalesce(number, truth), either=either, word=number.is_null() & truth.is_not_null()
    )
    limit = pl.col("text") != body
    kind = (
        pl.when(pl.col("text").is_null() | pl.col("text").is_in(["", *NO_VALUE]))
        .then(MISSING)
        .when(pl.col("either"))
        .then(AMBIGUOUS)
        .when(limit & (pl.col("value").is_not_null() | body.str.contains(_PLAIN)) & (not take_limits))
        .then(LIMIT)
        .when(pl.col("word"))
        .then(WORD)
        .when(pl.col("value").is_not_null())
        .then(NUMBER)
        .when(body.str.contains(_PLAIN) | body.str.contains(_MARKED))
        .then(COMMA)
        .otherwise(TEXT)
    )
    found = frame.select(kind=kind.cast(pl.Int8), value="value")
    return found["value"].set(~found["kind"].is_in([NUMBER, WORD]), None), found["kind"]


def two_ways(text: pl.Series) -> pl.Series:
    """Which texts are numbers as they stand, and another number where the comma is the decimal mark."""
    return text.str.contains(_EITHER).fill_null(False)


def flags(text: pl.Series) -> pl.Series | None:
    """1 and 0 for words that say yes and no, where all texts are such words, 0 or 1; None otherwise."""
    lower = text.str.strip_chars().str.to_lowercase()
    words = {**FLAGS, "0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0}
    found = lower.replace_strict(words, default=None, return_dtype=pl.Float64)
    return found if found.null_count() == lower.set(lower == "", None).null_count() else None
