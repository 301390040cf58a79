"""Units that a code's or a column's own name says: `Glucose (mmol/L)`, `temp_f`, `LAB//50912//mg/dL`.

Such a unit serves values that carry none and for which the mapping declares none. Only a text counts that converts to
the variable's unit; numbers and most single letters are left alone, since they number and abbreviate too much else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from pipeline.ingest.mapping.unit_text import plain
from pipeline.ingest.mapping.units import read_unit

_BRACKETS: Final = re.compile(r"[(\[]([^()\[\]]+)[)\]]")
_BLANK: Final = re.compile(r"[\s_,;]+")
_LETTERS: Final = ("c", "f")  # of temperatures; g, k, l and m are left, kidney, male and more
_OTHERS: Final = ("pa",)  # of a pressure: the pulmonary artery's, not pascal


def named_unit(variable: str, name: str, target: str) -> str | None:
    """The unit, other than `target`, that a source name says its values are in; None where it says none."""
    for text in _texts(name):
        found = read_unit(variable, text, target) if _may_be(text) else None
        if found is not None and found[1] is not None:
            return None if found[1] == (1.0, 0.0) else found[0]
    return None


def without_units(name: str) -> tuple[str, ...]:
    """What a name may be without its unit: as it is, less its brackets, less its last words."""
    words = _BLANK.split(name.strip())
    shorter = ("_".join(words[:-1]), "_".join(words[:-2])) if len(words) > 1 else ()
    return tuple(text for text in dict.fromkeys((name, _BRACKETS.sub("", name), *shorter)) if text.strip())


def _may_be(text: str) -> bool:
    short = plain(text).removeprefix("deg")
    long_enough = len(short) > 1 or short in (*_LETTERS, "%")
    return long_enough and short not in _OTHERS and re.search(r"[^\W\d_]|%", text) is not None


def _texts(name: str) -> Iterator[str]:
    """The parts of a name that may be a unit, the likeliest first."""
    yield from reversed(_BRACKETS.findall(name))
    parts = name.split("//")
    yield from reversed(parts[1:])
    words = _BLANK.split(parts[-1].strip())
    if len(words) > 2:
        yield "/".join(words[-2:])  # creatinine_umol_l
    if len(words) > 1:
        yield words[-1]
        yield f"{words[-1]}/l"  # glucose_mmol
