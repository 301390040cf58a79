"""The gate: PASS, FAIL or INCONCLUSIVE, and only PASS opens it. Silence is never a pass.

A missing policy, report, metric or control, a NaN, an under-powered or absent required attack are INCONCLUSIVE and
block just as FAIL does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

from pipeline.core.errors import LeakageError, ReleaseRefused
from pipeline.core.types import GateDecision, LeakageReport, UtilityReport, Verdict
from pipeline.sharing.policy.added import added_findings
from pipeline.sharing.policy.load import Policy
from pipeline.sharing.policy.rules import (
    ATTACK,
    Finding,
    audit_findings,
    controls_findings,
    expiry_findings,
    findings,
)
from pipeline.sharing.policy.rules import Artefact as Artefact  # callers speak of the gate's artefacts
from pipeline.sharing.policy.rules import Circumstances as Circumstances  # likewise


def decide(
    policy: Policy | None,
    artefact: Artefact,
    reports: Sequence[LeakageReport],
    utility: UtilityReport | None,
    circumstances: Circumstances,
) -> GateDecision:
    """Look at every rule and give one verdict: FAIL before INCONCLUSIVE before PASS.

    The reasons hold exact audit figures: they are for the site's own report and never enter a bundle.
    """
    if policy is None:
        return GateDecision("INCONCLUSIVE", "", "", (("INCONCLUSIVE", "no release policy was given"),))
    case = policy, artefact, reports, utility, circumstances
    own = tuple(findings(*case))  # before anybody else's code sees the artefact
    return _decision(policy, (*own, *added_findings(*case)))


def judge_audit(policy: Policy, kind: str, reports: Sequence[LeakageReport]) -> GateDecision:
    """What the policy's limits say of an audit alone, of a set that nobody here made: no release follows from it.

    Looked at are expiry, controls, limits, required attacks and threat models of `kind`; not the guarantee, the method
    or the usefulness, which such a set cannot show.
    """
    looked_at = (*expiry_findings(policy), *controls_findings(reports), *audit_findings(policy, kind, reports))
    return _decision(policy, looked_at)


def _decision(policy: Policy, looked_at: Sequence[Finding]) -> GateDecision:
    reasons = tuple((finding.verdict, finding.reason) for finding in looked_at)
    return GateDecision(_worst(looked_at), policy.name, policy.digest, reasons)


def leaks(decision: GateDecision) -> bool:
    """True when the verdict is FAIL and an attack's figure, not only the paperwork, is among the reasons."""
    return any(verdict == "FAIL" and reason.startswith(ATTACK) for verdict, reason in decision.reasons)


def _worst(looked_at: Sequence[Finding]) -> Verdict:
    verdicts = {finding.verdict for finding in looked_at}
    if "FAIL" in verdicts:
        return "FAIL"
    return "PASS" if verdicts == {"PASS"} else "INCONCLUSIVE"


_FROM_THE_GATE: Final = object()


@final
class AuditedRelease:
    """An artefact that passed; only `admit` makes one, and the bundle writer takes nothing else."""

    __slots__ = ("artefact", "decision", "name", "policy", "reports", "utility")

    def __init__(
        self,
        token: object,
        policy: Policy,
        decision: GateDecision,
        artefact: Artefact,
        reports: tuple[LeakageReport, ...],
        utility: UtilityReport | None,
    ) -> None:
        if token is not _FROM_THE_GATE:
            raise ReleaseRefused("only the gate makes an audited release: call pipeline.sharing.policy.gate.admit")
        self.policy, self.decision, self.artefact = policy, decision, artefact
        self.reports, self.utility, self.name = reports, utility, reports[0].artefact

    def __repr__(self) -> str:
        return f"AuditedRelease({self.name!r}, policy={self.policy.name!r})"


def admit(
    policy: Policy,
    decision: GateDecision,
    artefact: Artefact,
    reports: Sequence[LeakageReport],
    utility: UtilityReport | None,
    circumstances: Circumstances,
) -> AuditedRelease:
    """Turn a PASS into an audited release, after deciding again: a stale or borrowed decision opens nothing.

    Raises:
        LeakageError: the verdict is FAIL and an attack's figure is among the reasons.
        ReleaseRefused: the verdict is not PASS, or the decision is not the one that this policy and these reports give.
    """
    if decision.policy_digest != policy.digest or decision.policy != policy.name:
        raise ReleaseRefused(f"the gate's decision was made under another policy than {policy.name}")
    if decision != decide(policy, artefact, reports, utility, circumstances):
        raise ReleaseRefused("the gate's decision does not follow from this artefact and these reports")
    if decision.verdict != "PASS":
        reasons = "; ".join(reason for verdict, reason in decision.reasons if verdict != "PASS")
        sentence = f"release refused under policy {policy.name}, verdict {decision.verdict}: {reasons}"
        raise LeakageError(sentence) if leaks(decision) else ReleaseRefused(sentence)
    return AuditedRelease(_FROM_THE_GATE, policy, decision, artefact, tuple(reports), utility)
