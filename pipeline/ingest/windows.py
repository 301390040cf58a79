"""What lies in a window of time: from its begin on, and before its end."""

from __future__ import annotations

from typing import Final

import numpy as np

TIME_TOLERANCE_HOURS: Final = 1e-9
"""Minutes divided by 60 do not land exactly on a step's edge; this much below the edge counts as on it."""

LENGTH: Final = "(length)"
"""The column of the table of stays with the hours from start to end, where predictions or times to events need it."""

FROM_START: Final = "hours_from_start"
TO_END: Final = "hours_to_end"
"""Columns of the windows that labels and statics may name: the prediction time, and what is left of the stay then."""


def before(hours: np.ndarray, end_hours: float, *, closed: bool) -> np.ndarray:
    """Which times `(event,)` come before the end of a window, or with `closed` at exactly its end."""
    tolerance = TIME_TOLERANCE_HOURS if closed else -TIME_TOLERANCE_HOURS
    found: np.ndarray = hours <= end_hours + tolerance
    return found
