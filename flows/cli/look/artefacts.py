"""The artefacts of a workspace as a person looks for them: by name, run, date and size."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from flows.workspace.logs import PREFIX, read_log
from pipeline.core.wording import in_columns
from pipeline.store import Store

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")

Data = dict[str, Any]


def artefacts(workspace: Path, store: Store) -> list[Data]:
    """Every artefact; `name` is the stage that made it first, `made` the time, by the runs' logs ("" = not there)."""
    known: dict[str, tuple[str, str, str]] = {}
    for folder in sorted((workspace / "runs").glob("*")):
        for line in read_log(folder):
            for digest in line.get("digests") or ():
                found = (str(line.get("time", "")), folder.name, str(line.get("stage", "")))
                known[digest[:PREFIX]] = min(found, known.get(digest[:PREFIX], found))
    rows = []
    for entry in store.entries():
        made, run, name = known.get(entry.digest[:PREFIX], ("", "", ""))
        told = {"name": name, "run": run, "made": made, "kind": entry.kind}
        rows.append({"digest": entry.digest, **told, "bytes": entry.size_bytes})
    return sorted(rows, key=lambda row: (row["made"], row["digest"]))


def table(rows: list[Data]) -> str:
    """The rows with a header, sizes in units."""
    cells = [["digest", "name", "run", "made (UTC)", "kind", "size"]]
    for row in rows:
        made = row["made"][:16].replace("T", " ") or "-"
        cells.append(
            [row["digest"][:PREFIX], row["name"] or "-", row["run"] or "-", made, row["kind"], size(row["bytes"])]
        )
    return "\n".join(in_columns(cells))


def size(n_bytes: int) -> str:
    """Three digits and a unit."""
    value, place = float(n_bytes), 0
    while value >= 1000 and place < len(_UNITS) - 1:
        value, place = value / 1024, place + 1
    return f"{value:.3g} {_UNITS[place]}"
