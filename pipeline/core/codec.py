"""Dataclasses <-> (plain JSON, named arrays): one way to write every artefact, with no code in the files.

Arrays become safetensors-ready (strings as UTF-8 bytes in a uint8 matrix), all else plain JSON. Non-finite floats
become null, as canonical JSON has no form for them, and come back as NaN.
"""

from __future__ import annotations

import dataclasses
import math
import types as python_types
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from pipeline.core.digest import digest_array, digest_json
from pipeline.core.errors import DataError

T = TypeVar("T")
_TEXT_SUFFIX = "#utf8"


def to_parts(record: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Split a dataclass into plain JSON and arrays; arrays are the top-level ndarray fields."""
    meta: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for item in dataclasses.fields(record):
        value = getattr(record, item.name)
        if isinstance(value, np.ndarray):
            name, array = _packed(item.name, value)
            arrays[name] = array
        else:
            meta[item.name] = to_plain(value)
    return meta, arrays


def from_parts(cls: type[T], meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> T:
    """The inverse of `to_parts`.

    Raises:
        DataError: the parts do not fit the class.
    """
    values = {name.removesuffix(_TEXT_SUFFIX): _unpacked(name, array) for name, array in arrays.items()}
    hints = get_type_hints(cls)
    for name, value in meta.items():
        if name not in hints:
            raise DataError(f"a stored {cls.__name__} has the unknown field {name!r}")
        values[name] = from_plain(hints[name], value)
    return cls(**values)


def record_head(record: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What an artefact says, arrays by their digests, and the arrays: its id is `digest_json` of the first."""
    meta, arrays = to_parts(record)
    digests = {name: digest_array(array) for name, array in arrays.items()}
    return {"kind": type(record).__name__, "meta": meta, "arrays": digests}, arrays


def record_digest(record: Any) -> str:
    """The id of an artefact."""
    return digest_json(record_head(record)[0])


def to_plain(value: Any) -> Any:
    """Plain JSON data of nested dataclasses, mappings, sequences, enums and numbers."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return [to_plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return str(value)  # paths and the like


def from_plain(hint: Any, value: Any) -> Any:
    """Rebuild a value of the annotated type from plain JSON data.

    Raises:
        DataError: a record has fields that are not its class's, or lacks some: another version wrote it.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, python_types.UnionType):
        inner = [option for option in args if option is not type(None)]
        return None if value is None else from_plain(inner[0], value)
    if dataclasses.is_dataclass(hint):
        hints = get_type_hints(hint)
        try:
            return hint(**{name: from_plain(hints[name], item) for name, item in value.items()})  # type: ignore[operator]
        except (KeyError, TypeError):
            told = f"a stored {hint.__name__} has other fields than this version's"  # type: ignore[union-attr]
            raise DataError(f"{told}: make it again") from None
    if origin is tuple:
        kinds = args[:1] * len(value) if len(args) == 2 and args[1] is Ellipsis else args
        return tuple(from_plain(kind, item) for kind, item in zip(kinds, value, strict=True))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: from_plain(args[1], item) for key, item in value.items()}
    if hint is float:
        return math.nan if value is None else float(value)
    return value


def _packed(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    if array.dtype.kind != "U":
        return name, np.ascontiguousarray(array)
    encoded = np.char.encode(array, "utf-8")
    width = max(encoded.dtype.itemsize, 1)
    matrix = np.ascontiguousarray(encoded.astype(f"S{width}")).view(np.uint8).reshape(len(array), width)
    return name + _TEXT_SUFFIX, matrix


def _unpacked(name: str, array: np.ndarray) -> np.ndarray:
    if not name.endswith(_TEXT_SUFFIX):
        return array
    rows = np.ascontiguousarray(array).view(f"S{array.shape[1]}").reshape(len(array))
    return np.char.decode(rows, "utf-8")
