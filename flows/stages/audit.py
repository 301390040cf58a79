"""What leaks: every attack on every encoding and condensed set."""

from __future__ import annotations

from collections.abc import Mapping

from flows import registry
from flows.stages.artefacts import Candidate, Encoded, Prepared
from flows.workspace import history
from flows.workspace.job import Job
from pipeline.core.types import (
    CondensedSet,
    LeakageReport,
)
from pipeline.store import Made


def audit(
    job: Job,
    prepared: Made[Prepared],
    encoded: Mapping[str, Made[Encoded]],
    condensed: Mapping[str, Made[CondensedSet]],
    candidate: Made[Candidate],
) -> Made[LeakageReport]:
    """Attack every encoding and every condensed set; one LeakageReport for each.

    The report on the release's table names the candidate: for an encoding that is its training part, for moments the
    moments, whose set is a function of them and of nothing else.
    """
    table = job.config.audit
    seed = job.seed("audit")
    parents = tuple(made.first for made in (prepared, *encoded.values(), *condensed.values(), candidate))
    options = {
        "audit": table.model_dump(mode="json"),
        "encoder_key": job.secret("encoder").fingerprint,
        "receiver": [*job.config.utility.models, job.config.utility.epochs],
        **registry.brought(registry.ATTACKS),
    }

    def make(_: object) -> tuple[LeakageReport, ...]:
        from flows.stages.attacks.scenes import SceneOf, attack_all, has_key

        attacked = [
            SceneOf(
                "encoding", name, candidate.first if name == job.config.release.artefact else made.first, made, prepared
            )
            for name, made in encoded.items()
            if has_key(job, made)
        ]
        for name, made in condensed.items():
            source = encoded[job.config.condense[name].input]
            for number, digest in enumerate(made.digests[::2]):
                told = candidate.first if name == job.config.release.artefact else digest
                attacked.append(SceneOf("set", name, told, made, source, number))
        return attack_all(job, attacked, seed)

    audited = job.once("audit", parents, options, seed, make)
    reports = [job.store.get(digest, LeakageReport) for digest in audited.digests]
    history.remember_run(job, reports, again=audited.reused)
    return audited
