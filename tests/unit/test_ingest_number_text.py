"""Numbers and flags as sites write them; what could mean two numbers is neither."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import DataError
from pipeline.ingest.engine.event_tables import read_event_tables
from pipeline.ingest.engine.event_values import VALUE_REASONS, numbers
from pipeline.ingest.mapping.label_source import LabelSource
from pipeline.ingest.mapping.layout import Layout, parse_layout
from pipeline.ingest.mapping.load import parse_mapping
from pipeline.ingest.mapping.tasks import BinaryRule
from pipeline.ingest.number_text import AMBIGUOUS, NUMBER, read_numbers
from pipeline.ingest.source_tables import as_numbers

NONE = np.zeros(0, np.int32)


def layout(**more: Any) -> Layout:
    events = [{"file": "e", "key": "k", "time": "t", "time_unit": "hours", "code": "c", "value": "v"}]
    return parse_layout({"events": events, **more}, {}, "test")


def read(texts: list[str | None], **more: Any) -> list[float | str]:
    value, why = numbers(pl.Series("v", texts, dtype=pl.String), layout(**more))
    return [VALUE_REASONS[code] if code else number for number, code in zip(value.tolist(), why, strict=True)]


def test_decimal_commas_and_marks_of_thousands() -> None:
    texts = ["91,5", "1.080,5", "1,080", "1.080", "0,125", "11300", "1.080.000", "-2,5", "1,2,3", "9.5", " 7,0 "]
    ambiguous, text = "ambiguous thousands", "text instead of a number"
    assert read(texts, decimal_comma=True) == [
        91.5, 1080.5, ambiguous, ambiguous, 0.125, 11300, 1080000, -2.5, text, 9.5, 7.0
    ]  # fmt: skip
    assert read(["1,080", "1.080"], decimal_comma=True, no_thousands=True) == [1.08, 1.08]
    assert read(["1.080", "1,080"]) == [1.08, "decimal comma"]


def test_limits_however_they_are_written() -> None:
    limit = "a limit (< or >) instead of a number"
    texts = ["<0.5", ">15", "\u22640.5", "< 0,5", ">=3", "<NEG", "NEG", "1.8 H", None, ""]
    text, missing = "text instead of a number", "value missing"
    assert read(texts) == [limit] * 5 + [text] * 3 + [missing] * 2
    assert read(["<0,5", "\u2265 3", "<1,080"], decimal_comma=True, take_limits=True) == [
        0.5,
        3.0,
        "ambiguous thousands",
    ]


@given(st.integers(-(10**6), 10**6), st.integers(0, 4))
def test_a_number_is_itself_or_ambiguous_in_both_ways_of_writing(whole: int, decimals: int) -> None:
    """Written with a comma, with or without marks of thousands: never another number."""
    number = whole / 10**decimals
    for text in (f"{number:.{decimals}f}".replace(".", ","), f"{number:,.{decimals}f}".translate({44: 46, 46: 44})):
        value, kind = read_numbers(pl.Series([text]), decimal_comma=True)
        assert kind[0] in (NUMBER, AMBIGUOUS)
        assert kind[0] == AMBIGUOUS or value[0] == pytest.approx(number)


@pytest.mark.parametrize("column", [pl.Series([timedelta(hours=2), None]), pl.Series([[1.0], None])])
def test_what_is_neither_text_nor_number_is_no_number(column: pl.Series) -> None:
    _, why = numbers(column, layout())
    assert [VALUE_REASONS[code] for code in why] == ["text instead of a number", "value missing"]


def test_words_of_truth_are_numbers_and_words_of_yes_and_no_are_labels() -> None:
    assert read(["True", "FALSE", "yes"]) == [1.0, 0.0, "text instead of a number"]
    for column in (pl.Series(["true", "5", "False"]), pl.Series([True, None, False])):
        _, why = numbers(column, layout(), np.array([True, False, False]))
        assert VALUE_REASONS[why[2]] == "text instead of a number"
        assert VALUE_REASONS[why[0]] == ""
    for texts in (["True", "False", None], ["Y", "n", ""], ["ja", "0", " "], ["1", "No", None]):
        stays = pl.DataFrame({"died": texts}, schema={"died": pl.String})
        labels = BinaryRule("died", "died").labels(LabelSource(stays, "x", NONE, NONE, NONE, NONE, ()))
        assert labels[:2].tolist() == [1.0, 0.0]
        assert np.isnan(labels[2])
    for texts in (["Y", "maybe"], ["F", "M"], ["dead", "0"]):
        with pytest.raises(DataError, match=r'layout\.stays\.derived, kind = "codes"'):
            as_numbers(pl.Series("died", texts), "x")


def test_statics_and_derived_columns_have_a_decimal_comma_too(tmp_path: Path) -> None:
    (tmp_path / "stays.csv").write_text('stay,died,kg,cm\n1,0,"80,5","1.080,5"\n2,1,"1,080","170,5"\n')
    (tmp_path / "e.csv").write_text('k,t,c,v\n1,0,x,"1,5"\n')
    events = {"file": "e", "key": "k", "time": "t", "time_unit": "hours", "code": "c", "value": "v"}
    raw = {
        "variables": {"x": {"unit": "u", "plausible": [0, 9], "scale": [0, 9], "normal": 1}},
        "statics": {"cm": {"unit": "cm", "plausible": [0, 2000], "scale": [0, 9], "normal": 1}},
        "tasks": {"died": {"kind": "binary", "column": "died"}},
        "layout": {
            "decimal_comma": True,
            "stays": {"file": "stays", "stay": "stay", "derived": {"w": {"kind": "number", "column": "kg"}}},
            "events": [events],
        },
    }
    stays = read_event_tables(folder=tmp_path, mapping=parse_mapping(raw, "t", "t.toml", "0" * 64)).stays
    assert stays["w"].to_list() == [80.5, None]
    assert as_numbers(stays["cm"], "x").to_list() == [1080.5, 170.5]
