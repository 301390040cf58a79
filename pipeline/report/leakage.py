"""The audit's part of the page: results by threat model, and what was not tested; the judged artefact comes first."""

from __future__ import annotations

from typing import Any, Final

from pipeline.report.plots import strip
from pipeline.report.threats import curves, reconstructions, residual, threat_sentences
from pipeline.report.words import STATISTICS, THREAT_MODELS, mapping

Data = dict[str, Any]
BUNDLE: Final = "bundle"  # the artefact name of the scan of released bytes


def leakage_section(data: Data, guarantees: list[Data]) -> Data:
    """Everything that leakage.html.j2 prints; what was judged speaks, or all artefacts when nothing was."""
    judged = judged_reports(data) or data["leakage"]
    sentences = threat_sentences(judged)
    names = {report["artefact"] for report in judged}
    return {
        "leakage": leakage_views(data),
        **gaps(data),
        "untouched": untouched(data),
        "judged_audited": bool(judged_reports(data)),
        "sentences": sentences,
        "curves": curves(judged, guarantees),
        "reconstructions": reconstructions(judged),
        "mapping": mapping(judged),
        "residual": residual(judged, sentences, any(item["name"] in names for item in guarantees)),
    }


def leakage_views(data: Data) -> list[Data]:
    """All audits, the judged artefact's first; the others are `aside` unless nothing was judged."""
    judged = judged_reports(data)
    reports = judged + [report for report in data["leakage"] if report not in judged]
    views = [leakage_view(report, number) for number, report in enumerate(reports)]
    return [{**view, "aside": bool(judged) and place >= len(judged)} for place, view in enumerate(views)]


def leakage_view(report: Data, number: int) -> Data:
    """One artefact's results by threat model, each with its strip plot."""
    order = list(THREAT_MODELS)
    results = sorted(report["results"], key=lambda row: order.index(row["threat_model"]))
    rows = [
        {
            **row,
            "statistic_name": STATISTICS.get(row["statistic"], row["statistic"].replace("_", " ")),
            "strip": strip(f"attack-{number}-{place}", row),
            "weak": not row["powered"],
            "broken": not row["controls_held"],
        }
        for place, row in enumerate(results)
    ]
    return {
        **report,
        "results": rows,
        "models": [name for name in order if any(row["threat_model"] == name for row in rows)],
        "scaled": any(row["strip"] for row in rows),
    }


def judged_reports(data: Data) -> list[Data]:
    """The audits of the judged artefact and, when there is one, of the bundle's bytes."""
    return [report for report in data["leakage"] if report["artefact"] in (data["release_artefact"], BUNDLE)]


def untouched(data: Data) -> list[str]:
    """Threat models for which the audit of the judged artefact holds neither a result nor a reason."""
    reports = judged_reports(data) or data["leakage"]
    met = {item["threat_model"] for report in reports for item in (*report["results"], *report["not_run"])}
    return [name for name in THREAT_MODELS if name not in met]


def gaps(data: Data) -> Data:
    """Attacks that did not run: on what was judged one by one, on the rest with the artefacts that share a reason.

    A scan of the judged artefact's bytes that did not run is no gap when the bundle's bytes were scanned.
    """
    judged = judged_reports(data)
    scanned = {row["attack"] for report in judged if report["artefact"] == BUNDLE for row in report["results"]}
    rest: dict[tuple[str, str, str], list[str]] = {}
    for report in data["leakage"]:
        for item in [] if report in judged else report["not_run"]:
            rest.setdefault((item["attack"], item["threat_model"], item["reason"]), []).append(item["artefact"])
    return {
        "not_run": [item for report in judged for item in report["not_run"] if item["attack"] not in scanned],
        "not_run_aside": [
            {"attack": attack, "threat_model": threat, "reason": reason, "artefacts": artefacts}
            for (attack, threat, reason), artefacts in rest.items()
        ],
    }


def glance_leakage(data: Data) -> Data:
    """The judged artefact's audit in three numbers."""
    reports = judged_reports(data)
    return {
        "results": sum(len(report["results"]) for report in reports),
        "gating": sum(row["gates"] for report in reports for row in report["results"]),
        "not_run": len(gaps(data)["not_run"]),
        "controls_held": all(report["controls_held"] for report in reports) if reports else None,
    }
