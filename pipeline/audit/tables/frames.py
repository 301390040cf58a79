"""A table in memory, of whichever library, as the frame that the audit reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from pipeline.core.errors import DataError


def frame_of(table: Any, role: str) -> pl.DataFrame:
    """A polars or pandas frame, an arrow table, or an array `(row, column)`, whose columns are then column_0, ...

    The index of a pandas frame is no column; `reset_index()` makes it one.

    Raises:
        DataError: none of these, or columns of kinds that no table file could hold; names the role, never a value.
    """
    if isinstance(table, pl.DataFrame):
        return table
    if isinstance(table, pl.LazyFrame):
        return table.collect()
    try:
        if isinstance(table, np.ndarray):
            if table.ndim != 2:
                raise DataError(f"the {role} table is an array of {table.ndim} axes; (row, column) is needed")
            return pl.from_numpy(table, schema=[f"column_{number}" for number in range(table.shape[1])])
        if hasattr(table, "__arrow_c_stream__"):
            return pl.DataFrame(table)
        import pandas as pd

        if isinstance(table, pd.DataFrame):
            return pl.from_pandas(table)
    except DataError:
        raise
    except Exception:  # polars', pandas' and Arrow's own errors quote values
        raise DataError(f"the {role} table holds columns that are neither numbers, times nor words") from None
    raise DataError(f"the {role} table is of type {type(table).__name__}: give a pandas or polars frame, or an array")
