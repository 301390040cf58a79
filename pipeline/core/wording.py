"""What the site's report and the release's card say alike: who attacks, what a sample is, what a guarantee allows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

THREAT_MODELS: Final[Mapping[str, str]] = {
    "T0": "has this release only",
    "T1": "also has patients of their own",
    "T2": "also knows part of a patient's record",
    "T3": "has some series both plain and encoded",
    "T4": "has the encoder and its key, as every recipient who is to use a model",
    "T5": "has several releases",
    "T6": "has this release and records to look up",
    "T7": "has a model trained on this release",
    "bytes": "reads the files byte by byte",
}

SAMPLES: Final = "Samples are teaching vectors, not patients."

MISSINGNESS: Final[Mapping[str, str]] = {
    "drop": "No channel says which values were measured, but this does not hide it: values are carried forward and so "
    "are flat where nothing was measured.",
    "encode": "Which values were measured is encoded like the values themselves: whoever can undo the encoding reads "
    "it, and others see when it changes.",
    "release": "Which values were measured is shown as it is, in the channels whose names begin with observed; it "
    "shows how closely somebody was watched.",
}
"""The transform `missingness` in a sentence, by its mode."""


def in_columns(cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table for a terminal, every column as wide as its longest cell."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def most_found(epsilon: float, delta: float, false_alarms: float) -> float:
    """The largest share of members that an attack finds under (epsilon, delta) with that share of false alarms.

    min(e^epsilon a + delta, 1 - e^-epsilon (1 - delta - a)), Kairouz, Oh and Viswanath (2015), theorem 2.1.
    """
    factor = math.exp(min(epsilon, 700.0))
    return min(factor * false_alarms + delta, 1 - (1 - delta - false_alarms) / factor, 1.0)


def guarantee_words(guarantee: Mapping[str, Any]) -> dict[str, str]:
    """The figures of a guarantee as every page prints them, rounded to the unfavourable side.

    Even odds become at most `factor` to 1, a belief of at most `believed` %; at one false alarm in 100 an attack finds
    at most `found` of 100 members.
    """
    epsilon, delta = guarantee["epsilon"], guarantee["delta"]
    factor = math.exp(min(epsilon, 700.0))
    return {
        "epsilon": f"{epsilon:g}",
        "delta": f"{delta:g}",
        "unit": {"subject": "patient"}.get(guarantee["unit"], guarantee["unit"]),
        "factor": _rounded_up(factor, 2),
        "believed": _rounded_up(100 * factor / (1 + factor), 1),
        "found": _rounded_up(100 * most_found(epsilon, delta, 0.01), 1),
    }


def _rounded_up(value: float, digits: int) -> str:
    return f"{math.ceil(value * 10**digits - 1e-9) / 10**digits:.10g}"
