"""The audit's part of the page: results by threat model, and what was not tested; the judged artefact comes first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pipeline.core.wording import THREAT_MODELS
from pipeline.report.plots import strip
from pipeline.report.threats import curves, reconstructions, residual, threat_sentences
from pipeline.report.words import STATISTICS, mapping

Data = dict[str, Any]
BUNDLE: Final = "bundle"  # the artefact name of the scan of released bytes
_NO_LEAK: Final = {"auroc": 0.5, "tpr_at_1pct_fpr": 0.01, "tpr_at_01pct_fpr": 0.001}
_RANK: Final = {"PASS": 0, "INCONCLUSIVE": 1, "FAIL": 2}
_ON_ENCODINGS: Final = ("T1", "T3", "T4")  # attackers who undo an encoding: without one there is nothing to undo


def leakage_section(data: Data, guarantees: list[Data]) -> Data:
    """Everything that leakage.html.j2 prints; what was judged speaks, or all artefacts when nothing was."""
    judged = judged_reports(data) or data["leakage"]
    sentences = threat_sentences(judged)
    names = {report["artefact"] for report in judged}
    return {
        "leakage": leakage_views(data),
        **gaps(data),
        "missed": missed_attacks(data),
        "untested": untested(data),
        "not_applicable": not_applicable(data),
        "judged_audited": bool(judged_reports(data)),
        "sentences": sentences,
        "curves": curves(judged, guarantees),
        "reconstructions": reconstructions(judged),
        "mapping": mapping(judged),
        "residual": residual(
            judged, sentences, missed_attacks(data), any(item["name"] in names for item in guarantees)
        ),
    }


def leakage_views(data: Data) -> list[Data]:
    """All audits, the judged artefact's first; the others are `aside` unless nothing was judged."""
    judged = judged_reports(data)
    reports = judged + [report for report in data["leakage"] if report not in judged]
    views = [
        leakage_view(report, number, limits_of(data.get("terms"), report["artefact"]))
        for number, report in enumerate(reports)
    ]
    return [{**view, "aside": bool(judged) and place >= len(judged)} for place, view in enumerate(views)]


def leakage_view(report: Data, number: int, limits: list[Data]) -> Data:
    """One artefact's results by threat model, each with its strip plot and the policy's limit on it."""
    order = list(THREAT_MODELS)
    limit = {(row["attack"], row["threat_model"], row["statistic"]): row["limit"] for row in limits}
    results = sorted(report["results"], key=lambda row: order.index(row["threat_model"]))
    allowed = [limit.get((r["attack"], r["threat_model"], r["statistic"])) if r["gates"] else None for r in results]
    rows = [
        {
            **row,
            "statistic_name": STATISTICS.get(row["statistic"], row["statistic"].replace("_", " ")),
            "limit": allowed[place],
            "strip": strip(f"attack-{number}-{place}", row, allowed[place]),
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


def untested(data: Data) -> list[str]:
    """Threat models that can be played here, and for which the judged artefact has neither a result nor a reason."""
    return [name for name in _unmet(data) if name not in not_applicable(data)]


def not_applicable(data: Data) -> list[str]:
    """Threat models that are about an encoding, where what was judged is not encoded: nothing was left untested."""
    made_from = {item["name"]: item["input"] for item in data.get("condensed", ())}
    name = data["release_artefact"]
    spec = data.get("encoders", {}).get(made_from.get(name, name), {})
    is_plain = spec.get("kind") == "identity" or data.get("schema", "").startswith("decoct/table-audit")
    return [name for name in _unmet(data) if name in _ON_ENCODINGS] if is_plain else []


def _unmet(data: Data) -> list[str]:
    reports = judged_reports(data) or data["leakage"]
    met = {item["threat_model"] for report in reports for item in (*report["results"], *report["not_run"])}
    return [name for name in THREAT_MODELS if name not in met]


def missed_attacks(data: Data) -> list[str]:
    """The names of the attacks on what was judged that did not run, each once."""
    return list(dict.fromkeys(item["attack"] for item in gaps(data)["not_run"]))


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


def limits_held(rows: Iterable[Data]) -> Data:
    """`held` of `limited` figures, `broken` in words, and the `nearest` row that held; rows as `record.LimitRow`.

    The one count that terminal, report and watch page show. A figure is an attack's statistic under one threat model;
    where an attack gives it several times, with more and more known pairs, its worst verdict counts, as on the card.
    """
    worst: dict[tuple[str, str, str], Data] = {}
    for row in rows:
        key = (row["attack"], row["threat_model"], row["statistic"])
        if row["limit"] is not None and (key not in worst or _severity(row) > _severity(worst[key])):
            worst[key] = row
    held = [row for row in worst.values() if row["verdict"] == "PASS"]
    broken = [row for row in worst.values() if row["verdict"] != "PASS"]
    return {
        "held": len(held),
        "limited": len(worst),
        "broken": list(dict.fromkeys(row["attack"].replace("_", " ") for row in broken)),
        "nearest": max((row for row in held if row["limit"] and _known(row)), key=share_used, default=None),
    }


def limits_sentence(found: Data) -> str:
    """What `limits_held` found, for every page alike; a policy that accepts any value has held nothing back."""
    return f"{found['held']} of {found['limited']} limits held" if found["limited"] else "no figure has a limit"


def rebuilt(rows: Iterable[Data]) -> str:
    """How well the strongest attack rebuilds the series; empty where none tries."""
    bounds = [row["high"] for row in rows if row["statistic"] == "r2" and _known(row)]
    return f"attacks rebuild its series (R2 up to {max(bounds):.2f})" if bounds else ""


def limits_of(terms: Data | None, artefact: str) -> list[Data]:
    """The rows of one artefact; none where no policy was read."""
    return [row for row in terms["limits"] if row["artefact"] == artefact] if terms else []


def share_used(row: Data) -> float:
    """The share of the room between no leak at all and the limit that the upper bound takes up."""
    none = _NO_LEAK.get(row["statistic"], 0.0)
    high, limit = float(row["high"]), float(row["limit"] or 0.0)
    return (high - none) / (limit - none) if limit > none else 0.0


def _severity(row: Data) -> tuple[int, float]:
    return (_RANK.get(row["verdict"], 1), share_used(row) if _known(row) else 0.0)


def _known(row: Data) -> bool:
    """False for a bound that is held back or not a number."""
    return isinstance(row["high"], int | float)
