"""The audit: every attack on every scene it is about, one report per artefact, and a reason wherever nothing ran."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

from pipeline.audit.aligned_pairs import AlignedPairs
from pipeline.audit.attribute_inference import AttributeInference
from pipeline.audit.attribute_set import AttributeInferenceFromSet
from pipeline.audit.blind import BlindSeparation
from pipeline.audit.byte_scan import ByteScan
from pipeline.audit.canary_subjects import CanarySubjects
from pipeline.audit.inversion import KnownKeyInversion
from pipeline.audit.key_search import KeySearch, LongKeySearch
from pipeline.audit.linkage_inference import Inference, Linkability
from pipeline.audit.membership import Membership
from pipeline.audit.missingness import MissingnessPattern
from pipeline.audit.model_membership import ModelMembership
from pipeline.audit.multiplicity import with_family
from pipeline.audit.near_copies import NearCopies
from pipeline.audit.profiles import ProfileLinkage, TwoKeys
from pipeline.audit.scene import BytesScene, CondensedScene, LeakageAttack, Level, Scene
from pipeline.audit.shadows import ShadowCondensation, n_kept
from pipeline.audit.singling_out import SinglingOut
from pipeline.audit.subgroups import SubgroupMembership
from pipeline.audit.successive import SuccessiveReleases
from pipeline.audit.two_sample import TwoSample
from pipeline.core.codec import to_plain
from pipeline.core.errors import DataError
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import child_seed
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
)


def audit(
    scenes: Sequence[Scene],
    *,
    seed: int,
    attacks: Sequence[LeakageAttack] = DEFAULT_ATTACKS,
    level: Level = "screen",
    on_step: OnStep = ignore_step,
) -> tuple[LeakageReport, ...]:
    """One report per artefact, in the order of the scenes; deterministic given the seed.

    An attack that cannot run is listed as `NotRun`; so is one of the full audit when `level` is "screen".

    Raises:
        DataError: no scene, or scenes of one artefact disagree on its digest.
    """
    if not scenes:
        raise DataError("there is no scene to audit")
    by_artefact: dict[str, list[Scene]] = {}
    for scene in scenes:
        by_artefact.setdefault(scene.artefact, []).append(scene)
    steps, done = sum(len(_about(scene, attacks)) for scene in scenes), 0
    reports = []
    for artefact, own in by_artefact.items():
        digests = {scene.artefact_digest for scene in own}
        if len(digests) > 1:
            raise DataError(f"the scenes of {artefact} name {len(digests)} different digests")
        results: list[AttackResult] = []
        not_run = _known_gaps(own, artefact)
        for scene in own:
            for attack in _about(scene, attacks):
                reason = _of_another_level(attack, level) or attack.unsupported(scene)
                if reason is None:
                    results += attack.run(scene, child_seed(seed, "audit", artefact, attack.name))
                else:
                    not_run.append(NotRun(attack.name, attack.threat_model, artefact, reason))
                done += 1
                on_step(done, steps, 0.0)
        reports.append(_report(artefact, digests.pop(), results, not_run, attacks, seed))
    return tuple(reports)


def condensations(
    scene: CondensedScene, attacks: Sequence[LeakageAttack] = DEFAULT_ATTACKS, level: Level = "full"
) -> tuple[int, int]:
    """How often the audit will have condensed a scene's set again, and how many of these sets are kept already."""
    again = [attack for attack in _about(scene, attacks) if hasattr(attack, "condensations")]
    able = [attack for attack in again if (_of_another_level(attack, level) or attack.unsupported(scene)) is None]
    planned = sum(attack.condensations() for attack in able)
    return planned, min(planned, n_kept(scene))


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
    plain = with_family([_as_stored(result) for result in results])
    return LeakageReport(
        artefact=artefact,
        artefact_digest=digest,
        results=plain,
        not_run=tuple(not_run),
        controls_held=_controls_held(plain),
        provenance=Provenance(stage="audit", parents=(digest,), config=config, seed=seed),
    )


def _controls_held(results: Sequence[AttackResult]) -> bool:
    """Of every figure that decides; one that is only shown says for itself when its controls failed."""
    deciding = [result for result in results if result.gates]
    return bool(deciding) and all(result.detail.get("controls_held") is True for result in deciding)


def _as_stored(result: AttackResult) -> AttackResult:
    """Plain Python throughout, as when read back: flags are compared by `is`, which numpy's True does not pass."""
    figures: dict[str, Any] = {
        name: None if (value := getattr(result, name)) is None else float(value)
        for name in ("rate", "low", "high", "control", "positive_control", "ceiling")
    }
    return dataclasses.replace(result, **figures, detail=to_plain(result.detail))
