"""The draft of a table of stays: whose and when they are, what is known of them, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, final

import polars as pl

from pipeline.ingest.drafting.looks import Look, mostly_numbers, numbers_in, texts, time_kind
from pipeline.ingest.drafting.synonyms import CRITICAL_WARDS, DEATHS, ROLES, SEXES, plain, role
from pipeline.ingest.engine.coded import id_text
from pipeline.ingest.mapping.layout import ROW_NUMBER
from pipeline.ingest.number_text import flags

Raw = dict[str, Any]
_KNOWN: Final = ("age", "born", "sex", "height", "died", "left", "death")
AGE: Final = {"unit": "years", "plausible": [10, 120], "scale": [15, 95], "normal": 65, "over_stays": "rising"}
SEX: Final = {"unit": "0 female, 1 male", "plausible": [0, 1], "scale": [0, 1], "normal": 1, "over_stays": "same"}
_HEIGHT: Final = {"unit": "cm", "plausible": [110, 230], "scale": [140, 205], "normal": 170}
_MOST_TEXTS: Final = 30
_NEVER: Final = 99999  # days: of nobody is a death recorded so late


@final
@dataclass
class Stays:
    """`layout` is `[layout.stays]`; `columns` leads from the columns that the stays have, joins included, to a look."""

    look: Look
    layout: Raw
    columns: dict[str, pl.Series]
    joined: list[Look] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def role(self, wanted: str) -> str | None:
        """The column that likeliest plays a role."""
        return role(self.columns, wanted)

    @property
    def used(self) -> set[str]:
        """The columns that say something of a stay, and are no events where both are one table."""
        kinds = ("stay", "subject", "start", "end", "site", "ward", *_KNOWN)
        return {name for kind in kinds if (name := self.role(kind)) is not None}

    @property
    def dated(self) -> bool:
        """Whether it is known when a stay began."""
        return "start" in self.layout


def table_of_stays(looks: list[Look]) -> Look | None:
    """The table whose rows are stays: with a start, or else with an id that no row repeats and something that is known.

    Of several the one that names wards of intensive care, and the one whose id is the likeliest stay's.
    """
    alone = len(looks) == 1
    dated = [item for item in looks if item.role("start") and (item.role("stay") or item.role("subject"))]
    dated = [item for item in dated if alone or not item.is_long]
    if dated:
        return min(dated, key=lambda item: (not _wards(item), _rank(item)))
    known = [item for item in looks if not item.is_long and item.role("time") is None and _says_something(item)]
    return max(known, key=lambda item: sum(item.role(kind) is not None for kind in _KNOWN), default=None)


def _says_something(item: Look) -> bool:
    key = item.role("stay") or item.role("subject")
    return key is not None and any(item.role(kind) for kind in _KNOWN) and _is_unique(item.head[key])


def _rank(item: Look) -> int:
    stay = item.role("stay")
    return len(ROLES["stay"]) if stay is None else ROLES["stay"].index(plain(stay))


def _is_unique(column: pl.Series) -> bool:
    ids = column.drop_nulls()
    return len(ids) > 0 and ids.n_unique() == len(ids)


def _wards(item: Look) -> list[str]:
    """The texts of a column of wards that are wards of intensive care, where others are there, too."""
    ward = item.role("ward")
    found = [] if ward is None else texts(item.head[ward]).unique().sort().to_list()
    critical = [text for text in found if CRITICAL_WARDS.search(text)]
    return critical if len(found) <= _MOST_TEXTS else []


def stays_of(item: Look, looks: list[Look]) -> Stays:
    """The layout of a table of stays, with what other tables know of a stay or of its person."""
    layout: Raw = {"file": item.name}
    stays = Stays(item, layout, {name: item.head[name] for name in item.columns})
    stay, subject = item.role("stay"), item.role("subject")
    start = item.role("start")
    wards, ward = _wards(item), item.role("ward")
    repeated = stay is not None and not _is_unique(item.head[stay]) and len(looks) > 1
    if stay is None or wards or repeated:
        layout["stay"] = ROW_NUMBER
        layout |= {"subject_key": stay} if stay is not None else {}
        layout |= {"where": {ward: wards}} if wards else {}
    else:
        layout["stay"] = stay
    layout |= {"start": start} if start is not None else {}
    end = item.role("end")
    layout |= {"end": end} if end is not None and start is not None else {}
    keys = [name for name in (stay, subject) if name is not None]
    for key in keys:
        _join(stays, looks, key)
    subject = stays.role("subject") or (stay if layout["stay"] == ROW_NUMBER else None)
    if subject is not None and subject not in keys:
        _join(stays, looks, subject)
    layout |= {"subject": subject} if subject is not None else {}
    site = stays.role("site")
    layout |= {"site": site} if site is not None else {}
    return stays


def _join(stays: Stays, looks: list[Look], key: str) -> None:
    """Columns that the stays lack, from tables with one row for each `key`."""
    for other in looks:
        same = next((name for name in other.columns if name.lower() == key.lower()), None)
        if other is stays.look or other in stays.joined or same is None or other.is_long:
            continue
        if other.role("time") is not None or not _is_unique(other.head[same]):
            continue
        wanted = [kind for kind in ("subject", *_KNOWN) if stays.role(kind) is None]
        found = [name for kind in wanted if (name := other.role(kind)) is not None and name != same]
        if found:
            stays.layout.setdefault("join", []).append(
                {"file": other.name, "on": [key], "columns": {name: name for name in dict.fromkeys(found)}}
            )
            stays.columns |= {name: _matched(stays.columns[key], other.head[same], other.head[name]) for name in found}
            stays.joined.append(other)


def _matched(keys: pl.Series, there: pl.Series, values: pl.Series) -> pl.Series:
    """The values of the stays' own keys."""
    left = pl.DataFrame({"key": id_text(keys, "")})
    right = pl.DataFrame({"key": id_text(there, ""), "value": values}).drop_nulls("key")
    return left.join(right, on="key", how="left", maintain_order="left")["value"]


