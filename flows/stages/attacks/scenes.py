"""Every attack on every artefact: in this process, or each by whichever worker is free."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, final

from flows import registry
from flows.compute.maps import calls, everywhere, for_much_work
from flows.progress import piece_by_piece, say, steps
from flows.stages.artefacts import condensed_sets, set_name
from flows.stages.attacks.kept import Keeper, Of
from flows.stages.attacks.mechanism import private_mechanism
from flows.stages.attacks.model import receivers_choice, receivers_model
from flows.stages.attacks.shadows import announced, condenses_again
from flows.stages.encode import cohort_of, encoder_input, fitted_encoder, require_encoder_key
from flows.workspace.job import Job
from pipeline.audit.encodings.terms import MAX_WINDOW
from pipeline.audit.once import Origin
from pipeline.audit.run import (
    Outcome,
    attempt,
    attempts,
    audit,
    condense_again,
    condensed_again,
    make_piece,
    pieces_of,
    seed_of,
)
from pipeline.audit.scene import (
    CondensedScene,
    CondensesAgain,
    EncodingScene,
    InPieces,
    LeakageAttack,
    Level,
    Scene,
    encoding_scene,
)
from pipeline.core.codec import record_digest, to_plain
from pipeline.core.config import Encode
from pipeline.core.digest import digest_json
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

    What several artefacts have in common is made once, and what the store has from before is not made again if the job
    resumes. Attacks train networks, whose random state belongs to a process: threads run them one after the other.
    """
    given = registry.attacks() if attacks is None else attacks
    try:
        scenes: list[Scene] = [scene_of(job, told) for told in attacked]
        n_stays = max((len(job.only(told.source, EncodedCohort).labels) for told in attacked), default=0)
        walk = _Walk(for_much_work(job, n_stays), tuple(attacked), tuple(given), seed)
        return audit(scenes, seed=seed, attacks=given, level=walk.level, elsewhere=walk.outcomes(scenes))
    finally:
        _forget()
        everywhere(job, _forget)


@final
@dataclass(frozen=True)
class _Walk:
    """Through all attacks on all artefacts: what has to be made, and by whom."""

    job: Job
    attacked: tuple[SceneOf, ...]
    attacks: tuple[LeakageAttack, ...]
    seed: int

    @property
    def level(self) -> Level:
        return self.job.config.audit.level

    def outcomes(self, scenes: list[Scene]) -> list[Outcome]:
        """Of every attack on every scene, in their order: found, or made after the pieces that they share."""
        keepers = [keeper_of(self.job, told) for told in self.attacked]
        work = attempts(scenes, self.attacks)
        keys = [keepers[place].results(attack, self.level, self.seed) for place, attack in work]
        found = [
            keepers[place].found(key) if self.job.resume else None for (place, _), key in zip(work, keys, strict=True)
        ]
        left = [number for number, outcome in enumerate(found) if outcome is None]
        shared = self._pieces(scenes, {(work[number][0], work[number][1].name) for number in left})
        if self.job.config.compute.by_workers:
            self._shadows(scenes)
        else:
            scenes = [_announced(self.job, *pair, self.attacks) for pair in zip(scenes, self.attacked, strict=True)]
        told = [*shared, *((place, attack, None) for place, attack in (work[number] for number in left))]
        names = [
            f"{attack.name}{'' if name is None else f' {name}'} on {scenes[place].artefact}"
            for place, attack, name in told
        ]
        made = []
        with steps("attacking", "") as on_step:
            for outcome in piece_by_piece(names, self._each(scenes, told)):
                made.append(outcome)
                on_step(len(made), len(told), 0.0)
        for number, outcome in zip(left, made[len(shared) :], strict=True):
            found[number] = outcome
        return [outcome for outcome in found if outcome is not None]

    def _pieces(self, scenes: Sequence[Scene], wanted: set[tuple[int, str]]) -> list[tuple[int, LeakageAttack, str]]:
        """Pieces to be made for the wanted attacks, each once; the last attacks first, as theirs take longest."""
        found: dict[str, tuple[int, LeakageAttack, str]] = {}
        for place, scene in enumerate(scenes):
            if not isinstance(scene, CondensedScene) or not isinstance(scene.keep, Keeper):
                continue
            for attack, name, how in pieces_of(scene, self.attacks, seed=self.seed, level=self.level):
                key = scene.keep.key(attack.name, name, seed_of(attack, self.seed), how)
                if self.job.resume and self.job.store.made(key) is not None:
                    self.job.store.used(self.job.config.name, key)
                elif (place, attack.name) in wanted:
                    found.setdefault(key, (place, attack, name))
        return list(found.values())[::-1]

    def _shadows(self, scenes: Sequence[Scene]) -> None:
        """Sets that are condensed again, each by whichever worker is free."""
        job, key = self.job, self.job.secret("encoder").fingerprint
        told = [
            (job, key, self.attacked[place], attack, number, self.seed)
            for place, scene in enumerate(scenes)
            for attack, number in condensed_again(scene, self.attacks, self.level)
        ]
        with steps("condensing again", "") as on_step:
            for done, _ in enumerate(calls(job, _shadow, told)):
                on_step(done + 1, len(told), 0.0)

    def _each(
        self, scenes: Sequence[Scene], told: Sequence[tuple[int, LeakageAttack, str | None]]
    ) -> Iterator[Outcome | None]:
        key, rest = self.job.secret("encoder").fingerprint, (self.level, self.seed)
        if self.job.config.compute.by_workers:
            yield from calls(
                self.job, _made_there, [(self.job, key, self.attacked[place], *what, *rest) for place, *what in told]
            )
        else:
            for place, attack, name in told:
                yield _made(self.job, self.attacked[place], scenes[place], attack, name, *rest)


