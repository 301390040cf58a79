"""A draft is tried on the tables that it was made of: tasks that have no two classes give way to some that have."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.core.errors import ConfigError, DataError
from pipeline.ingest.cohort.build import build_cohort
from pipeline.ingest.containers import holder
from pipeline.ingest.drafting.toml_text import toml_text
from pipeline.ingest.engine.event_tables import read_event_tables
from pipeline.ingest.mapping.load import parse_draft
from pipeline.ingest.mapping.tasks import task_of

_MOST_BYTES: Final = 64 << 20
_STEPS: Final = (48, 24, 12, 6)
_LENGTHS: Final = (72, 168, 48, 24, 336)  # hours of stay
_LATER: Final = (("HR", ">", 110), ("HR", ">", 90), ("MAP", "<", 65), ("Lactate", ">", 2), ("Creatinine", ">", 1.5),
                 ("HR", ">", 80))  # fmt: skip
_UNTRIED: Final = "the draft was not tried, since the tables are large: decoct config check run.toml looks at it"

Raw = dict[str, Any]


def tried(raw: Raw, folder: Path, files: list[Path]) -> tuple[Raw, list[str]]:
    """The draft with tasks that can be learnt from these tables, and what was found when it was read.

    A task whose labels are all alike cannot be the first; without any other, the length of stay or a measurement of a
    later day is asked for, by public limits. What fails is told in the words of the reading.
    """
    if sum(holder(path).stat().st_size for path in files) > _MOST_BYTES:
        return raw, [_UNTRIED]
    notes = list[str]()
    good = [name for name in raw["tasks"] if _fault({**raw, "tasks": {name: raw["tasks"][name]}}, folder) is None]
    lost = [name for name in raw["tasks"] if name not in good]
    notes += [f"tasks.{name} is left out: its labels in these tables are all alike or missing" for name in lost if good]
    if good:
        return {**raw, "tasks": {name: raw["tasks"][name] for name in good}}, [*notes, *_steps(raw, folder, good)]
    for other in _others(raw):
        if _fault(other, folder) is None:
            name = next(iter(other["tasks"]))
            gone = f" in place of {', '.join(lost)}, whose labels are all alike or missing" if lost else ""
            return other, [
                *notes,
                f"tasks.{name} is drafted{gone}: say what is to be predicted",
                *_steps(other, folder, [name]),
            ]
    return raw, [*notes, f"this draft does not read these tables yet: {_fault(raw, folder)}"]


def _steps(raw: Raw, folder: Path, names: list[str]) -> list[str]:
    tasks = {name: raw["tasks"][name] for name in names}
    steps = next((n for n in _STEPS if _read({**raw, "tasks": tasks}, folder, n) is None), _STEPS[0])
    return [] if steps == _STEPS[0] else [f"its label windows need cohort.n_steps = {steps} or fewer, of an hour each"]


def _fault(raw: Raw, folder: Path) -> str | None:
    """Why the draft gives no cohort of any of some lengths; None = it gives one."""
    said = None
    for n_steps in _STEPS:
        said = _read(raw, folder, n_steps)
        if said is None or not said.startswith("task "):
            return said
    return said


def _read(raw: Raw, folder: Path, n_steps: int) -> str | None:
    try:
        mapping = parse_draft(toml_text(raw))
        if not mapping.tasks:
            return "it has no task"
        tables = read_event_tables(folder=folder, mapping=mapping)
        split = np.zeros(tables.stays.height, np.int8)
        names = tuple(rule.name for rule in mapping.tasks if task_of(rule).kind == "binary")
        build_cohort(tables, mapping, step_hours=1.0, n_steps=n_steps, tasks=names, split=split)
    except (ConfigError, DataError) as error:
        return str(error)
    return None


def _others(raw: Raw) -> Iterator[Raw]:
    """The draft with other tasks."""
    stays = raw["layout"].get("stays", {})
    if "start" in stays and "end" in stays:
        for hours in _LENGTHS:
            other = copy.deepcopy(raw)
            derived = other["layout"]["stays"].setdefault("derived", {})
            derived["hours_of_stay"] = {"kind": "hours_between", "from": stays["start"], "to": stays["end"]}
            task: Raw = {"kind": "column", "column": "hours_of_stay", "op": ">", "threshold": hours}
            yield {**other, "tasks": {f"longer_than_{hours}_h": task}}
    for after in _STEPS:
        for name, op, threshold in _LATER:
            if name in raw.get("codes", {}):
                later: Raw = {"kind": "event", "variables": [name], "op": op, "threshold": threshold}
                later |= {"after_hours": after, "to_hours": after + 24}
                yield {**raw, "tasks": {f"{name}_{'above' if op == '>' else 'below'}_{threshold:g}_later": later}}
