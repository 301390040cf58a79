"""May it leave: the decision of the gate, and the exit code of a run that released nothing."""

from __future__ import annotations

from collections.abc import Mapping

from flows import registry
from flows.charging.foresee import Known, require_releasable
from flows.stages.artefacts import Candidate
from flows.streams.tonight import of_stream
from flows.workspace import accepted, history
from flows.workspace.job import Job
from pipeline.core.codec import record_digest
from pipeline.core.digest import digest_json
from pipeline.core.errors import UtilityError
from pipeline.core.types import (
    Cohort,
    CondensedSet,
    EncodedCohort,
    GateDecision,
    LeakageReport,
    Moments,
    ReleaseRecord,
    UtilityReport,
)
from pipeline.sharing.policy import gate
from pipeline.sharing.policy.ledger import reserved_queries
from pipeline.sharing.policy.load import load_policy
from pipeline.sharing.policy.rules import expiry_findings
from pipeline.store import Made


def releasable(job: Job, cohort: Made[Cohort]) -> None:
    """Go on only if the gate's answer is still open: what it would refuse in the end costs no hours before.

    A cohort that was released already is not looked at, and a stream goes on whatever becomes of its nights. A run by
    hand goes on as well: who started it may want the report.

    Raises:
        DataError, ReleaseRefused: as `require_releasable`.
    """
    if not job.night or accepted.newest_content(job) == accepted.content_of(job, cohort):
        return
    if not any(of_stream(table) for table in job.config.condense.values()):
        require_releasable(job.config, Known.of(job.only(cohort, Cohort)), to_release=job.to_release)


def decide(
    job: Job, candidate: Made[Candidate], leakage: Made[LeakageReport], utility: Made[UtilityReport]
) -> Made[GateDecision]:
    """The gate's decision on what the configuration wants to release."""
    policy = load_policy(job.config.release.policy)
    parents = (candidate.first, *leakage.digests, utility.first)
    around = circumstances(job, candidate)

    def make(_: object) -> tuple[GateDecision]:
        reports = reports_on(job, candidate, leakage)
        artefact = released_artefact(job, candidate)
        return (gate.decide(policy, artefact, reports, job.only(utility, UtilityReport), around),)

    before = [record_digest(report) for report in around.accepted or ()]
    options = {
        "policy": policy.digest,
        "countersigned": around.countersigned,
        "accepted": before,
        "ledger": digest_json(sorted(around.ledger)),
        "expiry": [finding.verdict for finding in expiry_findings(policy)],
        **registry.brought(registry.RULES),
    }
    return job.once("decide", parents, options, None, make, [])


def circumstances(job: Job, candidate: Made[Candidate]) -> gate.Circumstances:
    """What the gate looks at beside the artefact and its audit."""
    return gate.Circumstances(
        accepted=history.last_accepted(job, candidate.first),
        countersigned=job.config.release.countersigned,
        rules=registry.policy_rules(),
        ledger=reserved_queries(job.config.workspace),
    )


def reports_on(job: Job, candidate: Made[Candidate], leakage: Made[LeakageReport]) -> tuple[LeakageReport, ...]:
    """The leakage reports that are about the candidate."""
    reports = (job.store.get(digest, LeakageReport) for digest in leakage.digests)
    return tuple(report for report in reports if report.artefact_digest == candidate.first)


def released_artefact(job: Job, candidate: Made[Candidate]) -> gate.Artefact:
    """The candidate itself, of whichever kind it is."""
    kinds: Mapping[str, type[gate.Artefact]] = {cls.__name__: cls for cls in (CondensedSet, EncodedCohort, Moments)}
    artefact: gate.Artefact = job.store.get(candidate.first, kinds[job.store.kind_of(candidate.first)])
    return artefact


def admitted(
    job: Job,
    candidate: Made[Candidate],
    leakage: Made[LeakageReport],
    utility: Made[UtilityReport],
    decision: Made[GateDecision],
) -> gate.AuditedRelease:
    """The release, if utility floor and gate let it pass.

    Raises:
        UtilityError: below the utility floor.
        LeakageError: the gate says FAIL and an attack decided it.
        ReleaseRefused: the gate says FAIL or INCONCLUSIVE for another reason.
    """
    scores = job.only(utility, UtilityReport)
    if (why := shortfall(job, scores)) is not None:
        raise UtilityError(f"nothing was released: {why}")
    return gate.admit(
        load_policy(job.config.release.policy),
        job.only(decision, GateDecision),
        released_artefact(job, candidate),
        reports_on(job, candidate, leakage),
        scores,
        circumstances(job, candidate),
    )


def shortfall(job: Job, utility: UtilityReport) -> str | None:
    """Why the utility floor is not met, or None."""
    table = job.config.utility
    if table.floor_auroc is None:
        return None
    task = next((row.task for row in utility.scores if row.training_set == job.config.release.artefact), "")
    score = utility.score(job.config.release.artefact, table.floor_model, "auroc", task)
    if score is None and not any(row.metric == "auroc" and row.task == task for row in utility.scores):
        return f"the utility floor is an AUROC, which the first task, {task}, does not have"
    if score is None:
        return f"the utility floor asks for {table.floor_model}, which was not trained on {job.config.release.artefact}"
    if score.mean >= table.floor_auroc:
        return None
    return f"{table.floor_model} reaches AUROC {score.mean:.3f}, below the floor of {table.floor_auroc:g}"


def enforce(
    job: Job,
    candidate: Made[Candidate],
    leakage: Made[LeakageReport],
    utility: Made[UtilityReport],
    decision: Made[GateDecision],
    released: Made[ReleaseRecord] | None,
) -> None:
    """Stop the run with its exit code when nothing was released; the report has been written by now.

    Raises:
        DecoctError: as `admitted`.
    """
    if released is None:
        admitted(job, candidate, leakage, utility, decision)
