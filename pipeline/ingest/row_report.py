"""The account of an ingest: where every row went, in our names, and what the cohort holds."""

from __future__ import annotations

import math

import numpy as np

from pipeline.core.types import Cohort, IngestReport
from pipeline.ingest.events import REASONS, USED, FlatEvents, printable
from pipeline.ingest.mapping import SourceMapping
from pipeline.ingest.tables import CountsByVariable, SourceTables, totals


def _stays_with_series(events: FlatEvents, mapping: SourceMapping) -> int:
    admission = [i for i, variable in enumerate(mapping.variables) if variable.name in mapping.admission]
    series = (events.fate == USED) & (events.name < len(mapping.variables))
    series &= ~(np.isin(events.name, admission) & (events.hours == 0))
    return len(np.unique(events.stay[series]))


def report_rows(
    cohort: Cohort, tables: SourceTables, mapping: SourceMapping, events: FlatEvents, notes: tuple[str, ...]
) -> IngestReport:
    """Rows read, used and dropped by reason and variable, coverage and prevalence; `notes` come first of its notes."""
    own = {**mapping.source_names, **mapping.static_sources}
    by_variable: CountsByVariable = {}
    for raw, counts in tables.dropped_by_variable.items():
        found = by_variable.setdefault(own.get(raw, printable(raw)), {})
        for reason, rows in counts.items():
            found[reason] = found.get(reason, 0) + rows
    pairs = np.bincount(events.fate.astype(np.int64) * len(events.names) + events.name)
    for pair in np.flatnonzero(pairs):
        fate, name = divmod(int(pair), len(events.names))
        if fate != USED:
            found = by_variable.setdefault(events.names[name], {})
            found[REASONS[fate]] = found.get(REASONS[fate], 0) + int(pairs[pair])
    without = len(cohort.stay_ids) - _stays_with_series(events, mapping)
    covered = cohort.observed.any(axis=1).mean(axis=0)
    known = np.isfinite(cohort.labels)
    if without:
        notes = (*notes, f"{without} stays have no series at all and are kept")
    if not tables.subjects_known:
        notes = (*notes, "the source has no subject ids: every stay counts as its own subject")
    return IngestReport(
        source=tables.source,
        rows_read=tables.rows_read,
        rows_used=int((events.fate == USED).sum()),
        rows_dropped=totals(by_variable),
        dropped_by_variable=by_variable,
        stays=len(cohort.stay_ids),
        stays_without_series=without,
        coverage={variable.name: float(covered[i]) for i, variable in enumerate(cohort.variables)},
        prevalence={
            task.name: float(cohort.labels[known[:, i], i].mean(dtype=np.float64)) if known[:, i].any() else math.nan
            for i, task in enumerate(cohort.tasks)
            if task.kind == "binary"
        },
        labels_missing={task.name: int((~known[:, i]).sum()) for i, task in enumerate(cohort.tasks)},
        notes=notes,
    )
