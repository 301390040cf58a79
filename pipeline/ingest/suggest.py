"""A draft of a mapping for a folder of tables, from names of files, columns and codes; and what it could not place.

A draft is a start: every unit, and every meaning, is for a person to check. Codes are shown only where ten rows or more
carry them, since a column that was taken for codes may hold something else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import polars as pl

from pipeline.core.errors import DataError
from pipeline.ingest.engine.batches import FILE_STEM, Tally, batches, header
from pipeline.ingest.engine.event_units import shown
from pipeline.ingest.mapping.layout import ROW_NUMBER
from pipeline.ingest.mapping.load import MAPPINGS, load_mapping
from pipeline.ingest.mapping.synonyms import role, variable_named
from pipeline.ingest.mapping.units import read_unit
from pipeline.ingest.suggest_meds import Draft, meds_draft
from pipeline.ingest.table_files import SUFFIXES, stem, tables_under

_ROWS_LOOKED_AT: Final = 2_000_000
_FEWEST_ROWS: Final = 10
_MOST_FILES: Final = 200
_MOST_SHOWN: Final = 60
_LONGEST_CODE: Final = 60
_WARDS: Final = "location_category"  # of a table with a row for each ward that a hospitalisation passed (CLIF)
_AGE: Final = "plausible = [10, 120], scale = [15, 95], normal = 65"


@final
@dataclass(frozen=True)
class _Found:
    """One table of events: its layout's lines, code -> (variable, unit that its name says), code -> unit texts."""

    lines: tuple[str, ...]
    codes: dict[str, tuple[str, str | None]]
    texts: dict[str, tuple[str, ...]]
    unplaced: tuple[str, ...]
    rare: int


def suggest(source: Path) -> Draft:
    """Draft a mapping for the tables in the folder `source` (or beside the file `source`).

    Raises:
        DataError: nothing there that could be read, or no table that looks like events.
    """
    folder = source if source.is_dir() else source.parent
    files = tables_under(folder)
    if not files:
        raise DataError(f"{source} holds no table ({', '.join(SUFFIXES)})")
    shipped = _shipped(folder, files)
    if shipped is not None:
        return shipped
    headers = {path: header(path) for path in files[:_MOST_FILES]}
    meds = meds_draft(folder, headers)
    if meds is not None:
        return meds
    stays = _stays_file(headers)
    tables = [(path, names) for path, names in headers.items() if path != stays or len(headers) == 1]
    per_file = (
        len(tables) > 2 and len({tuple(names) for _, names in tables}) == 1 and role(tables[0][1], "stay") is None
    )
    shards = [tables[0]] if per_file else tables
    found = [item for path, names in shards if (item := _events(folder, path, names, stays, headers, per_file))]
    if not found:
        raise DataError(f"{source}: no table has columns for a stay or subject, and a time")
    return _draft(folder, stays, headers, found, len(files))


def _shipped(folder: Path, files: list[Path]) -> Draft | None:
    """A folder that is laid out like a named source needs no draft, only a look at its codes."""
    names = {stem(path).lower() for path in files}
    signs = {
        "mimic_iv": {"icustays", "chartevents"},
        "eicu": {"patient", "vitalperiodic"},
        "omop": {"visit_detail", "measurement"},
    }
    known = next((name for name, needed in signs.items() if needed <= names), None)
    if known is None and all(path.name.lower().endswith((".psv", ".psv.gz")) for path in files):
        known = "physionet2019" if "ICULOS" in header(files[0]) else None
    if known is None:
        return None
    mapping, here = load_mapping(known), {stem(path).lower() for path in files}
    assert mapping.layout is not None
    needed = [table.file for table in mapping.layout.events if table.file != "." and not table.optional]
    lacking = [name for name in needed if Path(name).name.lower() not in here]
    notes = [f"this looks like {known}, whose mapping ships: write mapping = {json.dumps(known)}, or adapt this copy"]
    notes += [f"its layout reads {name}, which is not here: delete that [[layout.events]] table" for name in lacking]
    return Draft((MAPPINGS / f"{known}.toml").read_text(encoding="utf-8"), tuple(notes))


