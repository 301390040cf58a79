"""The tables of the results that are kept, a page for each: what `make docs` shows under Benchmarks.

Every table is drawn from a JSON of `benchmarks/results` by its shape alone, so that a figure on the page is the figure
in the file: rows that share their keys become a table, a middle with its bounds becomes "middle [low, high]".
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
MAX_ROWS: Final = 20
MAX_COLUMNS: Final = 10
BOUNDS: Final = (("median", "least", "most"), ("median", "min", "max"), ("mean", "min", "max"), ("mean", "low", "high"))
NOT_SHOWN: Final = frozenset({"benchmark", "machine", "versions", "commands"})  # told in words above the tables


def chapters() -> dict[str, str]:
    """Name of a result -> the text of its page."""
    return {file.stem: _chapter(file) for file in sorted((HERE / "results").glob("*.json"))}


def _chapter(file: Path) -> str:
    found = json.loads(file.read_text(encoding="utf-8"))
    script = HERE / f"{file.stem}.py"
    about = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) if script.exists() else None
    lines = [f"# {file.stem.replace('_', ' ')}\n"]
    if about:
        lines.append(about.split("\n\n")[0].replace("\n", " ") + "\n")
    lines.append(f"`benchmarks/results/{file.name}`{_machine(found)}\n")
    lines += _tables({key: value for key, value in found.items() if key not in NOT_SHOWN}, 2)
    return "\n".join(lines)


def _machine(found: Mapping[str, Any]) -> str:
    told = found.get("machine", {})
    versions = {**told.get("versions", {}), **found.get("versions", {})}
    parts = [str(told["cpu"])] if "cpu" in told else []
    parts += [f"{told['cpu_count']} cores"] if "cpu_count" in told else []
    parts += [f"load {told['load_average_1min']}"] if "load_average_1min" in told else []
    parts += [f"{name} {version}" for name, version in versions.items()]
    return ": " + ", ".join(parts) if parts else ""


def _tables(found: Mapping[str, Any], level: int) -> Iterator[str]:
    """Scalars as one table, then a part for each of the rest."""
    scalars = {key: value for key, value in found.items() if _cell(value) is not None}
    if scalars:
        yield from _table("figure", {key: {"value": value} for key, value in scalars.items()})
    for key, value in found.items():
        if key in scalars or not value:
            continue
        yield f"{'#' * min(level, 5)} {_words(key)}\n"
        rows = _rows(value)
        shown = {name: {k: v for k, v in row.items() if _cell(v) is not None} for name, row in rows.items()}
        if any(shown.values()):
            yield from _table("row", {name: row for name, row in shown.items() if row})
            if sum(map(len, shown.values())) < sum(map(len, rows.values())):
                yield "What does not fit into a cell is in the file.\n"
        elif rows and level < 3:
            yield from _tables(value if isinstance(value, Mapping) else rows, level + 1)
        else:
            yield f"{len(value)} entries: see the file.\n"


def _rows(value: Any) -> dict[str, dict[str, Any]]:
    """Name -> columns, of a mapping or a list of mappings; empty where there are no such rows."""
    named = value.items() if isinstance(value, Mapping) else ((number, item) for number, item in enumerate(value, 1))
    rows: dict[str, dict[str, Any]] = {}
    for name, item in named:
        parts = item if isinstance(item, list) and all(isinstance(part, Mapping) for part in item) else [item]
        for number, part in enumerate(parts, 1):
            key = str(name) if len(parts) == 1 else f"{name} ({number})"
            rows[key] = dict(part) if isinstance(part, Mapping) and _cell(part) is None else {"value": part}
    return rows


def _table(corner: str, rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    shown, left = columns[:MAX_COLUMNS], len(columns) - MAX_COLUMNS
    yield f"| {corner} | " + " | ".join(_words(column) for column in shown) + " |"
    yield "|---" * (len(shown) + 1) + "|"
    for name, row in list(rows.items())[:MAX_ROWS]:
        cells = [_cell(row[column]) or "" if column in row else "" for column in shown]
        yield f"| {_words(name)} | " + " | ".join(cells) + " |"
    more = [f"{len(rows) - MAX_ROWS} more rows"] if len(rows) > MAX_ROWS else []
    more += [f"{left} more columns"] if left > 0 else []
    yield f"\n{' and '.join(more)} in the file.\n" if more else ""


def _cell(value: Any) -> str | None:
    """A value in a table's cell; None for what needs a table of its own."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, str):
        return _words(value)
    if isinstance(value, list) and len(value) <= 6 and not any(isinstance(item, (list, Mapping)) for item in value):
        cells = [str(_cell(item)) for item in value]
        if len(value) == 3 and all(isinstance(item, float) for item in value) and value[1] <= value[0] <= value[2]:
            return f"{cells[0]} [{cells[1]}, {cells[2]}]"
        return ", ".join(cells)
    for middle, low, high in BOUNDS:
        if isinstance(value, Mapping) and {middle, low, high} <= set(value) and len(value) <= 4:
            return f"{_cell(value[middle])} [{_cell(value[low])}, {_cell(value[high])}]"
    return None


def _words(text: str) -> str:
    return str(text).replace("_", " ").replace("|", "\\|").replace("\n", " ")
