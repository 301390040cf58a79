"""Stays of one person that cannot be: a fact for life differs, an age falls, one comes after their death."""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.core.types import Cohort
from pipeline.ingest.mapping.load import SourceMapping

_HOURS_PER_YEAR: Final = 8766.0
_YEARS: Final = 2.0  # by so much may an age outrun the time: ages are whole years, and those of the old hidden


def person_notes(cohort: Cohort, mapping: SourceMapping, start_hours: np.ndarray) -> tuple[str, ...]:
    """Sentences on the stays of subjects that have several; `start_hours` `(stay,)` float64, NaN = not known."""
    facts = mapping.facts
    if not cohort.subjects_known:
        return ()
    order = np.lexsort((start_hours, cohort.subject_index))
    subject, start = cohort.subject_index[order], start_hours[order]
    follows = np.append(False, subject[1:] == subject[:-1])[: len(order)]
    if not follows.any():
        return ()
    notes = []
    later, years = follows & np.isfinite(start), np.append(0.0, np.diff(start))[: len(order)] / _HOURS_PER_YEAR
    later &= years > 0
    for index, static in enumerate(cohort.static_variables):
        values = cohort.static[order, index].astype(np.float64)
        step = np.append(0.0, np.diff(values))[: len(order)]
        if facts.over_stays.get(static.name) == "same":
            odd = int((follows & (step != 0) & np.isfinite(step)).sum())
            if odd:
                notes.append(f"{odd} stays have another {static.name} than an earlier stay of the same subject")
        elif facts.over_stays.get(static.name) == "rising":
            odd = int((later & ((step < 0) | (step > years + _YEARS))).sum())
            if odd:
                notes.append(f"in {odd} stays {static.name} falls, or outruns the time, since another of the subject")
    for index, task in enumerate(cohort.tasks):
        labels = cohort.labels[order, index]
        odd = int((later & (labels == 0) & _had(labels == 1, subject)).sum())
        if task.name in facts.final and odd:
            notes.append(f"{odd} stays without {task.name} follow one of the same subject that has it")
    return tuple(f"{note}: are its stays, facts and labels its own?" for note in notes)


def _had(has: np.ndarray, subject: np.ndarray) -> np.ndarray:
    """`(stay,)` bool: a stay before this one, of the same subject, has it; stays in order of subject and time."""
    before = np.cumsum(has) - has
    first = np.append(True, subject[1:] != subject[:-1])[: len(subject)]
    at_first = before[np.maximum.accumulate(np.where(first, np.arange(len(subject)), 0))]
    found: np.ndarray = before > at_first
    return found
