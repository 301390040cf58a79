"""Sign and write the bundle, every byte of it scanned before."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import final

from flows.stages.artefacts import Candidate
from flows.stages.decide import admitted, reports_on, shortfall
from flows.workspace import history, releases
from flows.workspace.changes import keep_outline
from flows.workspace.job import KEY_PURPOSES, STORE_KEY, Job
from pipeline.core.codec import record_digest
from pipeline.core.config import Config, attribution_of
from pipeline.core.digest import digest_file, digest_json
from pipeline.core.errors import LeakageError, ReleaseRefused
from pipeline.core.types import (
    Cohort,
    CondensedSet,
    GateDecision,
    LeakageReport,
    ReleaseRecord,
    UtilityReport,
)
from pipeline.report.answers import implausible_sentence
from pipeline.sharing.bundle import write as bundles
from pipeline.sharing.policy.gate import Artefact
from pipeline.sharing.policy.load import load_policy
from pipeline.store import Made
from pipeline.validation.contracts import implausible_samples


@final
class _NotAdmitted(Exception):
    """The gate does not let it pass."""


def release(
    job: Job,
    cohort: Made[Cohort],
    candidate: Made[Candidate],
    leakage: Made[LeakageReport],
    utility: Made[UtilityReport],
    decision: Made[GateDecision],
) -> Made[ReleaseRecord] | None:
    """Sign and write the bundle when utility floor and gate allow it; None otherwise. It waits among the proposals
    where the policy asks for approvals.

    Every byte is scanned for identifiers and secrets before it is signed.

    Raises:
        LeakageError: the scan found one.
    """
    if shortfall(job, job.only(utility, UtilityReport)) is not None:
        return None
    workspace, settings = job.config.workspace, job.config.release
    scanned: list[LeakageReport] = []

    def scan(files: Mapping[str, bytes]) -> None:
        scanned.append(_scan(job, cohort, candidate, files))
        found = [result.summary for result in scanned[0].results if result.rate > 0]
        if found or not scanned[0].controls_held:
            raise LeakageError(f"the bundle was not signed: {'; '.join(found) or 'the scan failed its own controls'}")

    def make(_: object) -> tuple[ReleaseRecord, LeakageReport]:
        try:
            audited = admitted(job, candidate, leakage, utility, decision)
        except (LeakageError, ReleaseRefused):
            raise _NotAdmitted from None
        notes = _notes(job.config, releases.next_version(workspace, settings), _said_of(audited.artefact))
        path = releases.write(job, audited, notes, scan)
        files = {file.name: digest_file(file) for file in sorted(path.iterdir())}
        return ReleaseRecord(path.name, digest_json(files), notes.version), scanned[0]

    terms = settings.model_dump(mode="json", exclude={"other_people"}) | {"policy": load_policy(settings.policy).digest}

    def once(job: Job) -> Made[ReleaseRecord]:
        return job.once("release", (candidate.first, decision.first), terms, None, make)

    try:
        made = once(job)
        if releases.place(workspace, job.only(made, ReleaseRecord).name) is None:  # moved away: write the next one
            made = once(dataclasses.replace(job, resume=False))
    except _NotAdmitted:
        return None  # the report is written first; then the last stage stops the run with the gate's own error
    for audit in reports_on(job, candidate, leakage):  # also of what was found: a kill may have come before this
        history.has_left(job, record_digest(audit), job.only(made, ReleaseRecord).name)
    keep_outline(job, cohort, job.only(made, ReleaseRecord).name)
    return made


def _said_of(artefact: Artefact) -> tuple[str, ...]:
    """What a reader of the samples should know; computed from the payload alone."""
    if not isinstance(artefact, CondensedSet):
        return ()
    sentence = implausible_sentence(implausible_samples(artefact), len(artefact.features))
    return (sentence,) if sentence else ()


def _notes(config: Config, version: int, limits: tuple[str, ...]) -> bundles.ReleaseNotes:
    settings = config.release
    return bundles.ReleaseNotes(
        name=settings.artefact,
        site=settings.site,
        version=version,
        licence=settings.licence,
        attribution=" ".join(filter(None, (attribution_of(config.source), settings.attribution))),
        intended_use=settings.intended_use,
        recipients=settings.recipients,
        recipient_keys=settings.recipient_keys,
        agreement=settings.agreement,
        data_use=settings.duo,
        contact=settings.contact,
        limits=limits,
    )


def _scan(job: Job, cohort: Made[Cohort], candidate: Made[Candidate], files: Mapping[str, bytes]) -> LeakageReport:
    """Look for the site's ids, keys, seeds and folders in the bytes that are about to be signed."""
    from pipeline.audit.run import scan_bytes
    from pipeline.audit.scene import BytesScene

    stays = job.only(cohort, Cohort)
    secrets = [job.secret(purpose) for purpose in (*KEY_PURPOSES, STORE_KEY)]
    return scan_bytes(
        BytesScene(
            artefact="bundle",
            artefact_digest=candidate.first,
            files=files,
            identifiers=[*stays.stay_ids.tolist(), *stays.subject_ids.tolist()],
            secrets=[secret.reveal() for secret in secrets],
            seeds=[seed for seed in (job.config.seed,) if seed],
        ),
        seed=job.seed("byte scan"),
    )
