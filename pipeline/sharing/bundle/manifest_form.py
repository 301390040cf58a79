"""The one shape that a manifest may have: each field, its type, and nothing beside them.

What a version does not know it refuses: a field that is ignored is room for words, or a rule that somebody counted on.
Names have one spelling: no blanks at the ends, no character that cannot be seen. Imports: the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pipeline.core.data_use import TERMS
from pipeline.core.errors import ReleaseRefused
from pipeline.sharing.bundle.age_header import SCHEME
from pipeline.sharing.canonical import MAX_VERSION, is_printable, is_spelt, iso_date
from pipeline.sharing.layout import ARRAYS, BESIDE, FORMAT, MANIFEST, RELEASE_KINDS, TEACHER
from pipeline.sharing.trust.log import parse_checkpoint

Holds = Callable[[Any], bool]

MOST_METHOD: Final = 100  # characters


def _is_date(text: Any) -> bool:
    try:
        return bool(iso_date(text))
    except ValueError:
        return False


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _each(kind: Holds) -> Holds:
    return lambda value: isinstance(value, list) and all(map(kind, value))


def _distinct(kind: Holds) -> Holds:
    return lambda value: _each(kind)(value) and len({*map(str, value)}) == len(value)


def _is_task(value: Any) -> bool:
    binary = {"name": is_spelt, "description": _is_text}
    number = {**binary, "kind": _is_text, "low": _is_number, "high": _is_number, "unit": _is_text}
    return _fits(value, binary) or _fits(value, number)


def _fits(value: Any, fields: Mapping[str, Holds]) -> bool:
    return isinstance(value, dict) and set(value) == set(fields) and all(fields[key](value[key]) for key in fields)


_TOP: Final[Mapping[str, Holds]] = {
    "name": is_spelt,
    "site": is_spelt,
    "version": lambda value: type(value) is int and 1 <= value <= MAX_VERSION,
    "licence": is_spelt,
    "recipients": _distinct(is_spelt),
    "data_use": _distinct(lambda value: _is_text(value) and value in TERMS),
}
_POLICY: Final[Mapping[str, Holds]] = {"name": _is_text, "digest": _is_text, "production": _is_flag}
_RELEASE: Final[Mapping[str, Holds]] = {
    "kind": lambda value: value in RELEASE_KINDS,
    "method": lambda value: is_spelt(value) and len(value) <= MOST_METHOD,
    "options": _is_table,
    "code_version": _is_text,
    "starts_from_records": _is_flag,
}
_DATA: Final[Mapping[str, Holds]] = {
    "arrays": _is_table,  # held against the payload's header
    "channels": _distinct(is_spelt),
    "n_steps": lambda value: type(value) is int and value >= 1,
    "step_hours": lambda value: _is_number(value) and value > 0,
    "tasks": _each(_is_task),
    "transforms": _each(
        lambda value: _is_table(value) and is_spelt(value.get("kind")) and _is_flag(value.get("public"))
    ),
}
_CONDENSED: Final[Mapping[str, Holds]] = {**_DATA, "soft_labels": _is_flag}
_DATA_OF: Final[Mapping[str, tuple[Mapping[str, Holds], ...]]] = {
    "condensed": (_CONDENSED, {**_CONDENSED, TEACHER: _is_table}),  # its own check looks into that table
    "encoded": (_DATA,),
    "moments": ({**_DATA, "feature_map": _is_table, "feature_map_digest": _is_text},),
}
_GUARANTEE: Final[Mapping[str, Holds]] = {
    "epsilon": lambda value: True,  # held against the policy and the events
    "delta": lambda value: True,
    "unit": lambda value: value in ("subject", "stay"),
    "adjacency": lambda value: value == "add-or-remove-one",
    "accountant": _is_text,
    "events": _each(_is_table),
    "assumed_public": _each(_is_text),
}
_REST: Final = ("format", "issued", "expires", "data", "encryption", "files", "guarantee", "log", "policy", "release")
_MANIFEST: Final = frozenset({*_TOP, *_REST})


def check_manifest(
    manifest: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]], expected: Sequence[str]
) -> None:
    """The manifest is of this format, describes the very files that were `found`, and has the one shape.

    Raises:
        ReleaseRefused: it has not; one sentence says where.
    """
    if manifest.get("format") != FORMAT:
        raise ReleaseRefused(f"{MANIFEST} is of another format than the signed statement says, {FORMAT}")
    if set(manifest) != _MANIFEST:
        raise ReleaseRefused(f"{MANIFEST} has missing or unknown keys")
    described = set(expected) - {MANIFEST}
    listed = manifest["files"]
    if not isinstance(listed, dict) or set(listed) != described:
        raise ReleaseRefused(f"{MANIFEST} does not describe exactly the format's files")
    for name in sorted(described):
        if listed[name] != found[name]:
            raise ReleaseRefused(f"{MANIFEST} gives another size or digest of {name} than the file has")
    if wrong := [key for key, holds in _TOP.items() if not holds(manifest[key])]:
        raise ReleaseRefused(f"{MANIFEST} has a value of the wrong type or spelling: {wrong[0]}")
    if not (_is_date(manifest["issued"]) and _is_date(manifest["expires"])):
        raise ReleaseRefused(f"{MANIFEST} has a date that is not one, or in another spelling than YYYY-MM-DD")
    if not _fits(manifest["policy"], _POLICY):
        raise ReleaseRefused(f"{MANIFEST} does not name the policy, its digest and whether it is for production")
    release, data = manifest["release"], manifest["data"]
    if not _fits(release, _RELEASE):
        raise ReleaseRefused(f"{MANIFEST} does not say what kind of release it is and how it was made")
    if not any(_fits(data, fields) for fields in _DATA_OF[release["kind"]]):
        raise ReleaseRefused(f"{MANIFEST} does not say what the arrays mean, or says more")
    kind = release["kind"]
    if set(data["arrays"]) not in [{*ARRAYS[kind], *beside} for beside in ((), *BESIDE.get(kind, ()))]:
        raise ReleaseRefused(f"{MANIFEST} names other arrays than a release of {kind} has")
    if manifest["guarantee"] is not None and not _fits(manifest["guarantee"], _GUARANTEE):
        raise ReleaseRefused(f"{MANIFEST} states a guarantee that this version does not know")
    if not is_printable(manifest):
        raise ReleaseRefused(f"{MANIFEST} has words with characters that cannot be seen")
    if manifest["log"] is not None:
        parse_checkpoint(manifest["log"], MANIFEST)
    _check_encryption(manifest)


def _check_encryption(manifest: Mapping[str, Any]) -> None:
    encryption = manifest["encryption"]
    if encryption is None:
        return
    if not isinstance(encryption, dict) or set(encryption) != {"scheme", "recipients"}:
        raise ReleaseRefused(f"{MANIFEST} does not say how the payload is encrypted, and to whom")
    if encryption["scheme"] != SCHEME:
        raise ReleaseRefused(f"the payload is encrypted by a scheme that this version does not know; it reads {SCHEME}")
    named = encryption["recipients"]
    if not isinstance(named, dict) or sorted(named) != sorted(manifest["recipients"]) or not named:
        raise ReleaseRefused(f"{MANIFEST} names other recipients than those the payload is encrypted to")
    if not all(map(_is_text, named.values())):
        raise ReleaseRefused(f"{MANIFEST} does not say how the payload is encrypted, and to whom")
