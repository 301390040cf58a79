"""The rules of a release: each looks at one thing and says PASS, FAIL or INCONCLUSIVE, with its reason.

A limit is compared with the *upper* 95 % bound: what the audit could not exclude counts. The reasons hold exact audit
figures: they are for the site's own report and never enter a bundle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

import numpy as np

from pipeline.core.changes import worse
from pipeline.core.codec import record_digest
from pipeline.core.types import (
    AttackResult,
    CondensedSet,
    EncodedCohort,
    LeakageReport,
    Moments,
    PrivacyGuarantee,
    UtilityReport,
    Verdict,
)
from pipeline.sharing.policy.accounting import Unpriced, mismatch, recomputed_epsilon, unreserved
from pipeline.sharing.policy.figures import DecidingFigure, DecidingStatistic, deciding
from pipeline.sharing.policy.load import Policy
from pipeline.sharing.policy.recovery import recovery

Artefact = CondensedSet | EncodedCohort | Moments
Rule = Callable[..., Iterable[Any]]
"""Called as `findings` is, and gives findings, one at least: what it does not object to it says PASS to."""

LEDGER_QUERIES: Final = "ledger_query_digests"
"""Where an artefact's provenance names what was reserved for it; a digest's name, so that it leaves with no bundle."""

ATTACK: Final = "attack "
"""How the reasons that rest on an attack's figure begin."""


@dataclass(frozen=True)
class Finding:
    """One rule that was looked at."""

    verdict: Verdict
    reason: str


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What the gate looks at beside the artefact and its audit. What is left out is looked at and found wanting.

    `ledger`: query -> events of all that was reserved in the workspace; an empty one stands behind no guarantee.
    `rules`: more rules, by name, whose findings are added to the gate's own. `today`: None = the gate's own clock.
    `accepted`: the audit of the last accepted release of this name, () = there is none, None = nobody looked.
    `countersigned`: the code of the statement of recovery that somebody has read.
    """

    ledger: Mapping[str, Sequence[Mapping[str, Any]]]
    rules: Mapping[str, Rule]
    today: date | None = None
    accepted: tuple[LeakageReport, ...] | None = None
    countersigned: str = ""


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
    """Every figure of the reports that may decide with its verdict; figures that may only be shown are left out."""
    return tuple(_attack_verdict(policy, figure) for figure in _deciding_figures(reports))


def findings(
    policy: Policy,
    artefact: Artefact,
    reports: Sequence[LeakageReport],
    utility: UtilityReport | None,
    circumstances: Circumstances,
) -> Iterator[Finding]:
    """Look at every rule of the policy, in a fixed order."""
    kind = release_kind(artefact)
    yield from expiry_findings(policy, circumstances.today)
    yield from _kind_findings(policy, artefact)
    yield from _guarantee_findings(policy, artefact)
    yield from _ledger_findings(artefact, circumstances.ledger)
    yield from _report_findings(record_digest(artefact) if reports else "", reports)
    yield from audit_findings(policy, kind, reports)
    yield from _regression_findings(policy, reports, circumstances.accepted)
    yield from _countersign_findings(policy, reports, circumstances.countersigned)
    yield from _utility_findings(policy, artefact, reports, utility)


RULES: Final[Mapping[str, Rule]] = {"decoct": findings}
"""What the gate always looks at, whatever is installed beside it."""


def audit_findings(policy: Policy, kind: str, reports: Sequence[LeakageReport]) -> Iterator[Finding]:
    """The rules that need nothing but an audit: limits, required attacks, threat models."""
    for item in attack_verdicts(policy, reports):
        yield Finding(item.verdict, item.reason)
    for result in (result for report in reports for result in report.results):
        if result.gates and deciding(result) is None:
            told = f"{result.attack} ({result.threat_model}) offers {result.statistic} to decide by"
            yield Finding("INCONCLUSIVE", f"{told}; known are {', '.join(DecidingStatistic)}")
    yield from _required_findings(policy, kind, reports)


def controls_findings(reports: Sequence[LeakageReport]) -> Iterator[Finding]:
    """No report, or one whose controls or attacks failed."""
    if not reports:
        yield Finding("INCONCLUSIVE", "there is no leakage report")
    for report in reports:
        if not report.controls_held:
            yield Finding("INCONCLUSIVE", f"the audit's controls on {report.artefact} did not hold")
        for item in report.not_run:
            if item.failed:
                yield Finding("INCONCLUSIVE", f"attack {item.attack} on {report.artefact} failed: {item.reason}")


def _deciding_figures(reports: Sequence[LeakageReport]) -> list[DecidingFigure]:
    found = [deciding(result) for report in reports for result in report.results]
    return [figure for figure in found if figure is not None]


def expiry_findings(policy: Policy, today: date | None = None) -> Iterator[Finding]:
    """Has the policy outlived its review? `today` None = the gate's own clock."""
    today = today or datetime.now(tz=UTC).date()
    try:
        over = today > date.fromisoformat(policy.expires)
    except ValueError:
        yield Finding("INCONCLUSIVE", f"policy {policy.name} has no expiry date that can be read")
        return
    if over:
        yield Finding(
            "INCONCLUSIVE", f"policy {policy.name} expired on {policy.expires}: review it, then set a new date"
        )
    else:
        yield Finding("PASS", f"policy {policy.name} holds until {policy.expires}")


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
    yield _claim_finding(guarantee)
    yield _unit_finding(policy, guarantee, artefact)
    if artefact.provenance.config.get("tasks_chosen") == "real_stays":
        yield Finding("FAIL", "its tasks were chosen on real stays, a look at them that no guarantee covers")
    if not all(bool(step.get("public", False)) for step in artefact.transforms):
        yield Finding("FAIL", "a transform used constants computed from patients, which the guarantee does not cover")


