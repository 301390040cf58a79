"""The sets that a [condense.NAME] table made, and how they are called where sets stand side by side."""

from __future__ import annotations

from typing import Final

from flows.workspace.job import Job
from pipeline.core.types import CondensedSet
from pipeline.store import Made

OF_TABLE: Final = " / "  # no table's name has it


def condensed_sets(job: Job, made: Made[CondensedSet]) -> tuple[CondensedSet, ...]:
    """All sets of a table: one, or one for each group or task; a loss curve follows each."""
    return tuple(job.only(made, CondensedSet, position) for position in range(0, len(made.digests), 2))


def set_name(table: str, number: int) -> str:
    """How a table's set is called where sets stand side by side: the first has the table's own name."""
    return f"{table}{OF_TABLE}{number + 1}" if number else table


def table_of(name: str) -> str:
    """The table of a `set_name`."""
    return name.split(OF_TABLE)[0]
