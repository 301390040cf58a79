"""A folder that is laid out as a mapping that ships says: that mapping, less what this folder does not have.

Which mapping fits is told by its own layout: the table of stays with its ids and start, and a table of events.
"""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any, Final, final

import polars as pl

from pipeline.core.errors import DataError
from pipeline.ingest.engine.batches import FILE_STEM, Tally, batches, header
from pipeline.ingest.engine.coded import plain_text
from pipeline.ingest.mapping.layout import ROW_NUMBER
from pipeline.ingest.mapping.load import MAPPINGS
from pipeline.ingest.table_files import find_files

_ROWS_LOOKED_AT: Final = 2_000_000
_FEWEST_COLUMNS: Final = 3  # of a table without a column of codes
Raw = dict[str, Any]


def shipped_draft(folder: Path) -> tuple[str, Raw, list[str]] | None:
    """The name of the shipped mapping that fits, the draft made of it, and what it lacks here; None where none fits."""
    for path in sorted(MAPPINGS.glob("*.toml")):
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        if "layout" in raw and _fits(raw, folder):
            notes = list[str]()
            return path.stem, _pruned(copy.deepcopy(raw), folder, notes), notes
    return None


@final
class _Columns:
    """The names of a table's columns, whatever their case; none where there is no such table."""

    def __init__(self, folder: Path, file: str) -> None:
        try:
            self.paths = find_files(folder, file, optional=True)
            names = header(self.paths[0]) if self.paths else []
        except DataError:
            self.paths, names = [], []
        self.names = {name.lower() for name in names}

    def have(self, *wanted: str | None) -> bool:
        there = {*self.names, ROW_NUMBER, FILE_STEM}
        return bool(self.paths) and all(name is None or name.lower() in there for name in wanted)


def _fits(raw: Raw, folder: Path) -> bool:
    stays = raw["layout"].get("stays", {})
    if "file" in stays and not _Columns(folder, stays["file"]).have(stays.get("stay", "stay_id"), stays.get("start")):
        return False
    return any(_is_here(table, raw, folder) for table in raw["layout"]["events"])


def _is_here(table: Raw, raw: Raw, folder: Path) -> bool:
    columns = _Columns(folder, table["file"])
    if not columns.have(*(table.get(key) for key in ("key", "time", "code", "value"))):
        return False
    known = {code for entries in raw["codes"].values() for code in _sources(entries)}
    prefix = table.get("prefix", "")
    met = sum(columns.have(code.removeprefix(prefix)) for code in known if code.startswith(prefix))
    return "code" in table or met >= _FEWEST_COLUMNS


def _sources(entries: list[Any]) -> list[str]:
    return [str(entry["code"] if isinstance(entry, dict) else entry) for entry in entries]


def _pruned(raw: Raw, folder: Path, notes: list[str]) -> Raw:
    """Less the tables, columns, codes, statics and tasks that the folder has nothing for."""
    layout, stays = raw["layout"], raw["layout"].get("stays", {})
    kept = [table for table in layout["events"] if _is_here(table, raw, folder)]
    for table in (table for table in layout["events"] if table not in kept):
        notes.append(f"its layout reads {table['file']}, which is not here, or without its columns: left out")
    for table in kept:
        for key in (key for key in ("available", "date") if key in table):
            if not _Columns(folder, table["file"]).have(table[key]):
                notes.append(f"{table['file']} has no column {table.pop(key)}: left out")
        if "available" in table:
            notes.append(
                f"{table['file']}: values are inputs from {table['available']} on, when they were known, and lie where "
                f"{table['time']} says that they were taken"
            )
        if "unit" in table and not _Columns(folder, table["file"]).have(table["unit"]):
            notes.append(f"{table['file']} has no column {table.pop('unit')}: units are the variables' own")
    layout["events"] = kept
    if "file" in stays:
        _prune_stays(stays, raw, folder, notes)
    seen = set().union(*(_seen(table, raw, folder) for table in kept))
    if seen:
        unmet = [name for name, entries in raw["codes"].items() if not seen & set(_sources(entries))]
        raw["codes"] = {name: entries for name, entries in raw["codes"].items() if name not in unmet}
        if unmet:
            notes.append(f"no row has a code of {', '.join(unmet)}: left out")
    tasks = {name: task for name, task in raw["tasks"].items() if _variables(task) <= {*raw["codes"]}}
    raw["tasks"] = tasks
    labels = set().union(*(_variables(task) for task in tasks.values()))
    raw["optional"] = [*(name for name in raw["codes"] if name not in raw.get("label_variables", {}))]
    raw["optional"] += list(raw.get("statics", {}))
    raw["codes"] = {
        name: entries
        for name, entries in raw["codes"].items()
        if name not in raw.get("label_variables", {}) or name in labels
    }
    return raw


def _variables(task: Raw) -> set[str]:
    return set(task.get("variables", []))


def _prune_stays(stays: Raw, raw: Raw, folder: Path, notes: list[str]) -> None:
    own = _Columns(folder, stays["file"])
    for key in ("subject", "end", "site", "unit", "split"):
        if key in stays and not own.have(stays[key]):
            notes.append(f"{stays['file']} has no column {stays.pop(key)}: left out")
    lost, joins = set[str](), []
    for join in stays.get("join", []):
        if _Columns(folder, join["file"]).have(*join["on"], *join["columns"].values()) and own.have(*join["on"]):
            joins.append(join)
        else:
            lost |= set(join["columns"])
            notes.append(f"its layout joins {join['file']}, which is not here, or without its columns: left out")
    stays["join"] = joins
    made = {*(name.lower() for join in joins for name in join["columns"]), *own.names}
    for name, rule in list(stays.get("derived", {}).items()):
        needed = [rule[key] for key in ("column", "from", "to", "born", "anchor_age", "anchor_year") if key in rule]
        if not all(column.lower() in made for column in needed):
            del stays["derived"][name]
            lost.add(name)
        else:
            made.add(name.lower())
    for kind, key in (("statics", "source"), ("tasks", "column")):
        for name, entry in list(raw.get(kind, {}).items()):
            if entry.get(key, name if kind == "statics" else "") in lost:
                del raw[kind][name]
    if raw.get("inclusion", {}).get("age") and "age" not in made:
        del raw["inclusion"]["age"]
    if "where" in stays and not _selects(stays, folder):
        notes.append(f"no row of {stays['file']} has the texts of its `where`: all rows are taken")
        del stays["where"]


def _selects(stays: Raw, folder: Path) -> bool:
    for path in find_files(folder, stays["file"]):
        for frame in batches(path, tuple(stays["where"]), Tally()):
            if frame.filter(*(plain_text(frame[name]).is_in(kept) for name, kept in stays["where"].items())).height:
                return True
    return False


def _seen(table: Raw, raw: Raw, folder: Path) -> set[str]:
    """The codes of the mapping that rows of the table carry, or columns of it are called."""
    prefix, rows, found = table.get("prefix", ""), 0, set[str]()
    known = {code for entries in raw["codes"].values() for code in _sources(entries)}
    if "code" not in table:
        columns = _Columns(folder, table["file"])
        return {code for code in known if code.startswith(prefix) and columns.have(code.removeprefix(prefix))}
    for path in find_files(folder, table["file"]):
        for frame in batches(path, (table["code"],), Tally()):
            codes: pl.Series = plain_text(frame[table["code"]]).drop_nulls().unique()
            found |= known & {prefix + code for code in codes.to_list()}
            rows += frame.height
            if rows >= _ROWS_LOOKED_AT:
                return found
    return found
