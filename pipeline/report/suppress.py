"""Small-cell suppression: a count of one to nine people is shown as "<10", as disclosure control in hospitals asks.

Where a person has several stays or predictions, the ingest says which counts are of fewer than ten people. Suppressed
are stays without series or labels, shares that stand for fewer than ten people on either side, few stays or subjects in
a note, per-variable dropped rows, broken contract values, and class means of fewer than ten people. Dropped rows are
totalled exactly by reason (the account of rows must add up), so per variable a lone small cell takes its next smallest
neighbour with it (shown as "withheld"): it cannot be found by subtraction.
"""

from __future__ import annotations

import re
from typing import Any, Final

THRESHOLD = 10
SUPPRESSED = f"<{THRESHOLD}"
WITHHELD = "withheld"
_FEW: Final = re.compile(r"(?<![\d.,])[1-9](?= (?:of \d+ )?(?:stays?|subjects?)\b)")


def suppress_small_cells(data: dict[str, Any]) -> dict[str, Any]:
    """A copy of a record's plain JSON with small cells suppressed."""
    return {
        **data,
        "ingest": _ingest(data["ingest"]),
        "contracts": [_contract(suite) for suite in data["contracts"]],
        "trajectories": [_trajectory(plot) for plot in data["trajectories"]],
        "drift": None if data["drift"] is None else suppress_drift(data["drift"]),
    }


def suppress_drift(report: dict[str, Any]) -> dict[str, Any]:
    """A drift report's plain JSON; where few subjects came or went, the earlier total would tell, and goes too."""
    came, went = report["subjects_new"], report["subjects_gone"]
    if not (is_small(came) or is_small(went)):
        return report
    return {**report, "subjects_new": _cell(came), "subjects_gone": _cell(went), "subjects_before": WITHHELD}


def is_small(count: int) -> bool:
    """True for a count that could point at a person: one to nine. None at all tells nothing about anybody."""
    return 0 < count < THRESHOLD


def _cell(count: int) -> int | str:
    return SUPPRESSED if is_small(count) else count


def _share(share: float | None, stays: int, *, few: bool) -> float | str | None:
    """A share of `stays`, suppressed when it or its complement stands for fewer than ten of them.

    Rounded to three digits: an exact fraction would tell its denominator, and with it a suppressed count.
    """
    if share is None:
        return None
    count = round(share * stays)
    return SUPPRESSED if few or is_small(count) or is_small(stays - count) else round(share, 3)


def _ingest(ingest: dict[str, Any]) -> dict[str, Any]:
    stays: int = ingest["stays"]
    missing: dict[str, int] = ingest["labels_missing"]
    few = set(ingest["few_people"])
    return {
        **ingest,
        "dropped_by_variable": _dropped_by_variable(ingest["dropped_by_variable"]),
        "stays_without_series": SUPPRESSED if "series" in few else _cell(ingest["stays_without_series"]),
        "coverage": {
            name: _share(share, stays, few=f"coverage:{name}" in few) for name, share in ingest["coverage"].items()
        },
        "prevalence": {
            task: _share(share, stays - missing.get(task, 0), few=f"prevalence:{task}" in few)
            for task, share in ingest["prevalence"].items()
        },
        "labels_missing": {
            task: SUPPRESSED if f"missing:{task}" in few else _cell(count) for task, count in missing.items()
        },
        "notes": [_FEW.sub(SUPPRESSED, note) for note in ingest["notes"]],
    }


def _dropped_by_variable(table: dict[str, dict[str, int]]) -> dict[str, dict[str, int | str]]:
    shown: dict[str, dict[str, int | str]] = {
        name: {reason: _cell(count) for reason, count in row.items()} for name, row in table.items()
    }
    for reason in sorted({reason for row in table.values() for reason in row}):
        cells = sorted((row[reason], name) for name, row in table.items() if row.get(reason, 0) > 0)
        if sum(is_small(count) for count, _ in cells) == 1 and len(cells) > 1:
            shown[cells[1][1]][reason] = WITHHELD
    return shown


def _contract(suite: dict[str, Any]) -> dict[str, Any]:
    outcomes = [{**row, "unexpected_count": _cell(row["unexpected_count"])} for row in suite["outcomes"]]
    return {**suite, "outcomes": outcomes}


def _trajectory(plot: dict[str, Any]) -> dict[str, Any]:
    counts: dict[str, int] = plot["real_counts"]
    means = {key: curve for key, curve in plot["real_means"].items() if counts.get(key, THRESHOLD) >= THRESHOLD}
    return {**plot, "real_means": means, "real_counts": {key: _cell(count) for key, count in counts.items()}}
