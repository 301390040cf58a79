"""Which files of a folder are a table, by the name that a layout gives it; and which files no layout names."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from pipeline.core.errors import DataError
from pipeline.ingest.containers import CONTAINERS, holder, is_container, tables_in
from pipeline.ingest.mapping.layout import Layout

SUFFIXES: Final = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".psv", ".psv.gz")
_NAMED_SUFFIXES: Final = (*SUFFIXES, ".txt", ".txt.gz")  # a text file is a table only where it is named
_UNREADABLE: Final = {
    ".7z": "such archives are not read; unpack it",
    ".rar": "such archives are not read; unpack it",
    ".sas7bdat": "SAS files are not read; write it as CSV or parquet",
    ".dta": "Stata files are not read; write it as CSV or parquet",
    ".feather": "feather files are not read; write it as parquet",
    ".json": "JSON is not read; write it as CSV or parquet",
}
_SHOWN: Final = 10


def find_files(folder: Path, pattern: str, *, optional: bool = False) -> list[Path]:
    """The files that `pattern` names under `folder`: a file with or without suffix, a folder of shards, or a glob.

    An archive or a workbook is a folder, too; by its own name it is the one table that it holds.

    Raises:
        DataError: there is none, and it is not `optional`; or the name fits several tables.
    """
    if any(char in pattern for char in "*?["):
        found = sorted(path for path in folder.glob(pattern) if _is_table(path))
    else:
        found = _named(folder, pattern)
    if not found and not optional:
        raise DataError(
            f"{folder.name} holds no table {pattern} ({', '.join(_NAMED_SUFFIXES)}){_beside(folder, pattern)}"
        )
    _refuse_twins(folder, found)
    return found


def layout_files(folder: Path, layout: Layout) -> list[Path]:
    """Every file that the layout reads under `folder`, each once, in order.

    Raises:
        DataError: one of them is not there.
    """
    patterns = [join.file for join in layout.stays.joins]
    patterns += [] if layout.stays.file is None else [layout.stays.file]
    events = [path for table in layout.events for path in find_files(folder, table.file, optional=table.optional)]
    return sorted({*events, *(path for pattern in patterns for path in find_files(folder, pattern))})


def _refuse_twins(folder: Path, found: list[Path]) -> None:
    """Raise `DataError` where two files of a table are one in two formats."""
    seen: dict[tuple[Path, str], str] = {}
    for path in found:
        other = seen.setdefault((path.parent, stem(path).lower()), path.name)
        if other != path.name:
            raise DataError(f"{folder.name}: {other} and {path.name} lie in one folder under one name; leave one")


def tables_under(folder: Path) -> list[Path]:
    """All tables in a folder and the folders in it, linked ones, too; in order."""
    return sorted(path for path in files_under(folder) if _is_table(path))


def files_under(folder: Path) -> list[Path]:
    """All files in a folder and the folders in it, linked ones, too, without hidden ones; in order."""
    found, seen = list[Path](), set[str]()
    for here, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if real not in seen else []
        found += [Path(here, name) for name in names if not name.startswith(".")] if real not in seen else []
        seen.add(real)
    return sorted(found)


def unread_note(folder: Path, read: Iterable[Path]) -> tuple[str, ...]:
    """A sentence that names the files under `folder` that are not among those read; none where all are."""
    plainly = {holder(path) for path in read}
    unread = [path for path in files_under(folder) if path not in plainly]
    known = {path.resolve() for path in plainly} if unread else set()
    unread = [path for path in unread if path.resolve() not in known]
    if not unread:
        return ()
    shown = ", ".join(path.relative_to(folder).as_posix() for path in unread[:_SHOWN])
    more = f" and {len(unread) - _SHOWN} more" if len(unread) > _SHOWN else ""
    return (f"{len(unread)} files of the folder were not read: {shown}{more}",)


def stem(path: Path) -> str:
    """The file's name without any of the known suffixes."""
    lower = path.name.lower()
    return next((path.name[: -len(end)] for end in _NAMED_SUFFIXES[::-1] if lower.endswith(end)), path.name)


def partitions(path: Path) -> dict[str, str]:
    """Columns that the folders above a file name: `code=hr/part-0.parquet`."""
    named = [part.split("=", 1) for part in path.parts[:-1] if "=" in part]
    return {name: unquote(value) for name, value in named if name}


def _named(folder: Path, pattern: str) -> list[Path]:
    if pattern in ("", "."):
        return tables_under(folder)
    here = folder
    *above, last = Path(pattern).parts
    for part in above:
        inside = _children(here, (part,))
        here = inside[0] if inside else here / part
    if is_container(holder(here)):
        return _children(here, (last, *(last + suffix for suffix in _NAMED_SUFFIXES)))
    every = (*_NAMED_SUFFIXES, *CONTAINERS)
    exact = [path for path in _children(here, (last,)) if path.is_dir() or _is_table(path, every)]
    found = exact or _children(here, tuple(last + suffix for suffix in every))
    if exact and exact[0].is_dir():
        found += [path for path in _children(here, tuple(last + suffix for suffix in SUFFIXES)) if path.is_file()]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{folder.name}: the table {pattern} is there {len(found)} times ({names}); leave one")
    if found and found[0].is_dir():
        return tables_under(found[0])
    if found and is_container(found[0]):
        return _only_table(found[0])
    return [path for path in found if _is_table(path, _NAMED_SUFFIXES)]


def _only_table(container: Path) -> list[Path]:
    inside = tables_in(container, _NAMED_SUFFIXES)
    if len(inside) != 1:
        names = ", ".join(path.relative_to(container).as_posix() for path in inside[:_SHOWN])
        what = f"{len(inside)} tables ({names})" if inside else "no table"
        raise DataError(f'{container} holds {what}; name one: file = "{container.name}/NAME"')
    return inside


def _children(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """What lies in a folder under one of the names, in any case."""
    wanted, container = {name.lower() for name in names}, holder(folder)
    if is_container(container):
        depth = len(folder.parts)
        inside = [path for path in tables_in(container, _NAMED_SUFFIXES) if path.parts[:depth] == folder.parts]
        lying = dict.fromkeys(Path(*path.parts[: depth + 1]) for path in inside)
    else:
        lying = dict.fromkeys(sorted(folder.iterdir()) if folder.is_dir() else ())
    return [path for path in lying if path.name.lower() in wanted]


def _beside(folder: Path, pattern: str) -> str:
    """What lies there under the table's name and is not read."""
    name = Path(pattern).name.lower()
    for path in files_under(folder):
        why = _UNREADABLE.get(path.suffix.lower())
        if why is not None and path.stem.lower() == name:
            return f"; {path.name} lies there, but {why}"
    return ""


def _is_table(path: Path, suffixes: tuple[str, ...] = SUFFIXES) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.name.lower().endswith(suffixes)
