"""Patients as stays on a regular grid, raw and encoded; who they are made of, and where they come from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int8, Int32, Shaped

from pipeline.core.errors import ConfigError, DataError
from pipeline.core.files.mapped import all_finite, row_chunks, rows_of

Aggregation = Literal["mean", "last", "sum", "max", "min"]
Statistic = Literal["mean", "min", "max"]  # over a window's steps
ScoreWindow = Literal["late", "first_half", "second_half", "whole"]  # of the input; late: its last quarter
Side = Literal["level", "above", "below"]

Json = Mapping[str, Any]


class Split(IntEnum):
    """MEDS's names for the three parts; no subject is in two of them."""

    TRAIN = 0
    TUNING = 1
    HELD_OUT = 2


class ArrayRecord:
    """A repr that shows shapes and short facts, never an array's content (a log line must not hold a patient)."""

    def __repr__(self) -> str:
        shown = []
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray):
                shown.append(f"{item.name}={value.dtype}{list(value.shape)}")
            elif isinstance(value, tuple | Mapping):
                shown.append(f"{item.name}=<{len(value)}>")
            else:
                shown.append(f"{item.name}={value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True)
class Variable:
    """A clinical series with the *public* constants that describe it.

    `plausible_low/high`: outside = measurement error, dropped and counted at ingest. `scale_low/high`: the clinical
    range mapped to [0, 1]. `normal`: the constant that stands in where nothing was ever observed. None of them may be
    computed from patients: what touches patients is inside the account or is public.
    """

    name: str
    unit: str
    plausible_low: float
    plausible_high: float
    scale_low: float
    scale_high: float
    normal: float
    aggregation: Aggregation = "mean"


@dataclass(frozen=True)
class StaticVariable:
    """A descriptor of the whole stay; `categories` (code -> label) makes it one-hot when prepared."""

    name: str
    unit: str
    plausible_low: float
    plausible_high: float
    scale_low: float
    scale_high: float
    normal: float
    categories: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class ScoreItem:
    """One number that a task's clinical score reads off a stay, as its mapping lists it; public, of no patient."""

    variable: str  # a series, or a static; of one with categories every category
    statistic: Statistic = "mean"
    window: ScoreWindow = "late"
    side: Side = "level"  # or how far beyond the variable's normal value


@dataclass(frozen=True)
class Task:
    """A label in [0, 1], NaN = missing. Binary: 1 = the event. Regression: a number in *public* limits, scaled.

    Time to event: one of a pair, the hours to an event or to where it is no more known of (scaled, too), and whether
    they are the event's; for whoever fits a survival model to the cohort, since no stage here learns a censored time.

    A regression label is (value - low) / (high - low), clipped to [0, 1]; neither limit may be computed from patients.
    Models learn it as a fractional response (Papke and Wooldridge, J Appl Econometrics 11:619, 1996): cross-entropy
    with a target in [0, 1] is least at the conditional mean, so that one loss serves both kinds.
    """

    name: str
    description: str = ""
    kind: Literal["binary", "regression", "time_to_event"] = "binary"
    low: float = 0.0  # what the labels 0 and 1 stand for, in `unit`
    high: float = 1.0
    unit: str = ""
    score_items: tuple[ScoreItem, ...] = ()  # none: every channel's late level

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise DataError(f"task {self.name}: low must be smaller than high")


@dataclass(frozen=True)
class Provenance:
    """How an artefact came to be: enough to make it again, nothing about a person and no secret."""

    stage: str
    parents: tuple[str, ...] = ()
    config: Json = field(default_factory=dict)
    code_version: str = ""
    seed: int | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Cohort(ArrayRecord):
    """Stays in raw clinical units on a regular grid; nothing imputed or scaled. Never leaves the site."""

    values: Float32[np.ndarray, "stay step variable"]  # NaN where not observed
    observed: Bool[np.ndarray, "stay step variable"]
    static: Float32[np.ndarray, "stay static_variable"]  # NaN = missing
    labels: Float32[np.ndarray, "stay task"]  # 0 or 1 (regression: in [0, 1]), NaN = missing
    stay_ids: Shaped[np.ndarray, " stay"]  # str
    subject_ids: Shaped[np.ndarray, " stay"]  # str
    split: Int8[np.ndarray, " stay"]  # Split
    variables: tuple[Variable, ...]
    static_variables: tuple[StaticVariable, ...]
    tasks: tuple[Task, ...]
    step_hours: float
    provenance: Provenance
    subjects_known: bool = True  # False: the source has no person ids, so every guarantee is per stay
    sites: Shaped[np.ndarray, " stay"] | None = None  # str, "" = not said; None where the source names no sites

    def __post_init__(self) -> None:
        stays, steps = self.values.shape[:2]
        _shape("values", self.values, (stays, steps, len(self.variables)))
        _shape("observed", self.observed, self.values.shape)
        _shape("static", self.static, (stays, len(self.static_variables)))
        _shape("labels", self.labels, (stays, len(self.tasks)))
        for name in ("stay_ids", "subject_ids", "split"):
            _shape(name, getattr(self, name), (stays,))
        if self.sites is not None:
            _shape("sites", self.sites, (stays,))
        if len(np.unique(self.stay_ids)) != stays:
            raise DataError("the cohort holds a stay id more than once")
        chunks = row_chunks(self.values)
        if any(bool((np.isfinite(self.values[part]) != self.observed[part]).any()) for part in chunks):
            raise DataError("cohort values must be finite exactly where observed")
        shared = subjects_in_several_splits(self.subject_ids, self.split)
        if shared:
            raise DataError(f"{shared} subjects appear in more than one split; splits are by subject")

    @property
    def subject_index(self) -> np.ndarray:
        """Dense int32 codes of the subjects, meaningless outside this cohort: `(stay,)`."""
        return np.unique(self.subject_ids, return_inverse=True)[1].astype(np.int32)


@dataclass(frozen=True, eq=False, repr=False)
class EncodedCohort(ArrayRecord):
    """Prepared (imputed, scaled) and encoded series, a row per stay; no ids.

    `subject_index` only groups the stays of one person (contribution bounding, patient bootstrap); it is never put in a
    bundle. `transforms` lists what was done since the raw cohort, in order, each `{"kind": ..., "public": bool, ...}`;
    `public` false means that the transform's constants were computed from patients.
    """

    features: Float32[np.ndarray, "stay step channel"]
    labels: Float32[np.ndarray, "stay task"]
    subject_index: Int32[np.ndarray, " stay"]
    split: Int8[np.ndarray, " stay"]
    channels: tuple[str, ...]
    tasks: tuple[Task, ...]
    step_hours: float
    transforms: tuple[Json, ...]
    provenance: Provenance

    def __post_init__(self) -> None:
        stays, steps = self.features.shape[:2]
        _shape("features", self.features, (stays, steps, len(self.channels)))
        _shape("labels", self.labels, (stays, len(self.tasks)))
        _shape("subject_index", self.subject_index, (stays,))
        _shape("split", self.split, (stays,))
        if not all_finite(self.features):
            raise DataError("encoded features must be finite")
        refuse_times(self.tasks)

    @property
    def is_public_transform(self) -> bool:
        """True when no constant of any transform was computed from patients, so that a guarantee can be given."""
        return all(bool(step["public"]) for step in self.transforms)

    @property
    def protected_unit(self) -> Literal["subject", "stay"]:
        """Whom a guarantee over these stays protects; who does not say knows no subjects."""
        known = [step.get("known") is True for step in self.transforms if step.get("kind") == "subjects"]
        return "subject" if known and all(known) else "stay"

    def part(self, split: Split) -> EncodedCohort:
        """The stays of one split."""
        return self.take(np.flatnonzero(self.split == int(split)))

    def take(self, rows: np.ndarray) -> EncodedCohort:
        """The stays at `rows`; subjects keep their codes. Features that lie in a file stay in one if they are large.

        Raises:
            OSError: as `pipeline.core.files.mapped.rows_of`.
        """
        return dataclasses.replace(
            self,
            features=rows_of(self.features, rows),
            labels=self.labels[rows],
            subject_index=self.subject_index[rows],
            split=self.split[rows],
        )


def refuse_times(tasks: tuple[Task, ...]) -> None:
    """Raise `ConfigError` where a task is a time to an event: a censored time is neither a class nor a number."""
    timed = [task.name for task in tasks if task.kind == "time_to_event"]
    if timed:
        raise ConfigError(
            f"tasks {', '.join(timed)} are times to an event, which ingest writes into the cohort and no later stage "
            "learns: leave them out of cohort.tasks, and name the task of the event within the time"
        )


def with_tasks(cohort: EncodedCohort, tasks: tuple[Task, ...]) -> EncodedCohort:
    """The cohort with those of its tasks only, in its own order."""
    kept = [index for index, task in enumerate(cohort.tasks) if task in tasks]
    return dataclasses.replace(cohort, labels=cohort.labels[:, kept], tasks=tuple(cohort.tasks[i] for i in kept))


def subjects_in_several_splits(subject_ids: np.ndarray, split: np.ndarray) -> int:
    """How many subjects have stays in more than one split."""
    order = np.argsort(subject_ids, kind="stable")
    ids, parts = subject_ids[order], split[order]
    torn = (ids[1:] == ids[:-1]) & (parts[1:] != parts[:-1])
    return len(np.unique(ids[1:][torn]))


def _shape(name: str, array: np.ndarray, expected: tuple[int, ...]) -> None:
    if array.shape != expected:
        raise DataError(f"{name} has shape {array.shape}, expected {expected}")