def _stays_file(headers: dict[Path, list[str]]) -> Path | None:
    """The table with a stay and its start, and no column of codes."""
    fit = [p for p, n in headers.items() if role(n, "stay") and role(n, "start") and not role(n, "code")]
    return fit[0] if fit else None


def _events(
    folder: Path, path: Path, names: list[str], stays: Path | None, headers: dict[Path, list[str]], per_file: bool
) -> _Found | None:
    key, link = (FILE_STEM if per_file else role(names, "stay")), "stay"
    if key is not None and stays is not None and _WARDS in {name.lower() for name in headers[stays]}:
        link = "subject"  # a stay is a row of the wards' table: several have the key
    if key is None and stays is not None and role(headers[stays], "subject"):
        key, link = role(names, "subject"), "subject"
    time, code, value, unit = (role(names, kind) for kind in ("time", "code", "value", "unit"))
    if key is None or time is None:
        return None
    relative = {"minutes": "minutes", "offset": "minutes", "observationoffset": "minutes"}
    time_unit = relative.get(time.lower(), "hours") if stays is None or _is_number(path, time) else "datetime"
    file = "." if per_file else path.relative_to(folder).with_name(stem(path)).as_posix()
    prefix = "" if len(headers) <= 2 or per_file else f"{stem(path)}/"
    lines = [f"file = {_text(file)}", f"prefix = {_text(prefix)}", f'link = "{link}"', f"key = {_text(key)}"]
    lines += [f"time = {_text(time)}", f'time_unit = "{time_unit}"']
    if code and value:
        lines += [f"code = {_text(code)}", f"value = {_text(value)}", *([f"unit = {_text(unit)}"] if unit else [])]
        counted, rare = _codes(path, code, unit)
    else:
        apart = {name.lower() for name in (key, time)}
        counted, rare = [(name, ()) for name in names if name.lower() not in apart], 0
    codes, unplaced = dict[str, tuple[str, str | None]](), list[str]()
    texts = dict[str, tuple[str, ...]]()
    for name, said in counted:
        meant = variable_named(name)
        if meant is None:
            unplaced.append(prefix + name)
        else:
            codes[prefix + name] = meant
            texts[prefix + name] = said
    return _Found(tuple(lines), codes, texts, tuple(unplaced), rare)


def _is_number(path: Path, column: str) -> bool:
    first = next(batches(path, (column,), Tally()), None)
    if first is None:
        return False
    text = first[column].drop_nulls().head(100)
    return text.dtype.is_numeric() or (len(text) > 0 and text.cast(pl.Float64, strict=False).null_count() == 0)


def _codes(path: Path, code: str, unit: str | None) -> tuple[list[tuple[str, tuple[str, ...]]], int]:
    """Codes by falling number of rows, each with its rows' unit texts; and how many are rare."""
    parts, rows = [], 0
    for frame in batches(path, (code, unit) if unit and unit != code else (code,), Tally()):
        text = [pl.col(code).cast(pl.String).str.strip_chars().alias("code")]
        said = pl.col(unit).cast(pl.String) if unit else pl.lit(None, pl.String)
        parts.append(frame.select(*text, said.alias("unit")).group_by("code", "unit").len())
        rows += frame.height
        if rows >= _ROWS_LOOKED_AT:
            break
    if not parts:
        return [], 0
    counts = pl.concat(parts).group_by("code", "unit").agg(pl.col("len").sum())
    total = counts.group_by("code").agg(pl.col("len").sum()).drop_nulls().sort("len", "code", descending=[True, False])
    common = total.filter((pl.col("len") >= _FEWEST_ROWS) & (pl.col("code").str.len_chars() <= _LONGEST_CODE))
    by_code = counts.drop_nulls().sort("len", "unit", descending=[True, False]).group_by("code").agg("unit")
    texts = {name: tuple(units) for name, units in by_code.iter_rows()}
    return [(name, texts.get(name, ())) for name in common["code"].to_list()], total.height - common.height