def _ledger_findings(artefact: Artefact, ledger: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Finding]:
    """Was what the guarantee claims reserved before the noise was drawn?"""
    guarantee = None if isinstance(artefact, EncodedCohort) else artefact.guarantee
    if guarantee is None:
        return
    queries = artefact.provenance.config.get(LEDGER_QUERIES) or ()
    why = unreserved(guarantee, [str(name) for name in queries], ledger)
    yield Finding("FAIL", why) if why else Finding("PASS", f"its {len(queries)} queries are in the ledger")


def _claim_finding(guarantee: PrivacyGuarantee) -> Finding:
    """Does the claim follow from its own events?"""
    if not guarantee.events or not guarantee.accountant:
        told = "the guarantee names no accounted events or no accountant: nobody can check it"
        return Finding("INCONCLUSIVE", told)
    try:
        again = recomputed_epsilon(guarantee)
    except Unpriced as why:
        return Finding("INCONCLUSIVE", f"the guarantee's epsilon cannot be computed again: {why}")
    told = f"epsilon {guarantee.epsilon:g} is claimed, and its events give {again:.4g}"
    wrong = mismatch(guarantee.epsilon, again)
    if wrong == "understated":
        return Finding("FAIL", f"{told}: the claim is false")
    if wrong == "overstated":
        return Finding("INCONCLUSIVE", f"{told}: claim and events do not belong together")
    return Finding("PASS", f"{told}, computed again by dp-accounting")


def _unit_finding(policy: Policy, guarantee: PrivacyGuarantee, artefact: Artefact) -> Finding:
    """Whom the guarantee protects; a stay is no person unless the source declares that it knows no people."""
    told = f"the guarantee is per {guarantee.unit}"
    if guarantee.unit in policy.units:
        return Finding("PASS", f"{told}, which the policy admits")
    declared = [step.get("known") for step in artefact.transforms if step.get("kind") == "subjects"]
    if guarantee.unit == "stay" and "stay_if_no_subjects" in policy.units:
        if declared and all(known is False for known in declared):
            return Finding("PASS", f"{told}, and the source declares that it knows no people")
        if not declared:
            return Finding("INCONCLUSIVE", f"{told}, and nothing declares whether the source knows people")
        return Finding("FAIL", f"{told}, though the source knows people; the policy admits {', '.join(policy.units)}")
    return Finding("FAIL", f"{told}; the policy admits {', '.join(policy.units)}")


def _report_findings(digest: str, reports: Sequence[LeakageReport]) -> Iterator[Finding]:
    yield from controls_findings(reports)
    for report in reports:
        if report.artefact_digest != digest:
            yield Finding("INCONCLUSIVE", f"a leakage report on {report.artefact} is about another artefact")
    if len({report.artefact for report in reports}) > 1:
        yield Finding("INCONCLUSIVE", "the leakage reports name different artefacts")


def _regression_findings(
    policy: Policy, reports: Sequence[LeakageReport], accepted: Sequence[LeakageReport] | None
) -> Iterator[Finding]:
    """Is it worse than what was accepted last?"""
    blocks = policy.on_regression == "block"
    if accepted is None:
        if blocks:
            yield Finding("INCONCLUSIVE", "nobody looked up the last accepted release, and the policy asks for it")
        return
    if not accepted:
        yield Finding("PASS", "there is no accepted release of this name to compare with")
        return
    found = worse(accepted, reports)
    for change in found:
        yield Finding("FAIL" if blocks else "PASS", f"against the last accepted release: {change.sentence}")
    if not found:
        yield Finding("PASS", "no figure is worse than the last accepted release's beyond its interval")


