"""A draft of a mapping for a folder of tables, from names of files, columns and codes; and what it could not place.

A draft reads the tables that it was made of, and is a start: every unit, and every meaning, is for a person to check.
Codes that are not known are shown only where ten rows or more carry them, since a column that was taken for codes may
hold something else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import polars as pl

from pipeline.core.errors import DataError, NotInstalled
from pipeline.ingest.containers import is_container, tables_in
from pipeline.ingest.drafting.events import FEWEST_ROWS, Events, events_of
from pipeline.ingest.drafting.looks import Look, date_order, encoding_of, has_decimal_commas, look
from pipeline.ingest.drafting.meds import Draft, meds_draft
from pipeline.ingest.drafting.shipped import shipped_draft
from pipeline.ingest.drafting.stays import Stays, statics_of, stays_of, table_of_stays, tasks_of
from pipeline.ingest.drafting.synonyms import plain, role
from pipeline.ingest.drafting.toml_text import toml_text
from pipeline.ingest.drafting.trial import tried
from pipeline.ingest.engine.coded import plain_text
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.table_files import SUFFIXES, files_under, tables_under

_MOST_FILES: Final = 200
_MOST_SHOWN: Final = 60
_WRITTEN: Final = Path("metadata", "decoct_mapping.toml")  # of a cohort that was written as MEDS
Raw = dict[str, Any]


def suggest(source: Path) -> Draft:
    """Draft a mapping for the tables in the folder `source` (or beside the file `source`).

    Raises:
        DataError: nothing there that could be read, or no table that looks like events.
    """
    folder = source if source.is_dir() else source.parent
    files, closed = tables_under(folder), list[str]()
    for path in filter(is_container, files_under(folder)):
        try:
            files += tables_in(path, SUFFIXES)
        except (DataError, NotInstalled) as error:
            closed.append(f"{path.relative_to(folder).as_posix()} was not looked at: {error}")
    if not files:
        raise DataError(f"{source} holds no table ({', '.join(SUFFIXES)}){''.join(f'; {why}' for why in closed)}")
    if (folder / _WRITTEN).is_file():
        written = (folder / _WRITTEN).read_text(encoding="utf-8")
        return Draft(written, (f"this is the mapping that was written with these tables, {_WRITTEN.as_posix()}",))
    known = shipped_draft(folder)
    if known is not None:
        name, raw, lacking = known
        raw, told = tried(raw, folder, files)
        notes = [f"this looks like {name}, whose mapping ships: write mapping = {json.dumps(name)}, or adapt this copy"]
        return Draft(toml_text(raw), (*notes, *lacking, *told))
    encoding = encoding_of(files[:_MOST_FILES])
    looks, notes = _looks(folder, files, encoding)
    meds = meds_draft(folder, {item.path: list(item.columns) for item in looks})
    raw, told = _draft(folder, looks, encoding) if meds is None else meds
    raw, tries = tried(raw, folder, files)
    if len(files) > _MOST_FILES:
        notes.append(f"only {_MOST_FILES} of {len(files)} files were looked at")
    return Draft(toml_text(raw), (*closed, *notes, *told, *tries))


def _looks(folder: Path, files: list[Path], encoding: str) -> tuple[list[Look], list[str]]:
    looks, notes = list[Look](), list[str]()
    for path in files[:_MOST_FILES]:
        try:
            looks.append(look(folder, path, encoding))
        except DataError as error:
            notes.append(f"{path.relative_to(folder).as_posix()} was not looked at: {error}")
    return looks, notes


def _draft(folder: Path, looks: list[Look], encoding: str) -> tuple[Raw, list[str]]:
    base = {variable.name: variable for variable in load_mapping("physionet2012").variables}
    item = table_of_stays(looks)
    stays = None if item is None else stays_of(item, looks)
    statics = {} if stays is None else statics_of(stays)
    tasks = {} if stays is None else tasks_of(stays)
    taken = [] if stays is None else [stays.look, *stays.joined]
    tables = [other for other in looks if other not in taken or len(looks) == 1]
    per_file = len(tables) > 2 and len({other.columns for other in tables}) == 1
    per_file = per_file and role(tables[0].columns, "stay") is None and role(tables[0].columns, "subject") is None
    meanings = _meanings(looks)
    found, notes = list[Events](), list[str]()
    for other in tables[:1] if per_file else tables:
        prefix = "" if len(looks) <= 2 or per_file else f"{other.name}/"
        events = events_of(other, stays, prefix, meanings, base, per_file=per_file, encoding=encoding)
        if events is not None and events.codes:
            found.append(events)
        elif other.columns and not (events is None and _is_dictionary(other)):
            columns = ", ".join(other.columns[:_MOST_SHOWN])
            notes.append(f"the table {other.name} is left out: nothing known in its columns {columns}")
            notes += [] if events is None else _unplaced(events)
    if not found:
        seen = "; ".join(notes)
        raise DataError(f"{folder}: no table has columns for a stay or subject, and a time, and a known code: {seen}")
    layout = _layout(found, stays, encoding, notes)
    single = stays is not None and len(looks) == 1
    if stays is not None:
        layout["stays"] = {**stays.layout, **({"distinct": True} if single else {})}
        notes += stays.notes
    layout["events"] = [events.layout for events in found]
    codes = _codes(found)
    raw: Raw = {"base": "physionet2012", "description": folder.name, "unknown_variables": "drop"}
    raw["optional"] = [*codes, *statics]
    raw |= {"layout": layout, "codes": codes, "statics": statics, "tasks": tasks}
    notes += [] if statics else ["no statics are drafted: say what is known of a stay"]
    return raw, notes


def _is_dictionary(item: Look) -> bool:
    return role(item.columns, "meaning") is not None and role(item.columns, "value") is None


def _layout(found: list[Events], stays: Stays | None, encoding: str, notes: list[str]) -> Raw:
    layout: Raw = {} if encoding == "utf-8" else {"encoding": encoding}
    if encoding != "utf-8":
        notes.append(f"the text is no UTF-8; {encoding} is taken: look at its umlauts, accents and signs")
    numbers = [column for events in found for column in events.values]
    if any(map(has_decimal_commas, numbers)):
        layout["decimal_comma"] = True
    times = [column for events in found for column in events.times]
    if stays is not None:
        times += [stays.columns[stays.layout[key]] for key in ("start", "end") if key in stays.layout]
    dates, told = date_order(times)
    layout |= {} if dates is None else {"dates": dates}
    notes += [] if told is None else [told]
    units = {text: "drop" for events in found for text in events.unknown_units}
    if units:
        layout["units"] = units
        notes.append(f"rows in {len(units)} units that are not known are dropped and counted: layout.units")
    for events in found:
        notes += [*events.notes, *_unplaced(events)]
    return layout


def _unplaced(events: Events) -> list[str]:
    shown = ", ".join(events.unplaced[:_MOST_SHOWN])
    more = f" and {len(events.unplaced) - _MOST_SHOWN} more" if len(events.unplaced) > _MOST_SHOWN else ""
    rare = f"{events.rare} codes have fewer than {FEWEST_ROWS} rows, or are too long, and are not shown"
    return [*([f"not placed: {shown}{more}"] if shown else []), *([rare] if events.rare else [])]


def _codes(found: list[Events]) -> dict[str, list[Any]]:
    """`[codes]`: the rows' own units go before what a draft could say, so most codes have none."""
    codes: dict[str, list[Any]] = {}
    for events in found:
        for code, (variable, unit) in events.codes.items():
            codes.setdefault(variable, []).append(code if unit is None else {"code": code, "unit": unit})
    return codes


def _meanings(looks: list[Look]) -> dict[str, str]:
    """What tables of codes say of each: metadata, nobody's data."""
    found: dict[str, str] = {}
    for item in looks:
        meaning = role(item.columns, "meaning")
        code = next((name for name in item.columns if plain(name) in ("itemid", "conceptid", "code", "id")), None)
        if meaning is None or code is None or code == meaning or item.role("time") or item.role("value"):
            continue
        names = item.head[meaning].cast(pl.String)
        standard = next((name for name in item.columns if plain(name) in ("conceptcode", "loinc", "loinccode")), None)
        if standard is not None and standard != code:
            names = names + " " + item.head[standard].cast(pl.String).fill_null("")
        said = pl.DataFrame({"code": plain_text(item.head[code]), "name": names})
        found |= dict(said.drop_nulls().iter_rows())
    return found
