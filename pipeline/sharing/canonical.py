"""Canonical JSON and SHA-256 without numpy, and a JSON reader that refuses whatever has two readings.

A verifier must not accept two byte strings for one meaning: whatever is read here is compared with its own canonical
form (RFC 8785). Imports: the standard library and rfc8785.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

import rfc8785

from pipeline.core.errors import ReleaseRefused

_UNSEEN: Final = frozenset({*map(chr, range(0xFE00, 0xFE10)), "\u034f", "\u115f", "\u1160"})
"""Letters and marks that are drawn as nothing."""

_DRAWN_AS: Final = str.maketrans(
    "авекмнорстухіјѕԁԛԝһӏѵαβγεζηικμνορτυχօսհɑɡı01|",
    "abekmhopctyxijsdqwhlvabyezhikmnoptyxouhagioll",
)
"""Small letters of Cyrillic, Greek and others that are drawn, small or capital, as a Latin one; 0 as o, 1 as l."""

MAX_WORDS: Final = 200
MAX_VERSION: Final = 10**9
"""Of a bundle, a root, a list: one that leaves no room for the next could never be replaced."""


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of mappings, sequences, strings, booleans, None and finite numbers."""
    return rfc8785.dumps(plain(value))


def sha256_hex(data: bytes) -> str:
    """Hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def folded(text: str) -> str:
    """`text` as a reader's eye takes it: without case, width, alphabet, blanks and what cannot be seen (NFKC)."""
    wide = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(_DRAWN_AS)
    return "".join(letter for letter in wide if unicodedata.category(letter)[0] not in "CZ" and letter not in _UNSEEN)


def is_printable(value: Any) -> bool:
    """Nothing in parsed JSON moves a terminal's cursor or hides: each string and key consists of what can be seen."""
    if isinstance(value, dict):
        return all(is_printable(part) for item in value.items() for part in item)
    if isinstance(value, list):
        return all(map(is_printable, value))
    return not isinstance(value, str) or value.isprintable()


def iso_date(text: Any) -> datetime.date:
    """A date in its one spelling, YYYY-MM-DD.

    Raises:
        ValueError: it is none.
    """
    if type(text) is not str or datetime.date.fromisoformat(text).isoformat() != text:
        raise ValueError
    return datetime.date.fromisoformat(text)


def is_spelt(text: Any) -> bool:
    """Words for people, on one line: no blank at either end, nothing that cannot be seen."""
    return type(text) is str and text == text.strip() and text.isprintable() and 0 < len(text) <= MAX_WORDS


def plain(value: Any) -> Any:
    """`value` with every mapping a dict and every sequence a list, as the JSON reader would give it back."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return value


def read_canonical(data: bytes, name: str) -> dict[str, Any]:
    """Parse a JSON object that must be in canonical form.

    Raises:
        ReleaseRefused: not JSON, not an object, a key twice, or other bytes than the canonical ones.
    """
    try:
        value = json.loads(data.decode("utf-8"))
        if not isinstance(value, dict):
            raise ReleaseRefused(f"{name} is not a JSON object")
        again = rfc8785.dumps(value)
    except (ValueError, RecursionError):
        raise ReleaseRefused(f"{name} is not valid canonical JSON") from None
    if again != data:  # a key given twice, NaN, white space, 1.0 for 1: all end here or above
        raise ReleaseRefused(f"{name} is not in canonical form")
    return value