def statics_of(stays: Stays) -> Raw:
    """`[statics]`, with the derived columns that they need."""
    statics: Raw = {}
    age, born, sex, height = (stays.role(kind) for kind in ("age", "born", "sex", "height"))
    if age is not None and mostly_numbers(stays.columns[age]):
        statics["age"] = {"source": age, **AGE}
        there = stays.columns[age].drop_nulls() if stays.columns[age].dtype != pl.String else texts(stays.columns[age])
        if len(numbers_in(stays.columns[age])) < len(there):  # "> 89"
            _derive(stays, "age_number", {"kind": "number", "column": age})
            statics["age"]["source"] = "age_number"
    elif born is not None and stays.dated:
        _derive(stays, "age_at_start", {"kind": "age", "born": born})
        statics["age"] = {"source": "age_at_start", **AGE}
    if sex is not None:
        said = texts(stays.columns[sex]).unique().sort().to_list()
        codes = {text: SEXES[text.lower()] for text in said if text.lower() in SEXES}
        if codes:
            _derive(stays, "sex_code", {"kind": "codes", "column": sex, "codes": codes})
            statics["sex"] = {"source": "sex_code", **SEX}
        elif said:
            stays.notes.append(f"not placed: the column {sex}, whose texts are not known to mean female or male")
    if height is not None and mostly_numbers(stays.columns[height]):
        statics["height"] = {"source": height, **_HEIGHT}
    return statics


def tasks_of(stays: Stays) -> Raw:
    """`[tasks]`, the likeliest first, with the derived columns that they need."""
    tasks: Raw = {}
    died, left, death = (stays.role(kind) for kind in ("died", "left", "death"))
    if died is not None:
        column = stays.columns[died]
        zero_or_one = mostly_numbers(column) and set(numbers_in(column).unique()) <= {0.0, 1.0}
        in_words = column.dtype == pl.String and len(texts(column)) > 0 and flags(texts(column)) is not None
        if column.dtype == pl.Boolean or zero_or_one or in_words:
            name = plain(died) if plain(died) in ("label", "outcome") else "died"
            tasks[name] = {"kind": "binary", "column": died, **({"final": True} if name == "died" else {})}
    if left is not None and "died" not in tasks:
        said = texts(stays.columns[left]).unique().sort().to_list()
        if any(DEATHS.search(text) for text in said) and len(said) <= _MOST_TEXTS:
            codes = {text: int(bool(DEATHS.search(text))) for text in said}
            _derive(stays, "left_dead", {"kind": "codes", "column": left, "codes": codes})
            tasks["died"] = {"kind": "binary", "column": "left_dead", "final": True}
    if death is not None and stays.dated and time_kind(stays.columns[death]) in ("datetime", "date"):
        rule = {"kind": "days_between", "from": stays.layout["start"], "to": death, "otherwise": _NEVER}
        _derive(stays, "days_to_death", rule)  # of a date alone it may be a part of a day below 0
        tasks["death_30d"] = {"kind": "column", "column": "days_to_death", "op": "<=", "threshold": 30, "final": True}
    return tasks


def _derive(stays: Stays, name: str, rule: Raw) -> None:
    stays.layout.setdefault("derived", {})[name] = rule
