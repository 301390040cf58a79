"""What stages hand to one another: the types that tell prepared from encoded, and the several sets of a table."""

from __future__ import annotations

from typing import Final, NewType, final

from flows.workspace.job import Job
from pipeline.core.types import CondensedSet, EncodedCohort
from pipeline.store import Made

OF_TABLE: Final = " / "  # no table's name has it

Prepared = NewType("Prepared", EncodedCohort)
"""Imputed series in [0, 1], still of clinical variables."""
Encoded = NewType("Encoded", EncodedCohort)
"""What an [encode.NAME] table made of them."""


@final
class Candidate:
    """What [release] names, of whichever kind it is: a type for checkers, which nothing is an instance of."""


def condensed_sets(job: Job, made: Made[CondensedSet]) -> tuple[CondensedSet, ...]:
    """All sets of a table: one, or one for each group or task; a loss curve follows each."""
    return tuple(job.only(made, CondensedSet, position) for position in range(0, len(made.digests), 2))


def set_name(table: str, number: int) -> str:
    """How a table's set is called where sets stand side by side: the first has the table's own name."""
    return f"{table}{OF_TABLE}{number + 1}" if number else table


def table_of(name: str) -> str:
    """The table of a `set_name`."""
    return name.split(OF_TABLE)[0]
