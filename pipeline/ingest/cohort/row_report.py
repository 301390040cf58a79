"""The account of an ingest: where every row went, in our names, and what the cohort holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, final

import numpy as np

from pipeline.core.types import Cohort, IngestReport
from pipeline.ingest.cohort.events import REASONS, USED, FlatEvents, printable
from pipeline.ingest.mapping.load import SourceMapping
from pipeline.ingest.source_tables import OUTSIDE_WINDOW, Counts, CountsByVariable, SourceTables, totals

_FEW: Final = 10


@final
@dataclass
class RowAccount:
    """Events by name and fate, and the stays that have a series: added up over blocks of stays."""

    fates: dict[tuple[str, int], int] = field(default_factory=dict)
    stays_with_series: int = 0
    rows_read: int = 0
    copies: int = 0  # rows that are there again, for another prediction time
    lost: Counts = field(default_factory=dict)  # by the source's names: rows that no prediction time has

    def add(self, events: FlatEvents, mapping: SourceMapping) -> None:
        """Count the events of some stays, which no other block holds."""
        pairs = np.bincount(events.fate.astype(np.int64) * len(events.names) + events.name)
        for pair in np.flatnonzero(pairs):
            fate, name = divmod(int(pair), len(events.names))
            told = (events.names[name], fate)
            self.fates[told] = self.fates.get(told, 0) + int(pairs[pair])
        self.stays_with_series += _stays_with_series(events, mapping)


def _stays_with_series(events: FlatEvents, mapping: SourceMapping) -> int:
    is_series, is_admission = np.zeros((2, len(events.names)), dtype=bool)
    is_series[: len(mapping.variables)] = True
    is_admission[: len(mapping.variables)] = [variable.name in mapping.admission for variable in mapping.variables]
    series = (events.fate == USED) & is_series[events.name]
    series &= ~(is_admission[events.name] & (events.hours == 0))
    return int(np.count_nonzero(np.bincount(events.stay[series])))


def dropped_rows(tables: SourceTables, mapping: SourceMapping, account: RowAccount) -> CountsByVariable:
    """What the reader and the grid dropped, by our names and reason."""
    own = {**mapping.source_names, **mapping.static_sources}
    by_variable: CountsByVariable = {}
    for raw, counts in tables.dropped_by_variable.items():
        found = by_variable.setdefault(own.get(raw, printable(raw)), {})
        for reason, rows in counts.items():
            found[reason] = found.get(reason, 0) + rows
    for raw, rows in account.lost.items():
        found = by_variable.setdefault(own.get(raw, printable(raw)), {})
        found[OUTSIDE_WINDOW] = found.get(OUTSIDE_WINDOW, 0) + rows
    for (name, fate), rows in account.fates.items():
        if fate != USED:
            found = by_variable.setdefault(name, {})
            found[REASONS[fate]] = found.get(REASONS[fate], 0) + rows
    return by_variable


def report_rows(
    cohort: Cohort, tables: SourceTables, mapping: SourceMapping, account: RowAccount, notes: tuple[str, ...]
) -> IngestReport:
    """Rows read, used and dropped by reason and variable, coverage and prevalence; `notes` come first of its notes."""
    by_variable = dropped_rows(tables, mapping, account)
    without = len(cohort.stay_ids) - account.stays_with_series
    covered = cohort.observed.any(axis=1).mean(axis=0)
    known = np.isfinite(cohort.labels)
    if without:
        notes = (*notes, f"{without} stays have no series at all and are kept")
    if not tables.subjects_known:
        notes = (*notes, "the source has no subject ids: every stay counts as its own subject")
    return IngestReport(
        source=tables.source,
        rows_read=account.rows_read + account.copies,
        rows_used=sum(rows for (_, fate), rows in account.fates.items() if fate == USED),
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
        units=tables.units,
        tables=tables.tables,
        few_people=_few_people(cohort),
    )


def _few_people(cohort: Cohort) -> tuple[str, ...]:
    """The figures that rest on fewer than ten people, though it may be on more of their stays or predictions."""
    names, subject = np.unique(cohort.subject_ids, return_inverse=True)
    if len(names) == len(subject):
        return ()
    measured: np.ndarray = np.any(cohort.observed, axis=1)
    known = np.isfinite(cohort.labels)
    sides: dict[str, tuple[np.ndarray, ...]] = {"series": (~np.any(measured, axis=1),)}
    sides |= {f"coverage:{v.name}": (there, ~there) for v, there in zip(cohort.variables, measured.T, strict=True)}
    for index, task in enumerate(cohort.tasks):
        sides[f"missing:{task.name}"] = (~known[:, index],)
        positive = cohort.labels[:, index] == 1
        sides[f"prevalence:{task.name}"] = (positive, known[:, index] & ~positive)
    return tuple(
        name for name, stays in sides.items() if any(0 < len(np.unique(subject[some])) < _FEW for some in stays)
    )
