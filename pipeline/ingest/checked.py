"""A look at a mapping and at the heads of the files that it names, before any row is read: every fault at once."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from pipeline.core.errors import ConfigError, DataError
from pipeline.ingest.cohort.task_labels import pick_tasks
from pipeline.ingest.engine.batches import FILE_STEM, header
from pipeline.ingest.mapping.layout import ROW_NUMBER, EventsLayout, Layout, StaysLayout
from pipeline.ingest.mapping.load import KEYS, MAPPINGS, SourceMapping, load_mapping
from pipeline.ingest.mapping.toml_table import did_you_mean, id_columns
from pipeline.ingest.table_files import find_files

_OUR_COLUMNS: Final = (ROW_NUMBER, FILE_STEM)


def check_mapping(
    name_or_path: str, *, kind: str, folder: Path | None, tasks: tuple[str, ...], horizon_hours: float
) -> None:
    """Look at the mapping, its tasks and windows; and of source kind "tables" at the files and columns that it names.

    Raises:
        ConfigError: there are faults; the sentence has all that were found, one after the other.
    """
    faults = _unknown_keys(name_or_path)
    mapping = _tried(lambda: load_mapping(name_or_path), faults if not faults else [])
    if mapping is None:
        faults += _unknown_tasks(name_or_path, tasks)
    else:
        _tried(lambda: pick_tasks(mapping, tasks, horizon_hours), faults)
        if kind == "tables" and mapping.layout is None:
            faults.append(f"mapping {mapping.name} has no [layout], so it cannot read tables")
        elif kind == "tables" and folder is not None and mapping.layout is not None:
            faults += _table_faults(mapping, mapping.layout, folder)
    if faults:
        raise ConfigError("; ".join(dict.fromkeys(faults)))


def _tried(look: Callable[[], Any], faults: list[str]) -> Any:
    try:
        return look()
    except (ConfigError, DataError) as error:
        faults.append(str(error))
        return None


def _raw(name_or_path: str) -> dict[str, Any]:
    """The mapping's own tables, without a check; {} where it cannot be read, which loading it says."""
    try:
        return tomllib.loads(Path(name_or_path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}


def _unknown_keys(name_or_path: str) -> list[str]:
    raw = _raw(name_or_path)
    strange = sorted(set(raw) - KEYS - {"base"})
    faults = (
        [f"mapping {name_or_path}: unknown key {', '.join(strange)}{did_you_mean(strange, KEYS)}"] if strange else []
    )
    layout = raw.get("layout")
    known = {field for field in Layout.__dataclass_fields__ if field != "inclusion"} | {"units"}
    unknown = sorted(set(layout) - known) if isinstance(layout, dict) else []
    if unknown:
        faults.append(f"mapping {name_or_path}: layout: unknown key {', '.join(unknown)}{did_you_mean(unknown, known)}")
    return faults


def _unknown_tasks(name_or_path: str, tasks: tuple[str, ...]) -> list[str]:
    """Tasks that a mapping with other faults has not, nor its base."""
    raw = _raw(name_or_path)
    base = _raw(str(MAPPINGS / f"{raw.get('base')}.toml"))
    known = raw.get("tasks", base.get("tasks", {}))
    if isinstance(known, dict):  # a time to an event makes further tasks
        known = {**known, **{f"{name}_{part}": {} for name in known for part in ("hours", "observed")}}
    lacking = [task for task in tasks if task not in known] if isinstance(known, dict) else []
    return [f"mapping {name_or_path} has no task {', '.join(lacking)}{did_you_mean(lacking, known)}"] if lacking else []


def _table_faults(mapping: SourceMapping, layout: Layout, folder: Path) -> list[str]:
    if not folder.is_dir():
        return [f"{folder} not found; expected the folder that holds the source's tables"]
    faults = list[str]()
    stays = layout.stays
    wanted = [(stays.file, _of_stays(stays), False, stays.encoding)] if stays.file is not None else []
    wanted += [
        (join.file, {*join.on, *join.columns.values(), *join.where}, False, join.encoding) for join in stays.joins
    ]
    wanted += [(table.file, _of_events(table), table.optional, table.encoding) for table in layout.events]
    for file, columns, optional, encoding in wanted:
        _tried(partial(_require_columns, folder, file, columns, encoding, optional), faults)
    return faults


def _require_columns(folder: Path, file: str, columns: set[str], encoding: str, optional: bool) -> None:
    """Raise `DataError` where the table is not there, cannot be opened or lacks a column."""
    paths = find_files(folder, file, optional=optional)
    names = header(paths[0], encoding) if paths else []
    there = {name.lower() for name in names}
    lacking = sorted(name for name in columns if name.lower() not in there) if paths else []
    if lacking:
        meant = did_you_mean(lacking, names)
        raise DataError(f"{paths[0].name} lacks the column{'s' * (len(lacking) > 1)} {', '.join(lacking)}{meant}")


def _of_stays(stays: StaysLayout) -> set[str]:
    named = {stays.stay, stays.subject, stays.subject_key, stays.start, stays.end, stays.site, stays.unit, stays.split}
    named |= {*stays.where, *(column for item in stays.derived for column in item.columns)}
    joined = {new for join in stays.joins for new in join.columns} | {item.name for item in stays.derived}
    columns = {column for name in named if name is not None for column in id_columns(name)}
    return columns - joined - set(_OUR_COLUMNS)


def _of_events(table: EventsLayout) -> set[str]:
    named = {
        *id_columns(table.key),
        table.time,
        table.clock,
        table.date,
        table.available,
        table.code,
        table.value if table.code else None,
        table.unit,
    }
    return {name for name in named if name} - set(_OUR_COLUMNS)
