"""What a site's contract looks at: one row of figures of a cohort, or a row per stay, as far as a suite asks for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from jaxtyping import Float64

from pipeline.core.types import Cohort, IngestReport

FEWEST: Final = 10  # people behind a figure, or there is none
_OF_STEPS: Final[Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
    "steps": lambda known, _: known.sum(axis=1).astype(float),
    "first": lambda known, values: _picked(known, values, known.argmax(axis=1)),
    "last": lambda known, values: _picked(known, values, known.shape[1] - 1 - known[:, ::-1].argmax(axis=1)),
    "min": lambda known, values: _reduced(np.fmin, known, values),
    "max": lambda known, values: _reduced(np.fmax, known, values),
    "mean": lambda known, values: _mean(known, values),
}


def cohort_profile(cohort: Cohort, report: IngestReport) -> dict[str, float]:
    """The figures of the one row; NaN where fewer than ten people stand behind a figure."""

    def people(stays: np.ndarray) -> int:
        return len(np.unique(cohort.subject_index[stays]))

    profile = {
        "stays": float(len(cohort.stay_ids)),
        "rows dropped": sum(report.rows_dropped.values()) / max(report.rows_read, 1),
    }
    for index, variable in enumerate(cohort.variables):
        values = cohort.values[:, :, index]
        seen = cohort.observed[:, :, index]
        measured: np.ndarray = np.any(seen, axis=1)
        found = values[seen] if people(measured) >= FEWEST else np.zeros(0, np.float32)
        profile[f"{variable.name}: stays observed"] = int(measured.sum()) / max(len(values), 1)
        for what, of in (("median", np.median), ("smallest", np.min), ("largest", np.max)):
            profile[f"{variable.name}: {what}"] = float(of(found)) if len(found) else math.nan
    for index, task in enumerate(cohort.tasks):
        labels = cohort.labels[:, index]
        known = labels[np.isfinite(labels)]
        rarer = min(people(labels >= 0.5), people(labels < 0.5))
        profile[f"{task.name}: prevalence"] = float(known.mean()) if rarer >= FEWEST else math.nan
        profile[f"{task.name}: labels known"] = len(known) / max(len(labels), 1)
    return profile


def stay_frame(cohort: Cohort, columns: frozenset[str]) -> dict[str, Float64[np.ndarray, " stay"]]:
    """Those of the columns that there are, a value per stay, NaN where unknown.

    "split" (0 train, 1 tuning, 2 held-out), "label:TASK", a static variable by its name, and of each variable
    "NAME: steps" (how many hold a value), "first", "last", "min", "max", "mean", in the mapping's units.
    """
    found = {"split": cohort.split.astype(float)}
    found |= {f"label:{task.name}": cohort.labels[:, i].astype(float) for i, task in enumerate(cohort.tasks)}
    found |= {static.name: cohort.static[:, i].astype(float) for i, static in enumerate(cohort.static_variables)}
    for index, variable in enumerate(cohort.variables):
        for what, of in _OF_STEPS.items():
            if f"{variable.name}: {what}" in columns:
                known = cohort.observed[:, :, index]
                found[f"{variable.name}: {what}"] = of(known, cohort.values[:, :, index].astype(float))
    return {name: column for name, column in found.items() if name in columns}


def _picked(known: np.ndarray, values: np.ndarray, step: np.ndarray) -> np.ndarray:
    return np.where(known.any(axis=1), values[np.arange(len(values)), step], np.nan)


def _reduced(of: Any, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.asarray(of.reduce(np.where(known, values, np.nan), axis=1))


def _mean(known: np.ndarray, values: np.ndarray) -> np.ndarray:
    sums, counts = np.where(known, values, 0).sum(axis=1), known.sum(axis=1)
    return np.asarray(np.divide(sums, counts, out=np.full(len(known), np.nan), where=counts > 0))
