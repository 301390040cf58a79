"""Train, tuning and held-out parts, always by subject."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import polars as pl

from pipeline.core.errors import DataError
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import Split
from pipeline.ingest.source_tables import SourceTables

START: Final = "(start)"
"""The column of the table of stays that says when each began: microseconds since 1970 in UTC."""

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


def site_split(tables: SourceTables, tuning_sites: Sequence[str], held_out_sites: Sequence[str]) -> np.ndarray:
    """By the stays' site, `(stay,)` int8: a subject with stays at several sites goes to the most held-out part of them.

    Raises:
        DataError: the source has no sites, a stay has none, or a named site has no stay.
    """
    stays = tables.stays
    if "site" not in stays.columns:
        raise DataError(f"{tables.source}: the split is by site, but the mapping's layout names no column of sites")
    if stays["site"].null_count():
        raise DataError(f"{tables.source}: {stays['site'].null_count()} stays have no site")
    named = {*tuning_sites, *held_out_sites}
    absent = len(named - set(stays["site"].unique().to_list()))
    if absent:
        raise DataError(f"{tables.source}: {absent} of the {len(named)} sites named in the split have no stay")
    part = (
        pl.when(pl.col("site").is_in(list(held_out_sites)))
        .then(pl.lit(int(Split.HELD_OUT)))
        .when(pl.col("site").is_in(list(tuning_sites)))
        .then(pl.lit(int(Split.TUNING)))
        .otherwise(pl.lit(int(Split.TRAIN)))
    )
    return stays.select(part.max().over("subject_id").cast(pl.Int8)).to_series().to_numpy()


def with_tuning(part: np.ndarray, hashed: np.ndarray) -> np.ndarray:
    """`part` `(stay,)` with those of its training stays in the tuning part that are so in `hashed`; both by subject."""
    moved = (part == int(Split.TRAIN)) & (hashed == int(Split.TUNING))
    return np.where(moved, np.int8(int(Split.TUNING)), part).astype(np.int8)


def time_split(tables: SourceTables, tuning: float, held_out: float) -> np.ndarray:
    """By the start of each subject's latest stay, `(stay,)` int8: the latest subjects are held out, before them tuning.

    So no training stay began after a held-out subject's latest stay; subjects of the same start stay together.

    Raises:
        DataError: the source has no starts.
    """
    stays = tables.stays
    if START not in stays.columns or stays[START].null_count():
        raise DataError(f"{tables.source}: the split is by time, but the source does not say when stays began")
    latest = stays.group_by("subject_id").agg(pl.col(START).max())
    rank = (pl.col(START).rank("max") / pl.len()).alias("share")  # equal starts get the same, later, share
    part = (
        pl.when(pl.col("share") > 1 - held_out)
        .then(pl.lit(int(Split.HELD_OUT)))
        .when(pl.col("share") > 1 - held_out - tuning)
        .then(pl.lit(int(Split.TUNING)))
        .otherwise(pl.lit(int(Split.TRAIN)))
    )
    parts = latest.with_columns(rank).select("subject_id", part.cast(pl.Int8).alias("part"))
    return stays.join(parts, on="subject_id", how="left", maintain_order="left")["part"].to_numpy()


def _uniform(key: Secret, subject: str) -> float:
    return int.from_bytes(key.derive(f"split/{subject}")[:8], "big") / 2.0**64
