"""A mapping's tables as TOML, in the order and the form in which a person would write them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

_TABLES: Final = (
    "layout", "layout.stays", "layout.stays.derived", "layout.units", "layout.criticality", "inclusion", "codes",
    "variables", "label_variables", "statics", "tasks",
)  # fmt: skip
_LISTS: Final = ("layout.events", "layout.stays.join")


def toml_text(raw: Mapping[str, Any], where: str = "") -> str:
    """`raw` as TOML: the keys of a table first, then its tables; what is no table of a mapping is written in line."""
    lines, below = list[str](), list[str]()
    for key, value in raw.items():
        path = f"{where}.{key}".lstrip(".")
        if path in _LISTS and isinstance(value, Sequence):
            below += [f"\n[[{path}]]\n{toml_text(item, path)}" for item in value]
        elif path in _TABLES and isinstance(value, Mapping):
            text = toml_text(value, path)
            below.append(text if not text or text.startswith("\n[") else f"\n[{path}]\n{text}")
            below[-1] = below[-1] or f"\n[{path}]\n"
        else:
            lines.append(f"{_key(key)} = {_value(value)}\n")
    return "".join((*lines, *below))


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(str(key))} = {_value(item)}' for key, item in value.items())} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False)
