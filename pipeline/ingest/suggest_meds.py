"""A draft for a MEDS folder: stays begin with a code, units are in codes, names in the metadata, splits in a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from pipeline.ingest.engine.batches import Tally, batches
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.mapping.synonyms import variable_named
from pipeline.ingest.mapping.units import read_unit
from pipeline.ingest.table_files import stem

_COLUMNS: Final = {"subject_id", "time", "code", "numeric_value"}
_ADMISSIONS: Final = ("ICU_ADMISSION", "STAY_START", "HOSPITAL_ADMISSION", "VISIT")
_FEWEST_ROWS: Final = 10
_ROWS_LOOKED_AT: Final = 2_000_000
_MOST_SHOWN: Final = 60


@final
@dataclass(frozen=True)
class Draft:
    """`toml`: the mapping; `notes`: what a person must look at."""

    toml: str
    notes: tuple[str, ...]


def meds_draft(folder: Path, headers: Mapping[Path, list[str]]) -> Draft | None:
    """The draft, where `data/` holds MEDS events; None where it does not."""
    data = [
        path for path, names in headers.items() if set(names) >= _COLUMNS and "data" in path.relative_to(folder).parts
    ]
    if not data:
        return None
    named = _descriptions(headers)
    counts = _counts(data)
    known = sorted({*named, *(code for code, rows in counts.items() if rows >= _FEWEST_ROWS)})
    start = next((mark for mark in _ADMISSIONS if any(code.startswith(mark) for code in counts)), None)
    base = {variable.name: variable.unit for variable in load_mapping("physionet2012").variables}
    entries, unplaced = dict[str, list[str]](), list[str]()
    for code in known:
        parts = [part for part in code.split("//") if part]
        meant = next(
            (found for text in (named.get(code, ""), *parts) if text and (found := variable_named(text))), None
        )
        if meant is None:
            unplaced.append(code)
            continue
        unit = meant[1] or next((part for part in parts[1:] if _converts(meant[0], part, base[meant[0]])), None)
        entry = json.dumps(code) if unit is None else f"{{ code = {json.dumps(code)}, unit = {json.dumps(unit)} }}"
        entries.setdefault(meant[0], []).append(entry)
    splits = any(stem(path) == "subject_splits" for path in headers)
    notes = ["no statics and no tasks are drafted: say what is known of a stay, and what is to be predicted"]
    if start is None:
        notes.append("no code looks like an admission: say which codes begin a stay in layout.stays.where")
    if unplaced:
        more = f" and {len(unplaced) - _MOST_SHOWN} more" if len(unplaced) > _MOST_SHOWN else ""
        notes.append(f"not placed: {', '.join(unplaced[:_MOST_SHOWN])}{more}")
    lines = [
        'base = "physionet2012"',
        'description = "MEDS"',
        'unknown_variables = "drop"',
        "",
        "[layout.stays]",
        'file = "data"',
        'stay = "(row)"',
        'subject = "subject_id"',
        'start = "time"',
        *(['split = "split"'] if splits else []),
        f'where = {{ code = ["{start or "ICU_ADMISSION"}*"] }}',
        "",
        *(_SPLITS if splits else []),
        *_EVENTS,
        "[codes]",
        *(f"{name} = [{', '.join(codes)}]" for name, codes in entries.items()),
        "",
        "[statics]",
        "",
        "[tasks]",
    ]
    return Draft("\n".join(lines) + "\n", tuple(notes))


_SPLITS: Final = (
    "[[layout.stays.join]]",
    'file = "metadata/subject_splits"',
    'on = ["subject_id"]',
    'columns = { split = "split" }',
    "",
)
_EVENTS: Final = (
    "[[layout.events]]",
    'file = "data"',
    'link = "subject"',
    'key = "subject_id"',
    'time = "time"',
    'code = "code"',
    'value = "numeric_value"',
    "",
)


def _converts(variable: str, text: str, target: str) -> bool:
    found = read_unit(variable, text, target)
    return found is not None and found[1] is not None


def _descriptions(headers: Mapping[Path, list[str]]) -> dict[str, str]:
    """What the folder's own list of codes says of each: metadata, nobody's data."""
    for path, names in headers.items():
        if stem(path) == "codes" and {"code", "description"} <= set(names):
            frames = batches(path, ("code", "description"), Tally())
            return {code: text or "" for frame in frames for code, text in frame.drop_nulls("code").iter_rows()}
    return {}


def _counts(data: list[Path]) -> dict[str, int]:
    counts: dict[str, int] = {}
    rows = 0
    for path in data:
        for frame in batches(path, ("code",), Tally()):
            for code, n in frame.drop_nulls().group_by("code").len().iter_rows():
                counts[code] = counts.get(code, 0) + n
            rows += frame.height
        if rows >= _ROWS_LOOKED_AT:
            break
    return counts
