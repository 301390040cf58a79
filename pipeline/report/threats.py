"""The audit for somebody who decides: one sentence per attacker, curves, single variables, and what risk remains."""

from __future__ import annotations

from typing import Any, Final

from pipeline.core.wording import THREAT_MODELS
from pipeline.report.plots import roc_panel

Data = dict[str, Any]
SMALL: Final = 10  # a point of a curve that rests on fewer people is not drawn
_ORDER: Final = ("count", "r2", "auroc")  # of two figures of an attacker the first of these is told


def threat_sentences(reports: list[Data]) -> list[Data]:
    """For every threat model: what its strongest attack reached, or that nobody played it and why."""
    found = []
    for name, holds in THREAT_MODELS.items():
        rows = [row for report in reports for row in report["results"] if row["threat_model"] == name]
        rows = [row for row in rows if row["rate"] is not None]
        missed = [row for report in reports for row in report["not_run"] if row["threat_model"] == name]
        if rows:
            worst = max(rows, key=_weight)
            told = f"{worst['summary']}{_variables(worst)}"
            weak = not worst["powered"]
            found.append({"name": name, "holds": holds, "told": told, "state": "weak" if weak else "played"})
        elif missed:
            attacks = ", ".join(dict.fromkeys(row["attack"].replace("_", " ") for row in missed))
            told = f"Not tested: {attacks} did not run, so nothing is known about this attacker."
            found.append({"name": name, "holds": holds, "told": told, "state": "not played"})
    return found


def _weight(row: Data) -> tuple[bool, bool, int, float]:
    """Deciding figures before shown ones, found copies before shares, then by the upper bound."""
    rank = _ORDER.index(row["statistic"]) if row["statistic"] in _ORDER else len(_ORDER)
    is_hit = row["statistic"] == "count" and row["rate"] > 0
    return (bool(row["gates"]), is_hit, -rank if row["statistic"] != "count" else -len(_ORDER), row["high"] or 0.0)


def _variables(row: Data) -> str:
    """The best and the worst recovered variable, where the attack says."""
    by_channel = row["detail"].get("r2_by_channel") or {}
    known = sorted(((value, name) for name, value in by_channel.items() if value is not None), reverse=True)
    if len(known) < 2:
        return ""
    (best, first), (least, last) = known[0], known[-1]
    return f" Of single variables {first} is recovered best (R² {best:.2f}) and {last} worst (R² {max(least, 0):.2f})."


def reconstructions(reports: list[Data]) -> list[Data]:
    """R² by variable of every attack that tells it, best recovered first; of a ladder the strongest step."""
    best: dict[tuple[str, str], Data] = {}
    for report in reports:
        for row in report["results"]:
            if row["detail"].get("r2_by_channel"):
                key = (report["artefact"], row["attack"])
                if key not in best or (row["rate"] or 0) > (best[key]["rate"] or 0):
                    best[key] = row
    return [
        {
            "attack": attack.replace("_", " "),
            "artefact": artefact,
            "threat_model": row["threat_model"],
            "variables": sorted(
                (
                    (name, max(0.0, min(1.0, value)))
                    for name, value in row["detail"]["r2_by_channel"].items()
                    if value is not None
                ),
                key=lambda item: (-item[1], item[0]),
            ),
        }
        for (artefact, attack), row in best.items()
    ]


def curves(reports: list[Data], guarantees: list[Data]) -> list[Data]:
    """ROC curves on log axes of the attacks that give one, with what a guarantee allows beside them."""
    found = []
    for number, report in enumerate(reports):
        bound = next((g for g in guarantees if g["name"] == report["artefact"]), None)
        for place, row in enumerate(report["results"]):
            points = _points(row)
            if len(points) < 2:
                continue
            title = f"{row['attack'].replace('_', ' ')} on {report['artefact']}"
            limits = None if bound is None else (bound["epsilon"], bound["delta"])
            found.append({"title": title, "svg": roc_panel(f"roc-{number}-{place}", title, points, limits)})
    return found


def _points(row: Data) -> list[tuple[float, float]]:
    """(FPR, TPR) where at least ten people are wrongly named, so that no point is about few."""
    roc = row["detail"].get("roc") or {}
    others = row["detail"].get("n_others") or 0
    pairs = zip(roc.get("fpr", ()), roc.get("tpr", ()), strict=False)
    return [(fpr, tpr) for fpr, tpr in pairs if fpr is not None and tpr is not None and fpr * others >= SMALL]


def residual(reports: list[Data], sentences: list[Data], missed: list[str], guaranteed: bool) -> str:
    """What remains after this audit, in one paragraph; `missed` are the attacks that did not run."""
    weak = {row["attack"] for report in reports for row in report["results"] if not row["powered"]}
    silent = [row["name"] for row in sentences if row["state"] == "not played"]
    parts = [
        "What remains is everything that these attacks do not reach."
        if not guaranteed
        else "The guarantee bounds every attacker on what its account covers; the audit looks for faults in how it was "
        "made, and finds only those that its attacks can see."
    ]
    if missed:
        parts.append(f"{len(missed)} attack{'s' if len(missed) > 1 else ''} did not run ({_listed(missed)}).")
    if silent:
        parts.append(f"For the attackers {', '.join(silent)} nothing was measured.")
    if weak:
        parts.append(f"Too few people to tell anything by: {_listed(sorted(weak))}.")
    parts.append(
        "Upper bounds, not rates, are what could not be excluded; and knowledge that an attacker gains later, from "
        "other releases or other sources, is in none of them."
    )
    return " ".join(parts)


def _listed(names: list[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names)