def _made(
    job: Job, told: SceneOf, scene: Scene, attack: LeakageAttack, name: str | None, level: Level, seed: int
) -> Outcome | None:
    """A piece of an attack, or what the whole attack finds; kept in either case."""
    keeper = dataclasses.replace(keeper_of(job, told), anew=True)
    if name is None:
        key = keeper.results(attack, level, seed)
        return keeper.keep_results(key, lambda: attempt(scene, attack, seed=seed, level=level))
    assert isinstance(scene, CondensedScene)  # others have no pieces
    assert isinstance(attack, InPieces)
    make_piece(dataclasses.replace(scene, keep=keeper), attack, name, seed=seed)
    return None


def _made_there(
    job: Job, key: str, told: SceneOf, attack: LeakageAttack, name: str | None, level: Level, seed: int
) -> Outcome | None:
    """On a worker."""
    return _made(job, told, _scene_there(job, key, told), attack, name, level, seed)


def scene_of(job: Job, told: SceneOf) -> EncodingScene | CondensedScene:
    """What the attacker of an artefact has, and what he is judged by."""
    return _encoding_scene(job, told) if told.kind == "encoding" else _condensed_scene(job, told)


def _announced(job: Job, scene: Scene, told: SceneOf, attacks: Sequence[LeakageAttack]) -> Scene:
    if isinstance(scene, CondensedScene):
        return announced(scene, told.made.seconds, job.config.audit.level, say, attacks)
    return scene


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
    keeper_of.cache_clear()
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
        keep=keeper_of(job, told),
    )


@lru_cache(maxsize=64)
def keeper_of(job: Job, told: SceneOf) -> Keeper:
    """Who keeps what is made of a scene, and all that this can depend on, as digests."""
    audit_table = {"max_targets": job.config.audit.max_targets, "n_bootstrap": job.config.audit.n_bootstrap}
    artefacts = (told.digest, *told.made.digests[:1], told.source.first)
    if told.kind == "encoding":
        table = job.config.encode[told.name]
        all_told = [artefacts, table.model_dump(mode="json"), audit_table, job.secret("encoder").fingerprint]
        return Keeper(job, Of(digest_json([told.name, *all_told]), artefacts, (registry.point_of(table),)))
    condense, samples = job.config.condense[told.name], condensed_sets(job, told.made)[told.number]
    points = (registry.point_of(condense),)
    tasks = [to_plain(task) for task in samples.tasks]
    receiver = [receivers_choice(job.config.utility), job.config.utility.epochs, job.config.device]
    how = [condense.model_dump(mode="json"), job.seed("condense", told.name)]
    origins: dict[Origin, Of] = {
        "source": Of(digest_json([told.source.first, tasks]), (told.source.first,)),
        "receiver": Of(digest_json(receiver)),
    }
    mechanism = private_mechanism(condense, job.only(told.source, EncodedCohort), samples)
    if mechanism is not None:
        described = [record_digest(mechanism.shape), to_plain(mechanism.guarantee), mechanism.low, mechanism.high]
        origins["mechanism"] = Of(digest_json([how[0], *described]), (), points)
    name = set_name(told.name, told.number)
    whole = [name, artefacts, told.number, how, {name: part.digest for name, part in origins.items()}]
    return Keeper(job, Of(digest_json(whole), artefacts, points), origins)
