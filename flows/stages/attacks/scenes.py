"""Every attack on every artefact: in this process, or each by whichever worker is free."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, final

from flows import registry
from flows.compute.maps import calls, everywhere, for_much_work
from flows.progress import piece_by_piece, say, steps
from flows.stages.artefacts import condensed_sets, set_name
from flows.stages.attacks.mechanism import private_mechanism
from flows.stages.attacks.model import receivers_model
from flows.stages.attacks.shadows import announced, condenses_again
from flows.stages.encode import cohort_of, encoder_input, fitted_encoder, require_encoder_key
from flows.workspace.job import Job
from pipeline.audit.encodings.terms import MAX_WINDOW
from pipeline.audit.run import Outcome, attempt, attempts, audit, condense_again, condensed_again
from pipeline.audit.scene import (
    CondensedScene,
    CondensesAgain,
    EncodingScene,
    LeakageAttack,
    Level,
    Scene,
    encoding_scene,
)
from pipeline.core.config import Encode
from pipeline.core.keys.secrets import SECRET_BYTES, Secret
from pipeline.core.types import EncodedCohort, LeakageReport, Split, with_tasks
from pipeline.store import Made

N_SURROGATES: Final = 6  # encoders under made-up keys, from which the audit learns the public circuit's structure


@final
@dataclass(frozen=True)
class SceneOf:
    """Of which artefact a scene is: what a worker is told, and makes the scene from by its job."""

    kind: Literal["encoding", "set"]
    name: str
    digest: str  # that the report names
    made: Made[Any]
    source: Made[Any]  # of an encoding the prepared cohort, of a set the encoded one
    number: int = 0  # among the sets of a table that has one for each group or task


def attack_all(
    job: Job, attacked: Sequence[SceneOf], seed: int, attacks: Sequence[LeakageAttack] | None = None
) -> tuple[LeakageReport, ...]:
    """One report for each artefact, by the engine that the [compute] table names; `attacks` None = all installed ones.

    Attacks train networks, whose random state belongs to a process: threads run them one after the other.
    """
    given = registry.attacks() if attacks is None else attacks
    try:
        scenes: list[Scene] = [scene_of(job, told) for told in attacked]
        job = for_much_work(
            job, max((len(job.only(told.source, EncodedCohort).labels) for told in attacked), default=0)
        )
        if job.config.compute.by_workers:
            return _by_workers(job, scenes, attacked, seed, given)
        scenes = [_announced(job, scene, told, given) for scene, told in zip(scenes, attacked, strict=True)]
        level = job.config.audit.level
        here = (attempt(scenes[place], attack, seed=seed, level=level) for place, attack in attempts(scenes, given))
        return _reports(scenes, seed, given, level, here)
    finally:
        _forget()
        everywhere(job, _forget)


def _by_workers(
    job: Job,
    scenes: Sequence[Scene],
    attacked: Sequence[SceneOf],
    seed: int,
    attacks: Sequence[LeakageAttack],
) -> tuple[LeakageReport, ...]:
    """All shadows first, each a piece; then every attack, which finds them."""
    level = job.config.audit.level
    key = job.secret("encoder").fingerprint
    shadows = [
        (job, key, attacked[place], attack, number, seed)
        for place, scene in enumerate(scenes)
        for attack, number in condensed_again(scene, attacks, level)
    ]
    with steps("condensing again", "") as on_step:
        for done, _ in enumerate(calls(job, _shadow, shadows)):
            on_step(done + 1, len(shadows), 0.0)
    pieces = [(job, key, attacked[place], attack, level, seed) for place, attack in attempts(scenes, attacks)]
    return _reports(scenes, seed, attacks, level, calls(job, _attempted, pieces))


def _reports(
    scenes: Sequence[Scene], seed: int, attacks: Sequence[LeakageAttack], level: Level, made: Iterable[Outcome]
) -> tuple[LeakageReport, ...]:
    """The reports, while `made` gives the outcome of each attack."""
    names = [f"{attack.name} on {scenes[place].artefact}" for place, attack in attempts(scenes, attacks)]
    with steps("attacking", "") as on_step:
        shown = piece_by_piece(names, made)
        return audit(scenes, seed=seed, attacks=attacks, level=level, on_step=on_step, elsewhere=shown)


def scene_of(job: Job, told: SceneOf) -> EncodingScene | CondensedScene:
    """What the attacker of an artefact has, and what he is judged by."""
    return _encoding_scene(job, told) if told.kind == "encoding" else _condensed_scene(job, told)


def _announced(job: Job, scene: Scene, told: SceneOf, attacks: Sequence[LeakageAttack]) -> Scene:
    if isinstance(scene, CondensedScene):
        return announced(scene, told.made.seconds, job.config.audit.level, say, attacks)
    return scene


def _attempted(job: Job, key: str, told: SceneOf, attack: LeakageAttack, level: Level, seed: int) -> Outcome:
    """On a worker: one attack."""
    return attempt(_scene_there(job, key, told), attack, seed=seed, level=level)


def _shadow(job: Job, key: str, told: SceneOf, attack: CondensesAgain, number: int, seed: int) -> None:
    """On a worker: one of the sets that an attack of the full audit condenses again; it stays in the run's folder."""
    condense_again(_scene_there(job, key, told), attack, number, seed=seed)


