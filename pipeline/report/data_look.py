"""A look at a cohort before anything is learnt from it: aggregates of ten stays or more, as plain data and as a page.

Every figure about values is of stays (the mean of a stay's cells), so that a count is a count of people: a quantile is
shown only where ten stays or more lie on either side of it, rounded to three digits.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

import numpy as np
from markupsafe import Markup

from pipeline.core.codec import to_plain
from pipeline.core.types import Cohort, IngestReport, Split
from pipeline.report.render import environment
from pipeline.report.suppress import SUPPRESSED, THRESHOLD, WITHHELD, is_small, suppress_small_cells

QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
_WIDTH, _HEIGHT = 150, 26


def look_at(cohort: Cohort, report: IngestReport) -> dict[str, Any]:
    """Everything on the page, as plain JSON data; small cells are suppressed already."""
    plain = {"ingest": to_plain(report), "contracts": [], "trajectories": [], "drift": None}
    ingest = suppress_small_cells(plain)["ingest"]
    subjects = len(np.unique(cohort.subject_ids))
    return {
        "ingest": ingest,
        "subjects": subjects if cohort.subjects_known else None,
        "steps": cohort.values.shape[1],
        "step_hours": cohort.step_hours,
        "splits": _in_company({part.name.lower(): _cell(int((cohort.split == int(part)).sum())) for part in Split}),
        "sites": None if cohort.sites is None else _sites(cohort.sites),
        "variables": [_variable(cohort, index) for index in range(len(cohort.variables))],
        "statics": [_static(cohort, index) for index in range(len(cohort.static_variables))],
        "missing_cells": _rounded(1 - float(cohort.observed.mean())),
    }


def look_json(look: dict[str, Any]) -> bytes:
    """The data of the page, in the page's order."""
    return (json.dumps(look, indent=1, allow_nan=False) + "\n").encode()


def look_html(look: dict[str, Any]) -> str:
    """The page: self-contained, opens offline, no script."""
    lines = {row["name"]: _spark(row["name"], row["over_time"]) for row in look["variables"]}
    return environment().get_template("data.html.j2").render(look=look, lines=lines, quantiles=QUANTILES)


def _sites(sites: np.ndarray) -> dict[str, Any]:
    """Stays by site; sites of fewer than ten stays are named, not counted."""
    names, counts = np.unique(sites, return_counts=True)
    shown = {str(name) or "not said": _cell(int(count)) for name, count in zip(names, counts, strict=True)}
    return _in_company(shown)


def _in_company(shown: dict[str, Any]) -> dict[str, Any]:
    """The parts of a whole: a lone suppressed one takes the smallest other with it, or subtraction would find it."""
    told = [name for name, value in shown.items() if isinstance(value, int | float) and value > 0]
    if list(shown.values()).count(SUPPRESSED) != 1 or not told:
        return shown
    return {**shown, min(told, key=lambda name: (shown[name], name)): WITHHELD}


def _variable(cohort: Cohort, index: int) -> dict[str, Any]:
    variable, observed = cohort.variables[index], cohort.observed[:, :, index]
    values, stays = cohort.values[:, :, index], len(cohort.stay_ids)
    measured = observed.any(axis=1)
    cells = observed.sum(axis=1)
    means = np.where(observed, values, 0).sum(axis=1, dtype=np.float64)[measured] / cells[measured]
    outside = observed & ((values < variable.scale_low) | (values > variable.scale_high))
    return {
        "name": variable.name,
        "unit": variable.unit,
        "stays": _cell(int(measured.sum())),
        "share_of_stays": _share(int(measured.sum()), stays),
        "share_of_cells": _rounded(float(observed.mean())) if measured.sum() >= THRESHOLD else SUPPRESSED,
        "over_time": [_share(int(count), stays) for count in observed.sum(axis=0)],
        "quantiles": _quantiles(means),
        "stays_outside_clinical_range": _share(int(outside.any(axis=1).sum()), int(measured.sum())),
        "clinical_range": [variable.scale_low, variable.scale_high],
    }


def _static(cohort: Cohort, index: int) -> dict[str, Any]:
    static = cohort.static_variables[index]
    known = cohort.static[:, index][np.isfinite(cohort.static[:, index])]
    row: dict[str, Any] = {"name": static.name, "unit": static.unit}
    row["share_of_stays"] = _share(len(known), len(cohort.stay_ids))
    if static.categories:
        shares = {label: _share(int((known == code).sum()), len(known)) for code, label in static.categories}
        row["categories"] = _in_company(shares)
    else:
        row["quantiles"] = _quantiles(known.astype(np.float64))
    return row


def _quantiles(values: np.ndarray) -> list[float | str]:
    """One value per stay in; each quantile that ten stays or more lie on either side of."""
    told: list[float | str] = []
    for q in QUANTILES:
        enough = len(values) * min(q, 1 - q) >= THRESHOLD
        told.append(_rounded(float(np.quantile(values, q))) if enough else SUPPRESSED)
    return told


def _cell(count: int) -> int | str:
    return SUPPRESSED if is_small(count) else count


def _share(count: int, of: int) -> float | str | None:
    if of == 0:
        return None
    return SUPPRESSED if is_small(count) or is_small(of - count) else _rounded(count / of)


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
