"""The audit: every attack on every scene it is about, one report per artefact, and a reason wherever nothing ran."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Final

from pipeline.audit.bytes.scan import ByteScan
from pipeline.audit.encodings.aligned_pairs import AlignedPairs
from pipeline.audit.encodings.attribute_inference import AttributeInference
from pipeline.audit.encodings.blind import BlindSeparation
from pipeline.audit.encodings.inversion import KnownKeyInversion
from pipeline.audit.encodings.key_search import KeySearch, LongKeySearch
from pipeline.audit.encodings.missingness import MissingnessPattern
from pipeline.audit.encodings.profiles import ProfileLinkage, TwoKeys
from pipeline.audit.games.canary_subjects import CanarySubjects
from pipeline.audit.multiplicity import with_family
from pipeline.audit.once import Piece
from pipeline.audit.result import FLAGS, NUMBERS, unsound
from pipeline.audit.scene import BytesScene, CondensedScene, CondensesAgain, InPieces, LeakageAttack, Level, Scene
from pipeline.audit.sets.attribute_set import AttributeInferenceFromSet
from pipeline.audit.sets.linkage_inference import Inference, Linkability
from pipeline.audit.sets.membership import Membership
from pipeline.audit.sets.model_membership import ModelMembership
from pipeline.audit.sets.near_copies import NearCopies
from pipeline.audit.sets.shadows import ShadowCondensation, n_kept
from pipeline.audit.sets.singling_out import SinglingOut
from pipeline.audit.sets.subgroups import SubgroupMembership
from pipeline.audit.sets.successive import SuccessiveReleases
from pipeline.audit.sets.two_sample import TwoSample
from pipeline.audit.tables.covert import CovertRoom
from pipeline.core.codec import to_plain
from pipeline.core.errors import DataError, EnvironmentProblem
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.redaction import location
from pipeline.core.seeds import child_seed
from pipeline.core.threads import single_threaded
from pipeline.core.types import AttackResult, LeakageReport, NotRun, Provenance

DEFAULT_ATTACKS: Final[tuple[LeakageAttack, ...]] = (
    KnownKeyInversion(),
    AlignedPairs(),
    BlindSeparation(),
    MissingnessPattern(),
    AttributeInference(),
    ProfileLinkage(),
    TwoKeys(),
    KeySearch(),
    LongKeySearch(),
    NearCopies(),
    Membership(),
    SubgroupMembership(),
    SinglingOut(),
    Linkability(),
    Inference(),
    AttributeInferenceFromSet(),
    ModelMembership(),
    ShadowCondensation(),
    SuccessiveReleases(),
    TwoSample(),
    CanarySubjects(),
    ByteScan(),
    CovertRoom(),
)

Outcome = tuple[AttackResult, ...] | NotRun
"""What an attack found, or why it did not run."""


def audit(
    scenes: Sequence[Scene],
    *,
    seed: int,
    attacks: Sequence[LeakageAttack] = DEFAULT_ATTACKS,
    level: Level = "screen",
    on_step: OnStep = ignore_step,
    elsewhere: Iterable[Outcome] | None = None,
) -> tuple[LeakageReport, ...]:
    """One report per artefact, in the order of the scenes; deterministic given the seed.

    An attack that cannot run is listed as `NotRun`; so is one of the full audit when `level` is "screen".

    Args:
        elsewhere: what `attempt` gives for each of `attempts(scenes)`, in that order, made by others.

    Raises:
        DataError: no scene, or scenes of one artefact disagree on its digest.
    """
    if not scenes:
        raise DataError("there is no scene to audit")
    digests: dict[str, str] = {}
    results: dict[str, list[AttackResult]] = {}
    not_run: dict[str, list[NotRun]] = {}
    for scene in scenes:
        if digests.setdefault(scene.artefact, scene.artefact_digest) != scene.artefact_digest:
            raise DataError(f"the scenes of {scene.artefact} name different digests")
    for artefact in digests:
        results[artefact] = []
        not_run[artefact] = _known_gaps([scene for scene in scenes if scene.artefact == artefact], artefact)
    work = attempts(scenes, attacks)
    if elsewhere is None:
        elsewhere = (attempt(scenes[place], attack, seed=seed, level=level) for place, attack in work)
    for done, ((place, _), outcome) in enumerate(zip(work, elsewhere, strict=True)):
        if isinstance(outcome, NotRun):
            not_run[scenes[place].artefact].append(outcome)
        else:
            results[scenes[place].artefact] += outcome
        on_step(done + 1, len(work), 0.0)
    return tuple(
        _report(artefact, digest, results[artefact], not_run[artefact], attacks, seed)
        for artefact, digest in digests.items()
    )


def attempts(
    scenes: Sequence[Scene], attacks: Sequence[LeakageAttack] = DEFAULT_ATTACKS
) -> tuple[tuple[int, LeakageAttack], ...]:
    """All that an audit does, in its order: place of the scene, and the attack."""
    return tuple((place, attack) for place, scene in enumerate(scenes) for attack in _about(scene, attacks))


@single_threaded
def attempt(scene: Scene, attack: LeakageAttack, *, seed: int, level: Level) -> Outcome:
    """The results of one attack on one scene, or why it did not run; `seed` and `level` are the audit's.

    An attack that fails, or whose results are none, is no pass: the report's controls then have not held.

    On one thread, as how a sum is cut among threads decides its last digit: a report is the same bytes on any worker.
    """
    told = attack.name, attack.threat_model, scene.artefact
    try:
        reason = _of_another_level(attack, level) or attack.unsupported(scene)
        if reason is not None:
            return NotRun(*told, str(reason))
        found = attack.run(scene, seed_of(attack, seed))
        wrong = unsound(found, attack, scene)
        found = () if wrong else tuple(map(_as_stored, found))
    except (EnvironmentProblem, OSError, MemoryError):
        raise  # the machine's fault, not the attack's
    except Exception as error:  # whoever wrote it: where, and not its text, which may hold a patient's value
        wrong = f"it failed with {location(error)}"
    if wrong is not None:
        return NotRun(*told, wrong, failed=True)
    return found or NotRun(*told, "it found nobody and nothing to judge")


def condensed_again(
    scene: Scene, attacks: Sequence[LeakageAttack] = DEFAULT_ATTACKS, level: Level = "full"
) -> tuple[tuple[CondensesAgain, int], ...]:
    """The sets that an audit condenses again of a scene: the attack, and the number of the set."""
    able = [
        attack
        for attack in _about(scene, attacks)
        if (_of_another_level(attack, level) or attack.unsupported(scene)) is None
    ]
    return tuple(
        (attack, number)
        for attack in able
        if isinstance(attack, CondensesAgain)
        for number in range(attack.condensations())
    )


@single_threaded
def condense_again(scene: Scene, attack: CondensesAgain, number: int, *, seed: int) -> None:
    """One of `condensed_again`, into the scene's folder, where the attack will find it; `seed` is the audit's."""
    attack.condense_again(scene, seed_of(attack, seed), number)


def pieces_of(
    scene: Scene, attacks: Sequence[LeakageAttack] = DEFAULT_ATTACKS, *, seed: int, level: Level
) -> tuple[tuple[InPieces, str, Piece], ...]:
    """The attack, name and piece of all that an audit of the scene has made once for what it depends on."""
    return tuple(
        (attack, name, how)
        for attack in _about(scene, attacks)
        if isinstance(attack, InPieces) and (_of_another_level(attack, level) or attack.unsupported(scene)) is None
        for name, how in attack.pieces(scene, seed_of(attack, seed)).items()
    )


@single_threaded
def make_piece(scene: CondensedScene, attack: InPieces, name: str, *, seed: int) -> None:
    """One of `pieces_of`, to where the scene keeps it; one that fails is left to its attack, which says where."""
    try:
        scene.piece(attack, seed_of(attack, seed), name)
    except (EnvironmentProblem, OSError, MemoryError):
        raise  # the machine's fault
    except Exception:
        return


def seed_of(attack: LeakageAttack | CondensesAgain, seed: int) -> int:
    """An attack's own seed, from the audit's; the same for every artefact, so that these have pieces in common."""
    return child_seed(seed, "audit", attack.name)


def condensations(scene: CondensedScene, attacks: Sequence[LeakageAttack] = DEFAULT_ATTACKS) -> tuple[int, int]:
    """How often a full audit will have condensed a scene's set again, and how many of these sets are kept already."""
    planned = len(condensed_again(scene, attacks))
    return planned, min(planned, n_kept(scene))


