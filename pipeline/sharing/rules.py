"""The rules of a release: each looks at one thing and says PASS, FAIL or INCONCLUSIVE, with its reason.

A limit is compared with the *upper* 95 % bound: what the audit could not exclude counts. The reasons hold exact audit
figures: they are for the site's own report and never enter a bundle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.core.codec import record_digest
from pipeline.core.types import (
    AttackResult,
    CondensedSet,
    EncodedCohort,
    LeakageReport,
    Moments,
    UtilityReport,
    Verdict,
)
from pipeline.sharing.policy import Policy

Artefact = CondensedSet | EncodedCohort | Moments


ATTACK: Final = "attack "
"""How the reasons that rest on an attack's figure begin."""


@dataclass(frozen=True)
class Finding:
    """One rule that was looked at."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class AttackVerdict:
    """One gating attack figure against the policy's limit; `max_upper` None = printed and accepted at any value."""

    result: AttackResult
    max_upper: float | None
    verdict: Verdict
    reason: str


def release_kind(artefact: Artefact) -> str:
    """The policy's word for the artefact's type."""
    if isinstance(artefact, CondensedSet):
        return "condensed"
    return "encoded" if isinstance(artefact, EncodedCohort) else "moments"


def attack_verdicts(policy: Policy, reports: Sequence[LeakageReport]) -> tuple[AttackVerdict, ...]:
    """Every gating figure of the reports with its verdict; figures that may only be shown are left out."""
    return tuple(_attack_verdict(policy, result) for report in reports for result in report.results if result.gates)


def findings(
    policy: Policy, artefact: Artefact, reports: Sequence[LeakageReport], utility: UtilityReport | None
) -> Iterator[Finding]:
    """Look at every rule of the policy, in a fixed order."""
    yield from _kind_findings(policy, artefact)
    yield from _guarantee_findings(policy, artefact)
    yield from _report_findings(artefact, reports)
    for item in attack_verdicts(policy, reports):
        yield Finding(item.verdict, item.reason)
    yield from _required_findings(policy, release_kind(artefact), reports)
    yield from _utility_findings(policy, artefact, reports, utility)


def _kind_findings(policy: Policy, artefact: Artefact) -> Iterator[Finding]:
    kind = release_kind(artefact)
    if kind not in policy.release_kinds:
        yield Finding("FAIL", f"policy {policy.name} does not release {kind} data ({policy.whys['release']})")
    else:
        yield Finding("PASS", f"policy {policy.name} releases {kind} data")
    if isinstance(artefact, CondensedSet):
        if artefact.starts_from_records and not policy.allow_starts_from_records:
            yield Finding("FAIL", "samples were started from real stays, and the policy does not allow that")
        if artefact.method in policy.refused_methods:
            yield Finding("FAIL", f"the policy never releases sets made by {artefact.method}")
    if isinstance(artefact, EncodedCohort):
        rare = _smallest_class(artefact)
        if rare < policy.small_cell:
            yield Finding("FAIL", f"a task has fewer than {policy.small_cell} stays with one of its labels")
    if any(step.get("fresh") for step in artefact.transforms):
        yield Finding("FAIL", "its encoder draws a new map for every window: nobody could encode other stays alike")


def _smallest_class(artefact: EncodedCohort) -> int:
    ones = np.sum(artefact.labels == 1, axis=0)
    zeros = np.sum(artefact.labels == 0, axis=0)
    return int(np.minimum(ones, zeros).min(initial=np.iinfo(np.int64).max))


def _guarantee_findings(policy: Policy, artefact: Artefact) -> Iterator[Finding]:
    guarantee = None if isinstance(artefact, EncodedCohort) else artefact.guarantee
    if guarantee is None:
        if policy.require_guarantee:
            yield Finding("FAIL", f"the artefact carries no privacy guarantee ({policy.whys['guarantee']})")
        return
    for name, value, most in (
        ("epsilon", guarantee.epsilon, policy.max_epsilon),
        ("delta", guarantee.delta, policy.max_delta),
    ):
        if not math.isfinite(value):
            yield Finding("INCONCLUSIVE", f"the guarantee's {name} is not a number")
        elif value > most:
            yield Finding("FAIL", f"{name} {value:g} is above the policy's {most:g}")
        else:
            yield Finding("PASS", f"{name} {value:g} is within the policy's {most:g}")
    if not guarantee.events or not guarantee.accountant:
        yield Finding("INCONCLUSIVE", "the guarantee names no accounted events or no accountant: nobody can check it")
    if not all(bool(step.get("public", False)) for step in artefact.transforms):
        yield Finding("FAIL", "a transform used constants computed from patients, which the guarantee does not cover")


