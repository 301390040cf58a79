"""Train, tuning and held-out parts, always by subject."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import polars as pl

from pipeline.core.errors import DataError
from pipeline.core.secrets import Secret
from pipeline.core.types import Split
from pipeline.ingest.tables import SourceTables

SplitRule = Callable[[np.ndarray], np.ndarray]
"""From subject ids `(stay,)` to `Split` values `(stay,)`."""

_NAMES: Final = {"train": Split.TRAIN, "tuning": Split.TUNING, "held_out": Split.HELD_OUT}


def keyed_hash_split(subject_ids: np.ndarray, key: Secret, tuning: float, held_out: float) -> np.ndarray:
    """Each subject's part by a keyed hash of the id under `key`: `(stay,)` int8.

    A subject's part depends on nothing but the id and the key, so adding or removing a person moves nobody else.
    """
    subjects, index = np.unique(subject_ids, return_inverse=True)
    uniform = np.array([_uniform(key, str(subject)) for subject in subjects])
    part = np.full(len(subjects), Split.TRAIN, dtype=np.int8)
    part[uniform < held_out + tuning] = Split.TUNING
    part[uniform < held_out] = Split.HELD_OUT
    return part[index]


def given_split(tables: SourceTables) -> np.ndarray:
    """The split column of the table of stays: `(stay,)` int8.

    Raises:
        DataError: no such column, a name other than train, tuning or held_out, or a subject in two parts.
    """
    stays = tables.stays
    if "split" not in stays.columns:
        raise DataError(f"{tables.source}: the split is to be given, but the table of stays has no split column")
    codes = stays["split"].replace_strict(
        list(_NAMES), [int(split) for split in _NAMES.values()], default=None, return_dtype=pl.Int8
    )
    if codes.null_count():
        raise DataError(
            f"{tables.source}: {codes.null_count()} stays have a split other than {', '.join(_NAMES)} (MEDS's names)"
        )
    parts = stays.group_by("subject_id").agg(parts=pl.col("split").n_unique())
    several = int((parts["parts"] > 1).sum())
    if several:
        raise DataError(f"{tables.source}: {several} subjects appear in more than one split; splits are by subject")
    return codes.to_numpy().astype(np.int8)


def _uniform(key: Secret, subject: str) -> float:
    return int.from_bytes(key.derive(f"split/{subject}")[:8], "big") / 2.0**64
