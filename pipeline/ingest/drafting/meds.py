"""A draft for a MEDS folder: stays begin with a code, units are in codes, names in the metadata, splits in a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from pipeline.ingest.drafting.stays import AGE, SEX
from pipeline.ingest.drafting.synonyms import SEXES, variable_named
from pipeline.ingest.engine.batches import Tally, batches
from pipeline.ingest.mapping.load import load_mapping, shipped_codes
from pipeline.ingest.mapping.units import read_unit
from pipeline.ingest.table_files import stem

_COLUMNS: Final = {"subject_id", "time", "code", "numeric_value"}
_ADMISSIONS: Final = ("ICU_ADMISSION", "STAY_START", "HOSPITAL_ADMISSION", "VISIT")
_FEWEST_ROWS: Final = 10
_ROWS_LOOKED_AT: Final = 2_000_000
_MOST_SHOWN: Final = 60
_BIRTHS: Final = ("MEDS_BIRTH", "BIRTH")
_DEATHS: Final = ("MEDS_DEATH", "DEATH")
_NEVER: Final = 99999  # days
_EVENTS: Final = {"file": "data", "link": "subject", "key": "subject_id", "time": "time", "code": "code",
                  "value": "numeric_value"}  # fmt: skip
Raw = dict[str, Any]


@final
@dataclass(frozen=True)
class Draft:
    """`toml`: the mapping; `notes`: what a person must look at."""

    toml: str
    notes: tuple[str, ...]


def meds_draft(folder: Path, headers: Mapping[Path, list[str]]) -> tuple[Raw, list[str]] | None:
    """The draft and its notes, where `data/` holds MEDS events; None where it does not."""
    data = [
        path for path, names in headers.items() if set(names) >= _COLUMNS and "data" in path.relative_to(folder).parts
    ]
    if not data:
        return None
    named = _descriptions(headers)
    counts = _counts(data)
    shown = {*named, *(code for code, rows in counts.items() if rows >= _FEWEST_ROWS)}
    base = {variable.name: variable.unit for variable in load_mapping("physionet2012").variables}
    codes, unplaced = dict[str, list[Any]](), list[str]()
    for code in sorted({*shown, *counts}):
        parts = [part for part in code.split("//") if part]
        texts = [text for text in (named.get(code, ""), *parts) if text]
        meant = next((found for text in texts if (found := variable_named(text) or shipped_codes().get(text))), None)
        if meant is None or code not in counts:
            unplaced += [code] if code in shown else []
            continue
        unit = meant[1] or next((part for part in parts[1:] if _converts(meant[0], part, base[meant[0]])), None)
        codes.setdefault(meant[0], []).append(code if unit is None else {"code": code, "unit": unit})
    stays, notes = _stays(counts, headers)
    if unplaced:
        more = f" and {len(unplaced) - _MOST_SHOWN} more" if len(unplaced) > _MOST_SHOWN else ""
        notes.append(f"not placed: {', '.join(unplaced[:_MOST_SHOWN])}{more}")
    statics: Raw = {}
    if "age" in stays["derived"]:
        statics["age"] = dict(AGE)
    if "sex" in stays["derived"]:
        statics["sex"] = dict(SEX)
    tasks: Raw = {}
    if "days_to_death" in stays["derived"]:
        tasks["death_30d"] = {"kind": "column", "column": "days_to_death", "op": "<=", "threshold": 30, "final": True}
    notes += [] if statics else ["no statics are drafted: say what is known of a stay"]
    raw: Raw = {"base": "physionet2012", "description": "MEDS", "unknown_variables": "drop"}
    raw["optional"] = [*codes, *statics]
    raw |= {"layout": {"stays": stays, "events": [dict(_EVENTS)]}, "codes": codes, "statics": statics, "tasks": tasks}
    return raw, notes


def _stays(counts: Mapping[str, int], headers: Mapping[Path, list[str]]) -> tuple[Raw, list[str]]:
    """Stays begin with a code of admission; of birth, sex and death there is one row for a person."""
    start = next((mark for mark in _ADMISSIONS if any(code.startswith(mark) for code in counts)), None)
    notes = [] if start else ["no code looks like an admission: say which codes begin a stay in layout.stays.where"]
    stays: Raw = {"file": "data", "stay": "(row)", "subject": "subject_id", "start": "time"}
    stays["where"] = {"code": [f"{start or _ADMISSIONS[0]}*"]}
    joins, derived = list[Raw](), dict[str, Raw]()
    if any(stem(path) == "subject_splits" for path in headers):
        stays["split"] = "split"
        joins.append({"file": "metadata/subject_splits", "on": ["subject_id"], "columns": {"split": "split"}})
    sexes = {code: SEXES[code.rpartition("//")[2].lower()] for code in counts if _says_sex(code)}
    for marks, name, column, rule in (
        (_BIRTHS, "born", "time", {"age": {"kind": "age", "born": "born"}}),
        (sorted(sexes), "sex_code", "code", {"sex": {"kind": "codes", "column": "sex_code", "codes": sexes}}),
        (_DEATHS, "died_at", "time", {"days_to_death": {"kind": "days_between", "from": "time", "to": "died_at",
                                                        "otherwise": _NEVER}}),
    ):  # fmt: skip
        there = [code for code in marks if code in counts]
        if there:
            joins.append({"file": "data", "on": ["subject_id"], "where": {"code": there}, "columns": {name: column}})
            derived |= rule
    return {**stays, "join": joins, "derived": derived}, notes


def _says_sex(code: str) -> bool:
    what, _, said = code.rpartition("//")
    return what.upper() in ("GENDER", "SEX") and said.lower() in SEXES


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
