"""Is it worth sharing, what leaks, and may it leave: utility, audit, gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

import numpy as np

from flows.attacks.model import receivers_choice
from flows.attacks.scenes import SceneOf, attack_all, has_key
from flows.progress import steps
from flows.stages.condensing import condensed_sets, set_name, table_of
from flows.stages.learn import device, with_tasks
from flows.workspace import history as audit_history
from flows.workspace.job import Job
from pipeline.core.codec import record_digest
from pipeline.core.errors import UtilityError
from pipeline.core.seeds import generator
from pipeline.core.types import CondensedSet, EncodedCohort, GateDecision, LeakageReport, Moments, Split, UtilityReport
from pipeline.sharing.policy import gate
from pipeline.sharing.policy.load import load_policy
from pipeline.store import Made
from pipeline.validation.utility import TrainingSet, measure_utility

FULL_DATA: Final = "full_data"
RANDOM_REAL: Final = "random_real_stays"


def utility(job: Job, encoded: Mapping[str, Made], condensed: Mapping[str, Made]) -> Made:
    """Train on every condensed set, on all real training stays and on equally many random ones; test on real stays."""
    config, table = job.config, job.config.utility
    seed = job.seed("utility")
    where = device(config.device)
    options = {"utility": table.model_dump(mode="json"), "reference": config.release.model_dump(mode="json")}
    parents = tuple(made.first for made in (*encoded.values(), *condensed.values()))

    def make(_: object) -> tuple[UtilityReport]:
        with steps("training the panel", "") as on_step:
            report = measure_utility(
                _training_sets(job, encoded, condensed),
                models=table.models,
                n_seeds=table.n_seeds,
                epochs=table.epochs,
                seed=seed,
                device=where,
                on_step=on_step,
            )
        rows = tuple(dataclasses.replace(row, training_set=table_of(row.training_set)) for row in report.scores)
        return (dataclasses.replace(report, scores=rows),)

    return job.once("utility", parents, options, seed, make)


def _training_sets(job: Job, encoded: Mapping[str, Made], condensed: Mapping[str, Made]) -> dict[str, TrainingSet]:
    """The condensed sets, then their ceiling and their baseline in the reference set's encoding and tasks."""
    tables = job.config.condense
    sets: dict[str, TrainingSet] = {}
    for name, made in condensed.items():
        held_out = job.only(encoded[tables[name].input], EncodedCohort).part(Split.HELD_OUT)
        for number, samples in enumerate(condensed_sets(job, made)):
            test = with_tasks(held_out, samples.tasks)
            key = set_name(name, number)
            sets[key] = TrainingSet(tables[name].input, samples.features, samples.labels, test)
    reference = _reference(job, sets)
    table, test = tables[reference], sets[reference].test
    source = job.config.release.artefact if job.config.release.kind == "encoded" else table.input
    training = job.only(encoded[source], EncodedCohort)
    test = with_tasks(training.part(Split.HELD_OUT), test.tasks)
    training = with_tasks(training.part(Split.TRAIN), test.tasks)
    draws = [_random_rows(job, training, table.n_per_class, draw) for draw in range(job.config.utility.n_random_draws)]
    sets[FULL_DATA] = TrainingSet(source, training.features, training.labels, test)
    sets[RANDOM_REAL] = TrainingSet(
        source, tuple(training.features[rows] for rows in draws), tuple(training.labels[rows] for rows in draws), test
    )
    return sets


def _reference(job: Job, sets: Mapping[str, TrainingSet]) -> str:
    """The condensed set whose size and tasks the full-data and random rows take: the released one, else the first."""
    return job.config.release.artefact if job.config.release.artefact in sets else next(iter(sets))


def _random_rows(job: Job, training: EncodedCohort, n_per_class: int, draw: int) -> np.ndarray:
    random = generator(job.seed("random real stays"), draw)
    classes = [np.flatnonzero(training.labels[:, 0] < 0.5), np.flatnonzero(training.labels[:, 0] >= 0.5)]
    return np.concatenate([random.choice(rows, min(n_per_class, len(rows)), replace=False) for rows in classes])


def audit(
    job: Job, prepared: Made, encoded: Mapping[str, Made], condensed: Mapping[str, Made], candidate: Made
) -> Made:
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
        "receiver": [receivers_choice(job.config.utility), job.config.utility.epochs],
    }

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

    def make(_: object) -> tuple[LeakageReport, ...]:
        return attack_all(job, attacked, seed)

    made = job.once("audit", parents, options, seed, make)
    if not made.reused:
        audit_history.remember_run(job, [job.store.get(digest, LeakageReport) for digest in made.digests])
    return made


def decide(job: Job, candidate: Made, leakage: Made, utility: Made) -> Made:
    """The gate's decision on what the configuration wants to release."""
    policy = load_policy(job.config.release.policy)
    parents = (candidate.first, *leakage.digests, utility.first)
    around = circumstances(job, candidate)

    def make(_: object) -> tuple[GateDecision]:
        reports = reports_on(job, candidate, leakage)
        artefact = released_artefact(job, candidate)
        return (gate.decide(policy, artefact, reports, job.only(utility, UtilityReport), around),)

    accepted = [record_digest(report) for report in around.accepted or ()]
    options = {"policy": policy.digest, "countersigned": around.countersigned, "accepted": accepted}
    return job.once("decide", parents, options, None, make)


def circumstances(job: Job, candidate: Made) -> gate.Circumstances:
    """What the gate looks at beside the artefact and its audit."""
    accepted = audit_history.last_accepted(job, candidate.first)
    return gate.Circumstances(accepted=accepted, countersigned=job.config.release.countersigned)


def reports_on(job: Job, candidate: Made, leakage: Made) -> tuple[LeakageReport, ...]:
    """The leakage reports that are about the candidate."""
    reports = (job.store.get(digest, LeakageReport) for digest in leakage.digests)
    return tuple(report for report in reports if report.artefact_digest == candidate.first)


def released_artefact(job: Job, candidate: Made) -> gate.Artefact:
    """The candidate itself, of whichever kind it is."""
    kinds: Mapping[str, type[gate.Artefact]] = {cls.__name__: cls for cls in (CondensedSet, EncodedCohort, Moments)}
    artefact: gate.Artefact = job.store.get(candidate.first, kinds[job.store.kind_of(candidate.first)])
    return artefact


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


def admitted(job: Job, candidate: Made, leakage: Made, utility: Made, decision: Made) -> gate.AuditedRelease:
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


def enforce(job: Job, candidate: Made, leakage: Made, utility: Made, decision: Made) -> None:
    """Stop the run with its exit code when nothing was released; the report has been written by now.

    Raises:
        DecoctError: as `admitted`.
    """
    admitted(job, candidate, leakage, utility, decision)
