"""The utility part of the page: score tables and bar plots, from the record's plain JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.report.plots import Bar, bar_panel
from pipeline.report.words import METRICS

FULL, RANDOM = "full_data", "random_real_stays"
NUMBER_METRICS = ("r2", "mae")  # of regression tasks: each has tables of its own
Row = dict[str, Any]
Set = tuple[str, str]  # training set, input


def utility_view(data: dict[str, Any]) -> dict[str, Any]:
    """All that the template says about utility; `main_task` is None when nothing was scored."""
    report = data["utility"]
    scores: list[Row] = [row for row in report["scores"] if row["mean"] is not None]
    if not scores:
        return {"main_task": None}
    tasks, models = _ordered(row["task"] for row in scores), _ordered(row["model"] for row in scores)
    sets = _sets(scores, data)
    main = [row for row in scores if row["task"] == tasks[0]]
    auroc = [row for row in main if row["metric"] == "auroc"]
    return {
        "main_task": tasks[0],
        "models": models,
        "sets": [_describe(item, scores, sets, data) for item in sets],
        "matrices": [
            _matrix(name, rows, sets, models, data, scores)
            for task in tasks
            for name in METRICS
            if (task == tasks[0] or name in NUMBER_METRICS)
            and (rows := [row for row in scores if (row["task"], row["metric"]) == (task, name)])
        ],
        "plots": _plots(auroc, sets, models, data),
        "tasks": _by_task(scores, sets, tasks),
        "headline": _headline(auroc, data),
        "training": report["training"] or f"{report['epochs']} epochs",
        "interval": report["interval"],
        "n_test": sorted({row["n_test"] for row in main}),
        "n_seeds": sorted({row["n_seeds"] for row in main}),
    }


def spread(rows: Sequence[Row]) -> dict[str, Any]:
    """Lowest, mean and highest mean score over models, and the rows of the worst and best."""
    ranked = sorted(rows, key=lambda row: (row["mean"], row["model"]))
    mean = statistics.fmean(row["mean"] for row in rows)
    return {"worst": ranked[0], "best": ranked[-1], "mean": mean, "n": len(rows)}


def _ordered(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _sets(scores: list[Row], data: dict[str, Any]) -> list[Set]:
    """Training sets in reading order, an encoding at a time: full data, condensed sets, random real stays."""
    found: list[Set] = _ordered((row["training_set"], row["input"]) for row in scores)
    inputs = _ordered(item[1] for item in found)
    named = [summary["name"] for summary in data["condensed"]]

    def rank(item: Set) -> tuple[int, int, int]:
        place = {FULL: -1, RANDOM: len(named) + 1}.get(
            item[0], named.index(item[0]) if item[0] in named else len(named)
        )
        return inputs.index(item[1]), place, found.index(item)

    return sorted(found, key=rank)


def _kind(name: str, data: dict[str, Any]) -> str:
    if name in (FULL, RANDOM):
        return {FULL: "full", RANDOM: "random"}[name]
    return "released" if name == data["release_artefact"] else "condensed"


def _title(name: str) -> str:
    return {FULL: "full real data", RANDOM: "random real stays"}.get(name, name)


def _describe(item: Set, scores: list[Row], sets: list[Set], data: dict[str, Any]) -> dict[str, Any]:
    sizes = sorted({row["n_samples"] for row in scores if (row["training_set"], row["input"]) == item})
    soft = any(summary["name"] == item[0] and summary["soft_labels"] for summary in data["condensed"])
    return {
        "title": _title(item[0]),
        "input": item[1] if len({name for _, name in sets}) > 1 else None,
        "kind": _kind(item[0], data),
        "soft": soft,
        "samples": sizes,
    }


def _matrix(
    metric: str, rows: list[Row], sets: list[Set], models: list[str], data: dict[str, Any], scores: list[Row]
) -> dict[str, Any]:
    """Training sets down, models across; the worst model of each row is marked."""
    lines = []
    for item in sets:
        mine = {row["model"]: row for row in rows if (row["training_set"], row["input"]) == item}
        if not mine:
            continue
        ranked = sorted(mine.values(), key=lambda row: (row["mean"], row["model"]))
        worst = ranked[0] if metric in ("auroc", "auprc", "r2") else ranked[-1]
        lines.append(
            {
                "set": _describe(item, scores, sets, data),
                "cells": [mine.get(model) for model in models],
                "worst": worst["model"] if len(mine) > 1 else None,
                "mean": statistics.fmean(row["mean"] for row in mine.values()),
                "kept": _kept(item, rows) if metric == "auroc" else None,
            }
        )
    title, direction = METRICS[metric]
    return {"metric": metric, "title": title, "direction": direction, "task": rows[0]["task"], "lines": lines}


def _kept(item: Set, auroc: list[Row]) -> float | None:
    """Mean AUROC above chance as a share of full data's, over the models that both have, in the same encoding."""
    if item[0] == FULL:
        return None
    full = {row["model"]: row["mean"] for row in auroc if (row["training_set"], row["input"]) == (FULL, item[1])}
    mine = {row["model"]: row["mean"] for row in auroc if (row["training_set"], row["input"]) == item}
    shared = sorted(full.keys() & mine.keys())
    skill = sum(full[model] - 0.5 for model in shared)
    return sum(mine[model] - 0.5 for model in shared) / skill if skill > 0 else None