def _report_findings(artefact: Artefact, reports: Sequence[LeakageReport]) -> Iterator[Finding]:
    if not reports:
        yield Finding("INCONCLUSIVE", "there is no leakage report")
    digest = record_digest(artefact) if reports else ""
    for report in reports:
        if report.artefact_digest != digest:
            yield Finding("INCONCLUSIVE", f"a leakage report on {report.artefact} is about another artefact")
        if not report.controls_held:
            yield Finding("INCONCLUSIVE", f"the audit's controls on {report.artefact} did not hold")
    if len({report.artefact for report in reports}) > 1:
        yield Finding("INCONCLUSIVE", "the leakage reports name different artefacts")


def _attack_verdict(policy: Policy, result: AttackResult) -> AttackVerdict:
    limit = policy.limit(result.attack, result.statistic)
    name = f"{ATTACK}{result.attack} ({result.threat_model}), {result.statistic}"
    if limit is None:
        return AttackVerdict(result, None, "INCONCLUSIVE", f"{name}: the policy sets no limit for this figure")
    ceiling = limit.max_upper
    if not all(math.isfinite(value) for value in (result.rate, result.low, result.high)):
        return AttackVerdict(result, ceiling, "INCONCLUSIVE", f"{name}: the figure or its interval is not a number")
    if not result.low <= result.rate <= result.high:
        return AttackVerdict(result, ceiling, "INCONCLUSIVE", f"{name}: the figure lies outside its own interval")
    shown = f"{name}: {result.rate:.3g} [{result.low:.3g}, {result.high:.3g}], n = {result.n}"
    if ceiling is None:
        return AttackVerdict(result, None, "PASS", f"{shown}; printed, accepted by the policy: {limit.why}")
    if result.low > ceiling:  # however few the observations: the leak is there
        return AttackVerdict(result, ceiling, "FAIL", f"{shown}; above the limit {ceiling:g}: {limit.why}")
    if result.n < limit.min_n:
        return AttackVerdict(result, ceiling, "INCONCLUSIVE", f"{shown}; fewer than {limit.min_n} observations")
    if result.detail.get("powered") is False:
        asked = {result.attack, f"{result.attack}:{result.statistic}"}
        blocks = result.high > ceiling or any(asked & set(names) for names in policy.required.values())
        verdict: Verdict = "INCONCLUSIVE" if blocks else "PASS"
        return AttackVerdict(result, ceiling, verdict, f"{shown}; the attack was under-powered")
    if result.high > ceiling:
        return AttackVerdict(result, ceiling, "FAIL", f"{shown}; upper bound above the limit {ceiling:g}: {limit.why}")
    return AttackVerdict(result, ceiling, "PASS", f"{shown}; upper bound within the limit {ceiling:g}")


def _required_findings(policy: Policy, kind: str, reports: Sequence[LeakageReport]) -> Iterator[Finding]:
    figures = [result for report in reports for result in report.results if result.gates]
    ran = {name for r in figures for name in (r.attack, f"{r.attack}:{r.statistic}")}
    not_run = {item.attack: item.reason for report in reports for item in report.not_run}
    for name in policy.required[kind]:
        attack = name.partition(":")[0]
        if attack in not_run:
            yield Finding("INCONCLUSIVE", f"required attack {attack} did not run: {not_run[attack]}")
        elif name not in ran:
            yield Finding("INCONCLUSIVE", f"required attack {name} gave no figure that may decide")


def _utility_findings(
    policy: Policy, artefact: Artefact, reports: Sequence[LeakageReport], utility: UtilityReport | None
) -> Iterator[Finding]:
    if not policy.require_utility or not isinstance(artefact, CondensedSet):
        return
    names = {report.artefact for report in reports}
    scores = [] if utility is None else [row for row in utility.scores if row.training_set in names]
    if not any(row.metric == "auroc" for row in scores):
        yield Finding("INCONCLUSIVE", "there is no AUROC of a model trained on the artefact")
    elif not all(math.isfinite(value) for row in scores for value in (row.mean, row.low, row.high)):
        yield Finding("INCONCLUSIVE", "a utility score of the artefact is not a number")
    else:
        yield Finding("PASS", "models were trained on the artefact and tested on real stays")