@lru_cache(maxsize=8)
def _scene_there(job: Job, key: str, told: SceneOf) -> Scene:
    require_encoder_key(job, key)
    return scene_of(job, told)


@lru_cache(maxsize=2)
def _parts(job: Job, encoded: str) -> tuple[EncodedCohort, EncodedCohort]:
    """Members and holdout of an encoding: the sets of a table, and tables of one encoding, share their arrays."""
    whole = job.store.get(encoded, EncodedCohort)
    return whole.part(Split.TRAIN), whole.part(Split.HELD_OUT)


def _forget() -> None:
    """Hold no patient's series any longer: a worker outlives the run."""
    _scene_there.cache_clear()
    _parts.cache_clear()


def has_key(job: Job, made: Made[object]) -> bool:
    """False for encodings that hide nothing: there is no key to attack."""
    return job.store.describe(made.first)["meta"]["transforms"][-1]["key_fingerprint"] is not None


def _encoding_scene(job: Job, told: SceneOf) -> EncodingScene:
    """The attacker's own patients are the tuning stays; his targets are training stays."""
    name = told.name
    table = _computable(job.config.encode[name])
    series = encoder_input(job, name, told.source)
    encoder = registry.encoder(table)
    fitted = fitted_encoder(table, series, job.secret("encoder"))
    spec = fitted.public_spec()
    observed = cohort_of(job, job.only(told.source, EncodedCohort)).observed if table.data == "series" else None
    made_up = [Secret(bytes([number]) * SECRET_BYTES, "encoder") for number in range(N_SURROGATES)]
    return encoding_scene(
        name,
        told.digest,
        prepared=series,
        encoded=job.only(told.made, EncodedCohort),
        encode=fitted.encode_array,
        spec=spec,
        observed=observed,
        surrogates=[encoder.fit(series, key).encode_array for key in made_up if spec["window"] <= MAX_WINDOW],
        max_targets=job.config.audit.max_targets,
        n_bootstrap=job.config.audit.n_bootstrap,
        encode_under=lambda key: encoder.fit(series, Secret(key, "encoder")).encode_array,
    )


def _computable(table: Encode) -> Encode:
    """The same map without a quantum device: an attacker computes it, and so does the audit."""
    if table.kind == "quantum":
        return table.model_copy(update={"backend": "closed_form"})
    return table


def _condensed_scene(job: Job, told: SceneOf) -> CondensedScene:
    """Members are the training stays, the holdout control is the held-out stays."""
    encoded, samples = job.only(told.source, EncodedCohort), condensed_sets(job, told.made)[told.number]
    encoded = with_tasks(encoded, samples.tasks)
    members, holdout = (with_tasks(part, samples.tasks) for part in _parts(job, told.source.first))
    table, seed = job.config.condense[told.name], job.seed("condense", told.name)
    labelled = encoded.tasks == samples.tasks
    return CondensedScene(
        artefact=set_name(told.name, told.number),
        artefact_digest=told.digest,
        condensed=samples,
        members=members.features,
        holdout=holdout.features,
        member_subjects=members.subject_index,
        holdout_subjects=holdout.subject_index,
        member_labels=members.labels if labelled else None,
        holdout_labels=holdout.labels if labelled else None,
        recondense=condenses_again(table, encoded, samples, seed, job.config.device) if labelled else None,
        shadow_folder=str(job.folder / "shadows"),
        mechanism=private_mechanism(table, encoded, samples),
        receiver=receivers_model(job.config.utility, job.config.device) if labelled else None,
    )