def _plots(auroc: list[Row], sets: list[Set], models: list[str], data: dict[str, Any]) -> list[Any]:
    if not auroc:
        return []
    lowest = min(row["low"] if row["low"] is not None else row["mean"] for row in auroc)
    highest = max(row["high"] if row["high"] is not None else row["mean"] for row in auroc)
    axis = (min(0.5, math.floor(lowest * 10) / 10), min(1.0, math.ceil(highest * 20) / 20))
    several = len({name for _, name in sets}) > 1
    panels = []
    for number, model in enumerate(models):
        bars = []
        for item in sets:
            for row in auroc:
                if (row["training_set"], row["input"], row["model"]) == (*item, model):
                    label = _title(item[0]) + (f" ({item[1]})" if several and item[0] in (FULL, RANDOM) else "")
                    low, high = (row["mean"] if row[end] is None else row[end] for end in ("low", "high"))
                    bars.append(Bar(label, row["mean"], low, high, _kind(item[0], data)))
        if bars:
            title = f"AUROC of {model} by training set"
            panels.append({"model": model, "svg": bar_panel(f"utility-{number}", title, bars, axis)})
    return panels


def _by_task(scores: list[Row], sets: list[Set], tasks: list[str]) -> dict[str, Any] | None:
    """Mean AUROC over models, and the worst model's, for every task and training set; None with one task."""
    auroc = [row for row in scores if row["metric"] == "auroc"]
    if len(tasks) < 2 or not auroc:
        return None
    lines = []
    for task in tasks:
        cells = []
        for item in sets:
            rows = [row for row in auroc if row["task"] == task and (row["training_set"], row["input"]) == item]
            cells.append(spread(rows) if rows else None)
        if any(cells):
            lines.append({"task": task, "cells": cells})
    return {"lines": lines}


def _headline(auroc: list[Row], data: dict[str, Any]) -> dict[str, Any] | None:
    """The released set beside full data and random real stays in the same encoding."""
    released = [row for row in auroc if row["training_set"] == data["release_artefact"]]
    if not released:
        return None
    beside = {
        name: [row for row in auroc if row["training_set"] == name and row["input"] == released[0]["input"]]
        for name in (FULL, RANDOM)
    }
    return {
        "released": spread(released),
        "full": spread(beside[FULL]) if beside[FULL] else None,
        "random": spread(beside[RANDOM]) if beside[RANDOM] else None,
    }
