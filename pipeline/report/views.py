"""From the record's plain JSON to what the template prints: choices and sentences here, layout there."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from pipeline.core.wording import MISSINGNESS, SAMPLES, THREAT_MODELS, guarantee_words
from pipeline.report.answers import answers, condition, implausible_sentence, released_summary
from pipeline.report.grouping import grouping_view
from pipeline.report.leakage import leakage_section
from pipeline.report.plots import curve_panel, sample_panel
from pipeline.report.utility import utility_view
from pipeline.report.words import GLOSSARY, LEAVES, LIMITS, METRICS, STAYS, VERDICTS

Data = dict[str, Any]


def page_view(data: Data) -> Data:
    """Everything the template needs beside the JSON itself."""
    decision = data["decision"]
    verdict = decision["verdict"] if decision else "NOT JUDGED"
    css, meaning = VERDICTS[verdict]
    released = released_summary(data)
    guarantees = [
        {**item["guarantee"], "name": item["name"], "said": guarantee_words(item["guarantee"])}
        for item in data["condensed"]
        if item["guarantee"]
    ]
    return {
        "data": data,
        "verdict": {"word": verdict, "css": css, "condition": condition(data), "meaning": meaning},
        "answers": answers(data),
        "sample": sample_view(data),
        "implausible": implausible_sentence(data["implausible_samples"], released["n_samples"]) if released else "",
        "policy": decision["policy"] if decision else data["policy"].rsplit("/", 1)[-1].removesuffix(".toml"),
        "leaves": LEAVES[data["release_kind"]],
        "stays": STAYS,
        "missingness": MISSINGNESS.get(data["missingness"]),
        "released": released,
        "utility": utility_view(data),
        "guarantees": guarantees,
        **leakage_section(data, guarantees),
        "reasons": gate_reasons(data),
        "ingest": ingest_view(data),
        "trajectories": [trajectory_plot(plot, number) for number, plot in enumerate(data["trajectories"])],
        "trajectory_set": next((plot["condensed_name"] for plot in data["trajectories"]), None),
        "losses": loss_plots(data["condensed"]),
        "grouping": grouping_view(data["grouping"]),
        "total_seconds": sum(stage["seconds"] for stage in data["stages"]),
        "words": {
            "threats": THREAT_MODELS,
            "metrics": METRICS,
            "limits": LIMITS,
            "glossary": GLOSSARY,
            "samples": SAMPLES,
        },
    }


def sample_view(data: Data) -> Markup | None:
    """One sample of what was judged, drawn."""
    drawn = data["sample"]
    return sample_panel("sample", f"One sample of {data['release_artefact']}", drawn["variables"]) if drawn else None


def gate_reasons(data: Data) -> list[tuple[str, str]]:
    """The gate's reasons, blocking ones first."""
    if data["decision"] is None:
        return []
    order = ["FAIL", "INCONCLUSIVE", "PASS"]
    return sorted(data["decision"]["reasons"], key=lambda reason: order.index(reason[0]))


def ingest_view(data: Data) -> Data:
    """Coverage from most to least seen, tasks in their order, and the drop table's reasons and lines."""
    ingest = data["ingest"]
    order = {row["task"]: place for place, row in reversed(list(enumerate(data["utility"]["scores"])))}
    reasons = sorted({reason for row in ingest["dropped_by_variable"].values() for reason in row})
    coverage = sorted(
        ingest["coverage"].items(), key=lambda item: (-item[1] if isinstance(item[1], float | int) else 0, item[0])
    )
    return {
        "coverage": coverage,
        "prevalence": sorted(ingest["prevalence"].items(), key=lambda item: (order.get(item[0], len(order)), item[0])),
        "reasons": reasons,
        "drops": [
            (name, [row.get(reason) for reason in reasons])
            for name, row in sorted(ingest["dropped_by_variable"].items())
        ],
    }


def trajectory_plot(plot: Data, number: int) -> Data:
    """Two classes, real drawn through and condensed dashed."""
    curves = [
        (f"{origin} class-{key}", plot["hours"], means[key])
        for key in ("0", "1")
        for origin, means in (("real", plot["real_means"]), ("condensed", plot["condensed_means"]))
        if means.get(key) and None not in means[key]
    ]
    unit = f" ({plot['unit']})" if plot["unit"] else ""
    title = f"{plot['variable']}{unit}: class means over time"
    ends = "; ".join(f"{css.replace('class-', 'class ')} from {ys[0]:.4g} to {ys[-1]:.4g}" for css, _, ys in curves)
    hours = max(plot["hours"], default=0.0)
    svg = (
        curve_panel(f"trajectory-{number}", title, ends, curves, x_name="hours", x_step=12 if hours >= 24 else None)
        if curves
        else None
    )
    return {**plot, "svg": svg}


def loss_plots(condensed: list[Data]) -> list[Data]:
    """One panel for every condensed set that has a curve; logarithmic when it spans more than a factor of 20."""
    panels = []
    for number, item in enumerate(condensed):
        curve = [value for value in item["loss_curve"] if value is not None]
        if len(curve) < 2:
            continue
        log = min(curve) > 0 and max(curve) / min(curve) > 20
        told = f"from {curve[0]:.4g} to {curve[-1]:.4g} over {len(curve)} recorded points"
        share = [100 * index / (len(curve) - 1) for index in range(len(curve))]
        svg = curve_panel(
            f"loss-{number}", f"Loss of {item['name']}", told, [("loss", share, curve)], x_name="% of the run", log=log
        )
        panels.append({"name": item["name"], "method": item["method"], "svg": svg, "told": told, "log": log})
    return panels
