"""Where a workspace keeps proposals and releases, and how a run's artefact becomes one.

workspace/proposals/<site>-<name>-v<N>   signed by the author, waiting for approvals
workspace/releases/<site>-<name>-v<N>    what may be given away
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flows.workspace.job import Job
from pipeline.core.config import ReleaseConfig
from pipeline.core.errors import BudgetError
from pipeline.sharing.approval import publish_unapproved
from pipeline.sharing.bundle import write as bundles
from pipeline.sharing.layout import PROPOSALS as PROPOSALS
from pipeline.sharing.layout import RELEASES as RELEASES
from pipeline.sharing.policy.gate import AuditedRelease
from pipeline.sharing.policy.load import Policy
from pipeline.sharing.trust.keys import author_signer
from pipeline.sharing.trust.log import append_log, read_log


def place(workspace: Path, name: str) -> Path | None:
    """Where the bundle of that name is: among the releases or the proposals; None = somebody moved it away."""
    return next((path for path in (workspace / RELEASES / name, workspace / PROPOSALS / name) if path.exists()), None)


def is_proposal(bundle: Path) -> bool:
    """Whether a bundle's folder lies among a workspace's proposals."""
    return bundle.parent.name == PROPOSALS


def write(
    job: Job, audited: AuditedRelease, notes: bundles.ReleaseNotes, scan: Callable[[Mapping[str, bytes]], None]
) -> Path:
    """Sign and write the proposal; publish it at once where the policy asks for nobody's approval.

    Raises:
        ReleaseRefused, EnvironmentProblem: as `bundles.write_bundle` and `publish_unapproved`.
        BudgetError: the policy allows no more releases in its period.
    """
    workspace = job.config.workspace
    bundles.check_notes(audited, notes)  # before the log: a refusal uses up no version
    if full := no_room(workspace, audited.policy):
        raise BudgetError(f"nothing was signed: {full}")
    told: dict[str, str | int] = {
        "site": notes.site,
        "name": notes.name,
        "version": notes.version,
        "policy": audited.policy.digest,
    }
    proposal = bundles.write_bundle(
        audited,
        workspace / PROPOSALS,
        signer=author_signer(job.secret("author")),
        notes=notes,
        issued=datetime.now(tz=UTC).date(),
        scan=scan,
        log=append_log(workspace, "propose", told),
    )
    if audited.policy.approvals:
        return proposal
    return publish_unapproved(proposal, workspace / RELEASES, workspace=workspace)


def no_room(workspace: Path, policy: Policy) -> str:
    """Why the policy allows no further release in the period; "" = it does.

    That the gate passed is a bit of patients that no account covers: the policy bounds how many are seen. Every
    proposal of the workspace counts, whatever its name or policy, by the log's own dates.
    """
    period = timedelta(days=policy.budget.period_days)
    made = [entry for entry in read_log(workspace).entries if entry["what"] == "propose"]
    recent = [entry for entry in made if datetime.now(tz=UTC) - datetime.fromisoformat(entry["when"]) < period]
    if len(recent) < policy.most_per_period:
        return ""
    return (
        f"this workspace has made {len(recent)} releases in the last {period.days} days, and policy {policy.name} "
        f"allows {policy.most_per_period}"
    )


def next_version(workspace: Path, settings: ReleaseConfig) -> int:
    """One more than any version that the log or the folders know: a number is never used for two releases."""
    release = {"site": settings.site, "name": settings.artefact}
    logged = [entry for entry in read_log(workspace).entries if entry["what"] == "propose"]
    used = [int(entry["version"]) for entry in logged if {key: entry[key] for key in release} == release]
    version = max(used, default=0) + 1
    while place(workspace, bundles.bundle_name(_named(settings, version))) is not None:
        version += 1
    return version


def _named(settings: ReleaseConfig, version: int) -> bundles.ReleaseNotes:
    return bundles.ReleaseNotes(settings.artefact, settings.site, version, settings.licence)