def scan_bytes(scene: BytesScene, *, seed: int) -> LeakageReport:
    """The byte scan alone as a report, for the moment before signing.

    Raises:
        DataError: there is nothing to scan or nothing to look for.
    """
    return audit([scene], seed=seed, attacks=(ByteScan(),))[0]


def _of_another_level(attack: LeakageAttack, level: Level) -> str | None:
    if level == "screen" and getattr(attack, "level", "screen") == "full":
        return "part of the full audit only: set level = 'full' in the [audit] table"
    return None


def _about(scene: Scene, attacks: Sequence[LeakageAttack]) -> list[LeakageAttack]:
    return [attack for attack in attacks if isinstance(scene, attack.scene_type)]


def _known_gaps(scenes: Sequence[Scene], artefact: str) -> list[NotRun]:
    """What nobody could look at: bytes that were not given."""
    if any(isinstance(scene, BytesScene) for scene in scenes):
        return []
    return [NotRun(ByteScan.name, ByteScan.threat_model, artefact, "no bytes to be released were given")]


def _report(
    artefact: str,
    digest: str,
    results: Sequence[AttackResult],
    not_run: Sequence[NotRun],
    attacks: Sequence[LeakageAttack],
    seed: int,
) -> LeakageReport:
    config: dict[str, Any] = {"attacks": [attack.name for attack in attacks]}
    plain = with_family(results)
    return LeakageReport(
        artefact=artefact,
        artefact_digest=digest,
        results=plain,
        not_run=tuple(not_run),
        controls_held=_controls_held(plain, not_run),
        provenance=Provenance(stage="audit", parents=(digest,), config=config, seed=seed),
    )


def _controls_held(results: Sequence[AttackResult], not_run: Sequence[NotRun]) -> bool:
    """Of every figure that decides; one that is only shown says for itself when its controls failed."""
    deciding = [result for result in results if result.gates]
    return bool(deciding) and all(r.controls_held for r in deciding) and not any(item.failed for item in not_run)


def _as_stored(result: AttackResult) -> AttackResult:
    """Plain Python throughout, as when read back."""
    figures: dict[str, Any] = {
        name: None if (value := getattr(result, name)) is None else float(value) for name in NUMBERS
    }
    figures |= {name: bool(getattr(result, name)) for name in FLAGS}
    return dataclasses.replace(result, **figures, n=int(result.n), detail=to_plain(result.detail))