def _draft(
    folder: Path, stays: Path | None, headers: dict[Path, list[str]], found: list[_Found], n_files: int
) -> Draft:
    base = {variable.name: variable for variable in load_mapping("physionet2012").variables}
    notes, entries = list[str](), dict[str, list[str]]()
    for table in found:
        for code, (variable, unit) in table.codes.items():
            entry = _text(code) if unit is None else f"{{ code = {_text(code)}, unit = {_text(unit)} }}"
            entries.setdefault(variable, []).append(entry)  # the rows' own units go before what a draft could say
            notes += _unit_notes(code, variable, base[variable].unit, table.texts[code])
        shown = ", ".join(table.unplaced[:_MOST_SHOWN])
        more = f" and {len(table.unplaced) - _MOST_SHOWN} more" if len(table.unplaced) > _MOST_SHOWN else ""
        if table.unplaced:
            notes.append(f"not placed: {shown}{more}")
        if table.rare:
            notes.append(f"{table.rare} codes have fewer than {_FEWEST_ROWS} rows, or are too long, and are not shown")
    lines = ['base = "physionet2012"', f"description = {_text(folder.name)}", 'unknown_variables = "drop"', ""]
    if stays is not None:
        names = headers[stays]
        lines += ["[layout.stays]", f"file = {_text(stays.relative_to(folder).with_name(stem(stays)).as_posix())}"]
        roles = {kind: role(names, kind) for kind in ("stay", "subject", "start", "end", "site")}
        if _WARDS in {name.lower() for name in names} and roles["stay"] and roles["subject"]:
            lines += [f"subject_key = {_text(roles['stay'])}", f'where = {{ {_WARDS} = ["icu"] }}']
            roles["stay"] = ROW_NUMBER
        lines += [f"{kind} = {_text(name)}" for kind, name in roles.items() if name is not None]
        lines += [*(["distinct = true"] if len(headers) == 1 else []), ""]  # one file with many rows per stay
    for table in found:
        lines += ["[[layout.events]]", *table.lines, ""]
    age, died = (None if stays is None else role(headers[stays], kind) for kind in ("age", "died"))
    lines += ["[codes]", *(f"{name} = [{', '.join(codes)}]" for name, codes in entries.items()), "", "[statics]"]
    if age is not None:
        lines.append(f'age = {{ source = {_text(age)}, unit = "years", {_AGE} }}')
    lines += ["", "# Labels: a column of the stays (binary, column, survival) or events in a later window (event)."]
    lines.append("[tasks]")
    if died is not None:
        lines.append(f'died = {{ kind = "binary", column = {_text(died)} }}')
    if age is None:
        notes.append("no statics are drafted: say what is known of a stay")
    if died is None:
        notes.append("no tasks are drafted: say what is to be predicted")
    if not entries:
        notes.append("no code has a name that is known here: fill in [codes]")
    if n_files > _MOST_FILES:
        notes.append(f"only {_MOST_FILES} of {n_files} files were looked at")
    return Draft("\n".join(lines) + "\n", tuple(notes))


def _unit_notes(code: str, variable: str, target: str, texts: tuple[str, ...]) -> list[str]:
    """What a person must look at in a code's unit texts: those without a meaning, and those without a way."""
    notes = []
    for text in (text for text in texts if text.strip()):
        found = read_unit(variable, text, target)
        if found is None:
            notes.append(f"the unit text {shown(text)!r} of {code} is not known: say what it means in layout.units")
        elif found[1] is None:
            notes.append(f"{code} looks like {variable}, but its unit {found[0]} has no conversion to {target}")
    return notes


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