def _countersign_findings(policy: Policy, reports: Sequence[LeakageReport], countersigned: str) -> Iterator[Finding]:
    """Under an agreement: somebody has read what recipients recover from this very artefact."""
    if not policy.countersign:
        return
    told = recovery(policy, reports)
    if countersigned == told.code:
        yield Finding("PASS", f"what recipients recover was countersigned ({told.code})")
        return
    why = "is not countersigned" if not countersigned else "was countersigned as another statement"
    statement = "; ".join(told.sentences)
    yield Finding("INCONCLUSIVE", f"what recipients recover {why}; read it and countersign {told.code}: {statement}")


def _attack_verdict(policy: Policy, figure: DecidingFigure) -> AttackVerdict:
    result = figure.result
    limit = policy.limit(result.attack, figure.statistic)
    name = f"{ATTACK}{result.attack} ({result.threat_model}), {result.statistic}"
    if limit is None:
        return AttackVerdict(result, None, "INCONCLUSIVE", f"{name}: the policy sets no limit for this figure")
    ceiling = limit.max_upper
    if not figure.is_number:
        told = f"{name}: the figure or its interval is not a number, or one lies outside the other"
        return AttackVerdict(result, ceiling, "INCONCLUSIVE", told)
    shown = f"{name}: {result.rate:.3g} [{result.low:.3g}, {result.high:.3g}], n = {result.n}"
    if ceiling is None:
        return AttackVerdict(result, None, "PASS", f"{shown}; printed, accepted by the policy: {limit.why}")
    if result.low > ceiling:  # however few the observations: the leak is there
        return AttackVerdict(result, ceiling, "FAIL", f"{shown}; above the limit {ceiling:g}: {limit.why}")
    if result.n < limit.min_n:
        return AttackVerdict(result, ceiling, "INCONCLUSIVE", f"{shown}; fewer than {limit.min_n} observations")
    if not result.powered:
        asked = {result.attack, f"{result.attack}:{result.statistic}"}
        blocks = result.high > ceiling or any(asked & set(names) for names in policy.required.values())
        verdict: Verdict = "INCONCLUSIVE" if blocks else "PASS"
        return AttackVerdict(result, ceiling, verdict, f"{shown}; the attack was under-powered")
    if result.high > ceiling:
        return AttackVerdict(result, ceiling, "FAIL", f"{shown}; upper bound above the limit {ceiling:g}: {limit.why}")
    return AttackVerdict(result, ceiling, "PASS", f"{shown}; upper bound within the limit {ceiling:g}")


def _required_findings(policy: Policy, kind: str, reports: Sequence[LeakageReport]) -> Iterator[Finding]:
    figures = [figure.result for figure in _deciding_figures(reports)]
    ran = {name for r in figures for name in (r.attack, f"{r.attack}:{r.statistic}")}
    not_run = {item.attack: item.reason for report in reports for item in report.not_run}
    for name in policy.required[kind]:
        attack = name.partition(":")[0]
        if attack in not_run:
            yield Finding("INCONCLUSIVE", f"required attack {attack} did not run: {not_run[attack]}")
        elif name not in ran:
            yield Finding("INCONCLUSIVE", f"required attack {name} gave no figure that may decide")

    met = {figure.threat_model for figure in figures}
    for name in policy.threat_models[kind]:
        if name not in met:
            yield Finding("INCONCLUSIVE", f"no attack under threat model {name} gave a figure that may decide")


def _utility_findings(
    policy: Policy, artefact: Artefact, reports: Sequence[LeakageReport], utility: UtilityReport | None
) -> Iterator[Finding]:
    if not policy.require_utility or not isinstance(artefact, CondensedSet):
        return
    names = {report.artefact for report in reports}
    scores = [] if utility is None else [row for row in utility.scores if row.training_set in names]
    if not any(row.metric in ("auroc", "r2") for row in scores):
        yield Finding("INCONCLUSIVE", "there is no AUROC or R2 of a model trained on the artefact")
    elif not all(math.isfinite(value) for row in scores for value in (row.mean, row.low, row.high)):
        yield Finding("INCONCLUSIVE", "a utility score of the artefact is not a number")
    else:
        yield Finding("PASS", "models were trained on the artefact and tested on real stays")
