"""In which unit the values of a code are, where neither its rows nor its name say so: what their middle suggests.

Only where the variable's own unit cannot be: a middle that is merely unusual may be that of sick people.
"""

from __future__ import annotations

import polars as pl

from pipeline.core.types import Variable
from pipeline.ingest.cohort.doubts.slips import other_units

_FEWEST = 3


def likely_unit(variable: Variable, values: pl.Series) -> str | None:
    """Another unit than the variable's, in which the middle of the values is ordinary, and in its own implausible."""
    middle = values.median() if len(values) >= _FEWEST else None
    if not isinstance(middle, float) or variable.plausible_low <= middle <= variable.plausible_high:
        return None
    for unit, (factor, offset) in other_units(variable):
        if variable.scale_low <= middle * factor + offset <= variable.scale_high:
            return unit
    return None
