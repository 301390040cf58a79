"""Long events -> a cohort on a regular grid, with its labels and split, and a report of where every row went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.files.mapped import new_array
from pipeline.core.types import Cohort, IngestReport, Provenance, Split, StaticVariable, Variable
from pipeline.ingest.cohort.doubts.look import Doubts
from pipeline.ingest.cohort.events import USED, FlatEvents, flatten
from pipeline.ingest.cohort.grid import step_of, to_grid
from pipeline.ingest.cohort.prediction_windows import prediction_windows, window_blocks
from pipeline.ingest.cohort.row_report import RowAccount, dropped_rows, report_rows
from pipeline.ingest.cohort.statics import column_notes, static_values
from pipeline.ingest.cohort.stay_blocks import added_up, stay_blocks
from pipeline.ingest.cohort.task_labels import fill_labels, labels_of_stays, pick_tasks
from pipeline.ingest.mapping.label_source import TaskRule
from pipeline.ingest.mapping.load import SourceMapping
from pipeline.ingest.mapping.tasks import task_of
from pipeline.ingest.source_tables import CountsByVariable, SourceTables
from pipeline.ingest.splits import SplitRule

_GRID_STAYS: Final = 256
"""Stays gridded at a time: small enough that memory is used again and stays in the cache."""


def build_cohort(
    tables: SourceTables,
    mapping: SourceMapping,
    *,
    step_hours: float,
    n_steps: int,
    tasks: tuple[str, ...] = (),
    split: np.ndarray | SplitRule,
    scratch: Path | None = None,
) -> tuple[Cohort, IngestReport]:
    """Grid, labels and split of a source; stays in the order of `tables.stays`, those without a series kept.

    `tasks` picks and orders the mapping's tasks (() = all); the first defines the classes. `split` is `(stay,)` int8 in
    the order of `tables.stays`, or a rule from subject ids. Values are held in single precision from here on; a cell is
    the aggregation of its plausible events. What happens at exactly the end of the input comes after it, unless the
    mapping says `window = "closed"`.

    Stays are taken in blocks: with `scratch`, a folder for the grid where it is large, what is held in memory grows
    with the stays by their ids, statics and labels alone.

    Raises:
        ConfigError: a task that the mapping lacks, an empty grid, or a label window that begins within the input.
        DataError: an unknown or never observed variable, a broken label column, or a single class in the first task.
    """
    if step_hours <= 0 or n_steps < 1:
        raise ConfigError("the grid needs step_hours > 0 and n_steps >= 1")
    horizon = step_hours * n_steps
    rules = pick_tasks(mapping, tasks, horizon)
    _refuse_strangers(tables, mapping, step_hours, n_steps)
    notes = column_notes(tables, mapping)
    account = RowAccount(rows_read=tables.rows_read)
    tables, blocks, split = _windowed(tables, mapping, rules, horizon, split, account)
    shape = (tables.stays.height, n_steps, len(mapping.variables))
    values, observed = new_array(shape, np.float32, scratch), new_array(shape, np.bool_, scratch)
    static = np.zeros((shape[0], len(mapping.static_variables)), np.float32)
    labels, clipped = labels_of_stays(rules, tables)
    doubts, label_notes = Doubts(mapping, tables.stays), list[str]()
    for stays, part in blocks:
        step = step_of(part.events["hours"].to_numpy(), step_hours, n_steps, closed=mapping.closed_window)
        events = flatten(part, mapping, step, horizon)
        _fill_series(values[stays], events, mapping, step)
        observed[stays] = np.isfinite(values[stays])
        static[stays] = static_values(part, mapping, events)
        doubts.add(stays, events, values[stays])
        label_notes += fill_labels(labels[stays], rules, part, mapping, events)
        account.add(events, mapping)
    subject_ids = tables.stays["subject_id"].to_numpy().astype(str)
    cohort = Cohort(
        values=values,
        observed=observed,
        static=static,
        labels=labels,
        stay_ids=tables.stays["stay_id"].to_numpy().astype(str),
        subject_ids=subject_ids,
        split=_split(split(subject_ids) if callable(split) else split, tables.source),
        variables=mapping.variables,
        static_variables=mapping.static_variables,
        tasks=tuple(replace(task_of(rule), score_items=mapping.score_items.get(rule.name, ())) for rule in rules),
        step_hours=float(step_hours),
        provenance=_provenance(tables, mapping, rules, step_hours, n_steps),
        subjects_known=tables.subjects_known,
        sites=_sites(tables),
    )
    _check(cohort, mapping, tables, dropped_rows(tables, mapping, account))
    notes = (*tables.notes, *doubts.notes(cohort), *notes, *added_up(label_notes), *clipped)
    return cohort, report_rows(cohort, tables, mapping, account, notes)


def _windowed(
    tables: SourceTables,
    mapping: SourceMapping,
    rules: tuple[TaskRule, ...],
    horizon_hours: float,
    split: np.ndarray | SplitRule,
    account: RowAccount,
) -> tuple[SourceTables, Iterator[tuple[slice, SourceTables]], np.ndarray | SplitRule]:
    """The source, its blocks and its split by stay; or by prediction time, where the mapping asks for several."""
    ahead = max([horizon_hours, *(to for rule in rules for _, _, to in rule.windows)]) - horizon_hours
    windows = prediction_windows(tables, mapping, horizon_hours, ahead)
    if windows is None:
        return tables, stay_blocks(tables), split

    def blocks() -> Iterator[tuple[slice, SourceTables]]:
        for stays, part, copies, lost in window_blocks(tables, mapping, windows):
            account.copies += copies
            for name, rows in lost.items():
                account.lost[name] = account.lost.get(name, 0) + rows
            yield stays, part

    of_windows = replace(
        tables,
        events=tables.events.clear(),
        spilled=None,
        stays=windows.stays,
        rows_read=sum(tables.rows_dropped.values()),
        notes=(*tables.notes, *windows.notes),
    )
    return of_windows, blocks(), split if callable(split) else np.asarray(split)[windows.of]


def _refuse_strangers(tables: SourceTables, mapping: SourceMapping, step_hours: float, n_steps: int) -> None:
    """Names that the mapping does not know are told with the count of all their rows, not of a block's.

    What a reader has spilled it has looked at by the mapping already.
    """
    if mapping.unknown_variables == "error" and isinstance(tables.events, pl.DataFrame):
        known = {**mapping.source_names, **mapping.static_sources}
        if not set(tables.events["variable"].unique().to_list()) <= set(known):
            flatten(tables, mapping, step_of(tables.events["hours"].to_numpy(), step_hours, n_steps))


def _fill_series(values: np.ndarray, events: FlatEvents, mapping: SourceMapping, step: np.ndarray) -> None:
    """Fill the grid `(stay, step, variable)`, a few stays at a time."""
    n_stays, _, n_series = values.shape
    aggregations = tuple(variable.aggregation for variable in mapping.variables)
    in_order = bool((events.stay[1:] >= events.stay[:-1]).all())
    rows = np.arange(len(events.stay)) if in_order else np.argsort(events.stay, kind="stable")
    edges = np.searchsorted(events.stay[rows], np.arange(0, n_stays + _GRID_STAYS, _GRID_STAYS))
    for block, (first, last) in enumerate(pairwise(edges)):
        start = block * _GRID_STAYS
        used = rows[first:last]
        used = used[(events.fate[used] == USED) & (events.name[used] < n_series)]
        part = values[start : start + _GRID_STAYS]
        part[...] = to_grid(
            events.stay[used] - start,
            step[used],
            events.name[used],
            events.hours[used],
            events.value[used],
            aggregations,
            part.shape,
        )


def _sites(tables: SourceTables) -> np.ndarray | None:
    if "site" not in tables.stays.columns:
        return None
    return tables.stays["site"].cast(pl.String).fill_null("").to_numpy().astype(str)


def _split(split: np.ndarray, source: str) -> np.ndarray:
    parts = np.asarray(split)
    if parts.dtype.kind not in "iu" or not np.isin(parts, [int(part) for part in Split]).all():
        raise DataError(f"{source}: the split must be whole numbers 0 (train), 1 (tuning) or 2 (held_out)")
    return parts.astype(np.int8)


def _provenance(
    tables: SourceTables, mapping: SourceMapping, rules: tuple[TaskRule, ...], step_hours: float, n_steps: int
) -> Provenance:
    config = {
        "source": tables.source,
        "mapping": mapping.name,
        "mapping_digest": mapping.digest,
        "step_hours": float(step_hours),
        "n_steps": n_steps,
        "tasks": [rule.name for rule in rules],
    }
    return Provenance(stage="ingest", config=config)


def _check(cohort: Cohort, mapping: SourceMapping, tables: SourceTables, dropped: CountsByVariable) -> None:
    source, joined = tables.source, [note for note in tables.notes if "name no stay" in note]
    seen = [*np.any(cohort.observed, axis=(0, 1)).tolist(), *np.any(np.isfinite(cohort.static), axis=0).tolist()]
    rows: tuple[Variable | StaticVariable, ...] = (*cohort.variables, *cohort.static_variables)
    never = [row.name for row, any_seen in zip(rows, seen, strict=True) if not any_seen]
    never = [name for name in never if name not in mapping.optional]
    if never:
        lost = "; ".join(
            f"of {name} were dropped {', '.join(f'{rows} {why}' for why, rows in dropped[name].items())}"
            for name in never
            if dropped.get(name)
        )
        raise DataError(
            f"{source}: {', '.join(never)} ha{'s' if len(never) == 1 else 've'} no usable value in any of "
            f"{len(cohort.stay_ids)} stays{f' ({lost})' if lost else ''}; correct the mapping, or mark optional = true"
        )
    for part, chosen in (("all", cohort.split >= 0), ("training", cohort.split == Split.TRAIN)):
        labels = cohort.labels[chosen, 0]
        classes = np.unique(labels[np.isfinite(labels)] >= 0.5)  # of a number: the halves of its public range
        if chosen.any() and len(classes) < 2:
            why = f"; {'; '.join(joined)}" if joined and not len(classes) else ""
            raise DataError(
                f"{source}: the first task, {cohort.tasks[0].name}, has {len(classes)} of 2 classes among {part} "
                f"stays ({int(chosen.sum())}){why}"
            )
    unknown = [
        task.name for task, known in zip(cohort.tasks, np.isfinite(cohort.labels).any(axis=0), strict=True) if not known
    ]
    if unknown:
        raise DataError(
            f"{source}: {', '.join(unknown)} ha{'s' if len(unknown) == 1 else 've'} no label in any of "
            f"{len(cohort.stay_ids)} stays; correct the task or the source, or leave it out of cohort.tasks"
        )
