"""A source in blocks of stays, so that a cohort is built, and its events are checked, without holding all of them.

Events that a reader has in memory are cut up here; those that it has spilled are taken from the disk block by block.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl

from pipeline.ingest.kept.spilled import BLOCK_STAYS
from pipeline.ingest.source_tables import SourceTables

_COUNTED: Final = re.compile(r"(\d+) (.*)", re.DOTALL)


def stay_blocks(tables: SourceTables, size: int | None = None) -> Iterator[tuple[slice, SourceTables]]:
    """Which stays, and the source as if it held no others: `size` (None = `BLOCK_STAYS`) stays at a time.

    A block's rows read are its events; what the reader dropped, and its notes, are told of the whole source alone.
    Spilled rows come in the blocks that they were spilled in.
    """
    size = BLOCK_STAYS if size is None else size
    n_stays = tables.stays.height
    if tables.spilled is not None:
        for number, stays in enumerate(_slices(n_stays, tables.spilled.size)):
            rows = tables.spilled.block(number)
            yield stays, _part(tables, stays, rows.drop("row"), rows["row"].to_numpy())
        return
    if n_stays <= size:
        yield slice(0, n_stays), _part(tables, slice(0, n_stays), tables.events, None)
        return
    stay = tables.events["stay_id"]
    if stay.dtype != pl.Enum(tables.stays["stay_id"]):
        stay = stay.cast(pl.Enum(tables.stays["stay_id"]))
    codes = stay.to_physical().to_numpy()
    blocks = codes // size
    in_order = bool((blocks[1:] >= blocks[:-1]).all())  # as most sources are: then nothing needs to be copied
    order = None if in_order else np.argsort(blocks, kind="stable")
    edges = np.searchsorted(blocks if order is None else blocks[order], np.arange(-(-n_stays // size) + 1))
    for stays, (first, last) in zip(_slices(n_stays, size), pairwise(edges.tolist()), strict=True):
        if order is None:
            events, of_stay = tables.events.slice(first, last - first), codes[first:last]
        else:
            events, of_stay = tables.events[order[first:last]], codes[order[first:last]]
        yield stays, _part(tables, stays, events.drop("stay_id"), of_stay)


def _slices(n_stays: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n_stays)) for start in range(0, n_stays, size)]


def _part(tables: SourceTables, stays: slice, events: pl.DataFrame, rows: np.ndarray | None) -> SourceTables:
    """The source's `stays`; `rows` = which of all stays each event is of, where the events do not say so."""
    table = tables.stays.slice(stays.start, stays.stop - stays.start)
    if rows is not None:
        codes = pl.Series("stay_id", rows.astype(np.uint32) - np.uint32(stays.start))
        events = events.insert_column(0, codes.cat.to(pl.Enum(table["stay_id"])))
    return replace(
        tables,
        events=events,
        spilled=None,
        stays=table,
        rows_read=events.height,
        rows_dropped={},
        dropped_by_variable={},
        notes=(),
    )


def added_up(notes: Iterable[str]) -> tuple[str, ...]:
    """Notes of blocks that begin with a count and go on alike, as one with the sum; others once; in first order."""
    counts: dict[str, int | None] = {}
    for note in notes:
        told = _COUNTED.fullmatch(note)
        if told is None:
            counts.setdefault(note, None)
        else:
            counts[told[2]] = (counts.get(told[2]) or 0) + int(told[1])
    return tuple(text if rows is None else f"{rows} {text}" for text, rows in counts.items())
