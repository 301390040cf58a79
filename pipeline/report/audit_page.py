"""The page of an audit of tables: the same evidence as a run's page, without the run around it."""

from __future__ import annotations

from typing import Any

from pipeline.core.wording import THREAT_MODELS
from pipeline.report.leakage import leakage_section
from pipeline.report.render import environment
from pipeline.report.words import GLOSSARY, LIMITS, VERDICTS

_TERMS = ("member", "TPR at 1 % FPR", "AUROC", "control", "positive control", "ceiling", "interval", "digest")
_MEANINGS = {
    "PASS": (
        "Within the policy's limits",
        "No figure that decides is above its limit. That is not a licence to share.",
    ),
    "FAIL": ("Above the policy's limits", "At least one figure that decides is above its limit."),
    "INCONCLUSIVE": (
        "The evidence does not suffice",
        "No figure is above its limit, but the audit cannot say that all are within.",
    ),
}


def audit_page(data: dict[str, Any]) -> str:
    """The page from `decoct audit-tables`'s data (`decoct/table-audit/1`)."""
    decision = data["decision"]
    headline, meaning = _MEANINGS[decision["verdict"]]
    order = ["FAIL", "INCONCLUSIVE", "PASS"]
    seen = {
        "schema": data["schema"],
        "release_artefact": data["name"],
        "leakage": [data["report"]],
        "decision": decision,
    }
    return (
        environment()
        .get_template("audit.html.j2")
        .render(
            data={**data, "release_artefact": data["name"]},
            verdict={
                "word": decision["verdict"],
                "css": VERDICTS[decision["verdict"]][0],
                "headline": headline,
                "meaning": meaning,
            },
            guarantees=[],
            reasons=sorted(decision["reasons"], key=lambda reason: order.index(reason[0])),
            words={
                "threats": THREAT_MODELS,
                "limits": LIMITS[:1],
                "glossary": [row for row in GLOSSARY if row[0] in _TERMS],
            },
            **leakage_section(seen, []),
        )
    )
