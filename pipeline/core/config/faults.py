"""What is wrong with a configuration, in our words: the key as it stands in the file, the rule, and a near miss.

A value of the file is never repeated, as it may be a secret or a path. A misspelt `kind` is answered by the known ones.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

_SAID: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be one of {expected}",
    "too_short": "must hold {min_length} or more",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text in quotes",
    "path_type": "must be a path in quotes",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "dataclass_type": "must be a table",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "union_tag_not_found": "names no kind",
}
_VALUE_ERROR: Final = "Value error, "


def told(problem: ValidationError, raw: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """All faults in one line. `raw` is the parsed file, `schema` the model's JSON schema."""
    faults = problem.errors(include_input=False, include_url=False)
    return "; ".join(dict.fromkeys(_sentence(fault, raw, schema) for fault in faults))


def _sentence(fault: Any, raw: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    place = ".".join(_as_in_the_file(fault["loc"], raw))
    about, kind = dict(fault.get("ctx") or {}), str(fault["type"])
    if kind == "extra_forbidden":
        said = f"no such key{_near(str(fault['loc'][-1]), _keys(schema, fault['loc'][:-1]))}"
    elif kind == "union_tag_invalid":
        known = [word.strip().strip("'") for word in str(about["expected_tags"]).split(",")]
        said = f"no such kind{_near(str(about.get('tag', '')), known)}; known are {', '.join(known)}"
        place = f"{place}.kind" if place else "kind"
    elif kind in _SAID:
        limits = {name: f"{value:g}" if isinstance(value, float) else value for name, value in about.items()}
        said = _SAID[kind].format(**limits)
    else:
        said = str(fault["msg"]).removeprefix(_VALUE_ERROR)
    return f"{place}: {said}" if place else said


def _as_in_the_file(loc: Sequence[Any], raw: Any) -> list[str]:
    """The path without the names of kinds that pydantic puts between its keys."""
    path: list[str] = []
    here = raw
    for number, part in enumerate(loc):
        is_item = isinstance(here, list) and isinstance(part, int) and part < len(here)
        if is_item or (isinstance(here, Mapping) and part in here):
            here = here[part]
        elif number < len(loc) - 1:
            continue  # the name of a kind
        path.append(str(part))
    return path


def _near(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""


def _keys(schema: Mapping[str, Any], loc: Sequence[Any]) -> list[str]:
    """The keys of the table that `loc` leads to, by the JSON schema; a tag in `loc` chooses among kinds."""
    here = _resolved(schema, schema)
    for part in loc:
        tags = (here.get("discriminator") or {}).get("mapping") or {}
        if part in tags:
            here = _resolved(schema, {"$ref": tags[part]})
        elif part in here.get("properties", {}):
            here = _resolved(schema, here["properties"][part])
        elif patterns := here.get("patternProperties"):  # tables of the user's own names: one pattern for all
            here = _resolved(schema, next(iter(patterns.values())))
    return list(here.get("properties", {}))


def _resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference, or the one alternative that is not null, stands for."""
    while True:
        others = [item for item in node.get("anyOf", ()) if item.get("type") != "null"]
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        elif len(others) == 1:
            node = others[0]
        else:
            return node
