"""Columns of a table as channels: numbers in units of the holdout's spread, categories as 0 and 1, gaps marked.

Only the holdout and the real table say what is usual; the shared table, which may be anything, is held against them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import polars as pl

from pipeline.core.errors import DataError

MAX_CATEGORIES: Final = 50  # more of them are names or identifiers, not categories
PLAIN: Final = (0.0, 1.0)  # zero and unit of what is no number of the source
CLIP: Final = 1e9  # standard deviations, for numbers of single precision: another unit is no outlier


def encoded(
    parts: Mapping[str, pl.DataFrame], columns: Sequence[str]
) -> tuple[dict[str, np.ndarray], tuple[str, ...], tuple[np.ndarray, np.ndarray], list[str]]:
    """`(row, channel)` float32 for each table, the channels' names, a column's zero and unit in each, and notes.

    Raises:
        DataError: a category of the shared table that nobody has, too many categories, or nothing that varies.
    """
    pieces: dict[str, list[np.ndarray]] = {role: [] for role in parts}
    channels: list[str] = []
    origins: list[tuple[float, float]] = []
    constant = 0
    for column in columns:
        words = parts["holdout"][column].dtype == pl.String
        found, names, origin = (_one_hot if words else _standardised)({r: f[column] for r, f in parts.items()}, column)
        for index, channel in enumerate(names):
            if all(float(np.ptp(found[role][:, index])) == 0 for role in ("real", "holdout")):
                constant += 1
                continue
            channels.append(channel)
            origins.append(origin if index == 0 else PLAIN)  # what follows a number tells where it is missing
            for role in parts:
                pieces[role].append(found[role][:, index])
    if not channels:
        raise DataError("no column of the real table and the holdout varies")
    matrices = {role: np.stack(columns_, axis=1).astype(np.float32) for role, columns_ in pieces.items()}
    notes = [f"{constant} columns that never vary were left out"] if constant else []
    zero, unit = np.array(origins, np.float32).T
    return matrices, tuple(channels), (zero, unit), notes


def _standardised(
    values: Mapping[str, pl.Series], name: str
) -> tuple[dict[str, np.ndarray], list[str], tuple[float, float]]:
    raw = {role: column.to_numpy().astype(np.float64) for role, column in values.items()}
    known = raw["holdout"][np.isfinite(raw["holdout"])]
    if not known.size:
        raise DataError(f"column {name} has no value in the holdout")
    centre, spread = float(np.median(known)), float(known.std())
    gaps = any(not np.isfinite(column).all() for column in raw.values())
    found = {}
    for role, column in raw.items():
        missing = ~np.isfinite(column)
        scaled = np.clip((np.where(missing, centre, column) - centre) / (spread or 1.0), -CLIP, CLIP)
        found[role] = np.stack([scaled, missing], axis=1) if gaps else scaled[:, None]
    wide = spread or 1.0
    return found, [name, f"{name} missing"] if gaps else [name], (-centre / wide, wide)


def _one_hot(
    values: Mapping[str, pl.Series], name: str
) -> tuple[dict[str, np.ndarray], list[str], tuple[float, float]]:
    """0 and 1 for every category, one column where there are two; a gap is a category of its own."""
    text = {role: ["\x00" if value is None else value for value in column.to_list()] for role, column in values.items()}
    known = sorted(set(text["real"]) | set(text["holdout"]))
    unseen = set(text["shared"]) - set(known)
    if unseen:
        rows = sum(value in unseen for value in text["shared"])
        raise DataError(
            f"column {name} has {len(unseen)} categories in {rows} shared rows that neither real table nor holdout has"
        )
    if len(known) > MAX_CATEGORIES:
        raise DataError(
            f"column {name} has {len(known)} categories, more than {MAX_CATEGORIES}: group them or leave the column out"
        )
    kept = known[1:] if len(known) == 2 else known
    place = {value: index for index, value in enumerate(kept)}
    found = {}
    for role, entries in text.items():
        matrix = np.zeros((len(entries), len(kept)))
        for row, value in enumerate(entries):
            if value in place:
                matrix[row, place[value]] = 1.0
        found[role] = matrix
    return found, [f"{name}, category {index + 1}" for index in range(len(kept))], PLAIN
