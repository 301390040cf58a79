"""A look at a cohort before anything is learnt from it: aggregates of ten people or more, as plain data and as a page.

Every figure about values is of stays (the mean of a stay's cells), and shown only where the stays are of ten people or
more: a quantile where they are on either side of it, rounded to three digits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from markupsafe import Markup

from pipeline.core.codec import to_plain
from pipeline.core.types import Cohort, IngestReport, Split
from pipeline.report.render import environment
from pipeline.report.suppress import SUPPRESSED, THRESHOLD, WITHHELD, is_small, suppress_small_cells

People = Callable[[np.ndarray], int]
"""How many people the stays of a mask `(stay,)` are of."""

QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
_WIDTH, _HEIGHT = 150, 26


def look_at(cohort: Cohort, report: IngestReport) -> dict[str, Any]:
    """Everything on the page, as plain JSON data; small cells are suppressed already."""
    plain = {"ingest": to_plain(report), "contracts": [], "trajectories": [], "drift": None}
    ingest = suppress_small_cells(plain)["ingest"]
    names, subject = np.unique(cohort.subject_ids, return_inverse=True)
    subjects = len(names)

    def people(stays: np.ndarray) -> int:
        return int(np.count_nonzero(np.bincount(subject[stays]))) if subjects < len(subject) else int(stays.sum())

    return {
        "ingest": ingest,
        "subjects": subjects if cohort.subjects_known else None,
        "steps": cohort.values.shape[1],
        "step_hours": cohort.step_hours,
        "splits": _in_company({part.name.lower(): _cell(cohort.split == int(part), people) for part in Split}),
        "sites": None if cohort.sites is None else _sites(cohort.sites, people),
        "variables": [_variable(cohort, index, people) for index in range(len(cohort.variables))],
        "statics": [_static(cohort, index, people) for index in range(len(cohort.static_variables))],
        "missing_cells": _rounded(1 - float(cohort.observed.mean())),
    }


def look_json(look: dict[str, Any]) -> bytes:
    """The data of the page, in the page's order."""
    return (json.dumps(look, indent=1, allow_nan=False) + "\n").encode()


def look_html(look: dict[str, Any]) -> str:
    """The page: self-contained, opens offline, no script."""
    lines = {row["name"]: _spark(row["name"], row["over_time"]) for row in look["variables"]}
    return environment().get_template("data.html.j2").render(look=look, lines=lines, quantiles=QUANTILES)


def _sites(sites: np.ndarray, people: People) -> dict[str, Any]:
    """Stays by site; sites of fewer than ten people are named, not counted."""
    return _in_company({str(name) or "not said": _cell(sites == name, people) for name in np.unique(sites)})


def _in_company(shown: dict[str, Any]) -> dict[str, Any]:
    """The parts of a whole: a lone suppressed one takes the smallest other with it, or subtraction would find it."""
    told = [name for name, value in shown.items() if isinstance(value, int | float) and value > 0]
    if list(shown.values()).count(SUPPRESSED) != 1 or not told:
        return shown
    return {**shown, min(told, key=lambda name: (shown[name], name)): WITHHELD}


def _variable(cohort: Cohort, index: int, people: People) -> dict[str, Any]:
    variable, observed = cohort.variables[index], cohort.observed[:, :, index]
    values, stays = cohort.values[:, :, index], np.ones(len(cohort.stay_ids), dtype=bool)
    measured: np.ndarray = np.any(observed, axis=1)
    means = np.where(observed, values, 0).sum(axis=1, dtype=np.float64) / np.maximum(observed.sum(axis=1), 1)
    outside = observed & ((values < variable.scale_low) | (values > variable.scale_high))
    return {
        "name": variable.name,
        "unit": variable.unit,
        "stays": _cell(measured, people),
        "share_of_stays": _share(measured, stays, people),
        "share_of_cells": _rounded(float(observed.mean())) if people(measured) >= THRESHOLD else SUPPRESSED,
        "over_time": [_share(there, stays, people) for there in observed.T],
        "quantiles": _quantiles(means, measured, people),
        "stays_outside_clinical_range": _share(np.any(outside, axis=1), measured, people),
        "clinical_range": [variable.scale_low, variable.scale_high],
    }


def _static(cohort: Cohort, index: int, people: People) -> dict[str, Any]:
    static = cohort.static_variables[index]
    values, known = cohort.static[:, index], np.isfinite(cohort.static[:, index])
    row: dict[str, Any] = {"name": static.name, "unit": static.unit}
    row["share_of_stays"] = _share(known, np.ones(len(known), dtype=bool), people)
    if static.categories:
        shares = {label: _share(values == code, known, people) for code, label in static.categories}
        row["categories"] = _in_company(shares)
    else:
        row["quantiles"] = _quantiles(values.astype(np.float64), known, people)
    return row


def _quantiles(values: np.ndarray, known: np.ndarray, people: People) -> list[float | str]:
    """One value per stay in; each quantile that the stays of ten people or more lie on either side of."""
    told: list[float | str] = []
    for q in QUANTILES:
        enough = known.sum() * min(q, 1 - q) >= THRESHOLD
        found = float(np.quantile(values[known], q)) if enough else math.nan
        sides = (known & (values <= found), known & (values >= found)) if enough else ()
        enough = enough and all(people(side) >= THRESHOLD for side in sides)
        told.append(_rounded(found) if enough else SUPPRESSED)
    return told


def _cell(stays: np.ndarray, people: People) -> int | str:
    return SUPPRESSED if is_small(people(stays)) else int(stays.sum())


def _share(part: np.ndarray, whole: np.ndarray, people: People) -> float | str | None:
    if not whole.any():
        return None
    few = is_small(people(part)) or is_small(people(whole & ~part))
    return SUPPRESSED if few else _rounded(int(part.sum()) / int(whole.sum()))


def _rounded(value: float) -> float:
    return float(f"{value:.3g}") if math.isfinite(value) else 0.0


def _spark(name: str, shares: list[float | str | None]) -> Markup:
    """The share of stays with a measurement, step by step, from 0 to 1; suppressed steps are gaps."""
    step = (_WIDTH - 4) / max(len(shares) - 1, 1)
    runs: list[list[str]] = [[]]
    for index, share in enumerate(shares):
        if isinstance(share, float | int):
            runs[-1].append(f"{2 + index * step:.1f},{2 + (1 - share) * (_HEIGHT - 4):.1f}")
        else:
            runs.append([])
    drawn = [Markup('<polyline points="{}"/>').format(" ".join(run)) for run in runs if run]
    return Markup(
        '<svg class="spark" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img"><title>{t}</title>{p}</svg>'
    ).format(w=_WIDTH, h=_HEIGHT, t=f"share of stays with {name}, step by step", p=Markup("").join(drawn))
