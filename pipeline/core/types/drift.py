"""What drift is judged from and by: a cohort's profile in counts, and how far two profiles are apart.

Both stay at the site: a profile holds exact counts of stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.core.types import Provenance

Level = Literal["none", "note", "warn", "stop"]
LEVELS: tuple[Level, ...] = ("none", "note", "warn", "stop")


@dataclass(frozen=True)
class Counts:
    """Stays by bin. The bins are public: nothing computed from patients decides where one ends."""

    what: str  # "value", "measured", "cells", "length", "static", "static known", "label", "label known"
    item: str  # the variable, static variable or task; "" for what concerns the whole stay
    ordered: bool  # False: categories
    counts: tuple[int, ...]


@dataclass(frozen=True)
class CohortProfile:
    """A cohort in counts of its stays, by variable, static variable and task. Restricted; no row, no id."""

    content: str  # digest of the cohort's arrays, whoever made them
    stays: int
    subjects: int
    tables: tuple[Counts, ...]
    provenance: Provenance


@dataclass(frozen=True)
class DriftRow:
    """One comparison. `effect` is a distance from 0 (the same) to 1, of categories to pi; see `pipeline.validation`."""

    among: Literal["all", "new"]  # all subjects, or those that the accepted cohort did not have
    what: str
    item: str
    effect: float
    chance: float  # what resampling alone may bring, at the false-alarm rate of the whole table
    n_before: int  # stays behind the accepted side
    n_now: int
    level: Level


@dataclass(frozen=True)
class DriftReport:
    """The present cohort against the last accepted one. Restricted."""

    against: str  # the release whose cohort is the yardstick; "" = there is none
    subjects_before: int
    subjects_now: int
    subjects_new: int
    subjects_gone: int
    rows: tuple[DriftRow, ...]  # what is remarkable first
    level: Level
    code: str  # names what drifted at level "stop", not how far; "" = nothing did
    notes: tuple[str, ...]
    provenance: Provenance
