"""The grouping part of the page: ordered maps of the tasks, and what choosing groups was worth."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from pipeline.report.plots import gain_panel

Data = dict[str, Any]
CHOSEN = {
    "real_stays": "The groups were chosen on real stays, which no privacy account covers: no set with a guarantee may "
    "rest on them.",
    "private_moments": "The groups were chosen from private moments, at no further cost in privacy.",
    "fixed": "The groups were fixed in the configuration; no stay was looked at for them.",
}


def grouping_view(grouping: Data | None) -> Data | None:
    """Maps with group mates side by side, the compared choices with their regret, and a drawing of gain by groups."""
    if grouping is None:
        return None
    tasks = grouping["tasks"]
    placed = [task for group in grouping["groups"] for task in group if task in tasks]
    order = [tasks.index(task) for task in dict.fromkeys([*placed, *tasks])]
    validation = grouping.get("validation")
    maps = [
        ("Affinity", grouping["method"], "darker = more alike", grouping["affinity"], False),
        ("Label-only control", grouping["control_method"], "darker = more alike", grouping["control"], False),
    ]
    if validation:
        told = "share of bootstrap replicates that serve both tasks by one group"
        maps.append(("Co-assignment", told, "darker = more often together", validation["together"], True))
    return {
        **grouping,
        "told": CHOSEN[grouping["chosen"]],
        "tables": [
            {"role": role, "method": method, "key": key, "lines": _shaded(tasks, order, matrix, as_share)}
            for role, method, key, matrix, as_share in maps
            if matrix
        ],
        "compared": compared_rows(validation),
        "front": front(validation),
    }


def compared_rows(validation: Data | None) -> list[Data]:
    """Every choice with its regret: the share of the ceiling's gain that is missing."""
    if not validation or not validation["compared"]:
        return []
    ceiling = validation["compared"][-1]["gain"]
    chosen = {key: validation[key] for key in ("gain", "chosen")}
    rows = [
        {"name": "each task alone", "n_groups": len(validation["task_gains"]), "gain": 0.0, "low": None, "high": None},
        *validation["compared"],
    ]
    return [
        {
            **row,
            "regret": 1 - row["gain"] / ceiling if ceiling and ceiling > 0 else None,
            "chosen": row["gain"] == chosen["gain"] and row["n_groups"] == len(chosen["chosen"]),
        }
        for row in rows
    ]


def front(validation: Data | None) -> Markup | None:
    """Gain against the number of networks to train and serve, with 80 % intervals."""
    rows = [row for row in compared_rows(validation) if row["gain"] is not None]
    return gain_panel("grouping-front", "Gain of choices of groups by the number of networks", rows) if rows else None


def _shaded(tasks: list[str], order: list[int], matrix: list[list[float | None]], as_share: bool) -> list[Data]:
    """Lines of cells with a shade from 0 to 1; of distances the smallest is darkest."""
    known = [matrix[r][c] for r in order for c in order if r != c]
    values = [value for value in known if value is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    length = high - low if high > low else 1.0

    def cell(row: int, column: int) -> Data | None:
        value = matrix[row][column]
        if row == column or value is None:
            return None
        return {"value": value, "shade": round(value if as_share else 1 - (value - low) / length, 3)}

    return [{"task": tasks[row], "cells": [cell(row, column) for column in order]} for row in order]
