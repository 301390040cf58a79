"""What an audit's and a model's figures become before they are published: coarser, and never better than they were.

Beside an artefact with a guarantee nothing computed from patients is published at all: a rounded bound, or the list of
the attacks that ran, still jumps when one person leaves, and no account covers it. There the policy's own table stands
in (`pipeline.sharing.policy.published`).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from pipeline.sharing.layout import LEAKAGE_FORMAT
from pipeline.sharing.policy.figures import published_bound as published_bound
from pipeline.sharing.policy.gate import AuditedRelease
from pipeline.sharing.policy.published import fixed_audit
from pipeline.sharing.policy.rules import attack_verdicts, release_kind


def leakage_verdicts(release: AuditedRelease) -> dict[str, Any]:
    """The audit as it may be published: verdicts, the policy's limits, bounds rounded up; no rate, n or interval.

    Beside a guarantee it is a function of the policy and the release's kind, and of nothing else: the gate admits no
    other verdict than PASS, and none without its controls.
    """
    policy = release.policy
    if is_private(release):
        return fixed_audit(dataclasses.asdict(policy), release_kind(release.artefact))
    worst: dict[tuple[str, str, str], dict[str, Any]] = {}
    for item in attack_verdicts(policy, release.reports):  # one row per figure: the largest of a ladder's steps
        result, limit = item.result, item.max_upper
        rounded = published_bound(result.statistic, result.high, policy.rounding, policy.small_cell)
        kept = rounded if limit is None else min(rounded, limit)  # it passed, so the limit holds, too
        key = (result.attack, result.threat_model, result.statistic)
        row: dict[str, Any] = dict(zip(("attack", "threat_model", "statistic"), key, strict=True))
        row |= {"verdict": item.verdict, "limit": limit, "upper_bound": kept}
        if key not in worst or kept > worst[key]["upper_bound"]:
            worst[key] = row
    not_run = [
        {"attack": item.attack, "threat_model": item.threat_model}
        for report in release.reports
        for item in report.not_run
        if item.threat_model != "bytes"  # the audit has no bytes yet; the writer's scan sees them all
    ]
    return {
        "format": LEAKAGE_FORMAT,
        "verdict": release.decision.verdict,
        "policy": policy.name,
        "rounding": policy.rounding,
        "controls_held": all(report.controls_held for report in release.reports),
        "attacks": [worst[key] for key in sorted(worst)],
        "not_run": not_run,
    }


def is_private(release: AuditedRelease) -> bool:
    """Does the artefact carry a guarantee that the rest of the bundle must not undo?"""
    return getattr(release.artefact, "guarantee", None) is not None


def rounded_utility(release: AuditedRelease) -> tuple[tuple[str, float, float], ...]:
    """(task, least, most) mean AUROC over the models, rounded down; empty unless the policy prints utility.

    Always empty beside a guarantee.
    """
    policy = release.policy
    if release.utility is None or not policy.print_utility or is_private(release):
        return ()
    by_task: dict[str, list[float]] = {}
    for row in release.utility.scores:
        if row.training_set == release.name and row.metric == "auroc" and math.isfinite(row.mean):
            by_task.setdefault(row.task, []).append(row.mean)
    step = policy.rounding
    down = {task: [round(math.floor(v / step + 1e-9) * step, 6) for v in values] for task, values in by_task.items()}
    return tuple((task, min(values), max(values)) for task, values in sorted(down.items()))
