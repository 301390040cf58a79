"""The mapping by which a cohort that was written as MEDS is read again: names, public constants, files; no values."""

from __future__ import annotations

import json
import re
from typing import Final

from pipeline.core.types import Cohort, ScoreItem, StaticVariable, Task, Variable
from pipeline.ingest.mapping.score_items import KEY

STATIC_PREFIX: Final = "STATIC//"

_HEAD: Final = """# Written with the MEDS folder around it: how Decoct reads these events again.
description = "a Decoct cohort, written as MEDS"
unknown_variables = "drop"

[layout]
drop_duplicates = false

[layout.stays]
file = "metadata/stays"
stay = "stay_id"
{subject}{site}subject_key = "subject_id"
start = "start"
end = "prediction_time"
split = "split"

[[layout.stays.join]]
file = "metadata/subject_splits"
on = ["subject_id"]
columns = {{ split = "split" }}
"""
_EVENTS: Final = """
[[layout.events]]
file = "data"
link = "subject"
key = "subject_id"
time = "time"
code = "code"
value = "numeric_value"
"""


def label_file(task: str) -> str:
    """Where a task's labels lie: its name, with what a path cannot hold replaced."""
    return f"labels/{re.sub(r'[^A-Za-z0-9._-]', '_', task)}/0.parquet"


def mapping_toml(cohort: Cohort) -> str:
    """The text of the mapping; every variable optional, since a part of a cohort may lack one."""
    known = cohort.subjects_known
    site = "" if cohort.sites is None else 'site = "site"\n'
    parts = [_HEAD.format(subject='subject = "subject"\n' if known else "", site=site)]
    for task in cohort.tasks:
        columns = f'{{ {_text("label/" + task.name)} = "boolean_value" }}'
        join = f'on = ["subject_id", "prediction_time"]\ncolumns = {columns}\n'
        parts.append(f"\n[[layout.stays.join]]\nfile = {_text(label_file(task.name))}\n{join}")
    parts.append(_EVENTS)
    parts.append("\n[variables]\n" + "".join(_series(variable) for variable in cohort.variables))
    parts.append("\n[statics]\n" + "".join(_static(static) for static in cohort.static_variables))
    tasks = (
        f'{_text(task.name)} = {{ kind = "binary", column = {_text("label/" + task.name)}, '
        f"description = {_text(task.description)}{_score(task)} }}\n"
        for task in cohort.tasks
    )
    return "".join((*parts, "\n[tasks]\n", *tasks))


def _score(task: Task) -> str:
    """What the task's score reads; what is as by default is not written."""
    bare = ScoreItem("")
    items = []
    for item in task.score_items:
        chosen = {key: getattr(item, key) for key in ("statistic", "window", "side")}
        said = {"variable": item.variable, **{key: text for key, text in chosen.items() if text != getattr(bare, key)}}
        items.append("{ " + ", ".join(f"{key} = {_text(text)}" for key, text in said.items()) + " }")
    return f", {KEY} = [{', '.join(items)}]" if items else ""


def _series(variable: Variable) -> str:
    return f"{_text(variable.name)} = {{ {_constants(variable)}, aggregation = {_text(variable.aggregation)} }}\n"


def _static(static: StaticVariable) -> str:
    codes = ", ".join(f"{code} = {_text(label)}" for code, label in static.categories)
    categories = f", categories = {{ {codes} }}" if codes else ""
    source = f", source = {_text(STATIC_PREFIX + static.name)}"
    return f"{_text(static.name)} = {{ {_constants(static)}{source}{categories} }}\n"


def _constants(item: Variable | StaticVariable) -> str:
    return (
        f"unit = {_text(item.unit)}, plausible = [{item.plausible_low!r}, {item.plausible_high!r}], "
        f"scale = [{item.scale_low!r}, {item.scale_high!r}], normal = {item.normal!r}, optional = true"
    )


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
