"""What an attacker holds. Scenes carry callables and arrays, never an encoder or a condenser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Shaped

from pipeline.core.errors import DataError
from pipeline.core.types import ArrayRecord, AttackResult, CondensedSet, ThreatModel

Encode = Callable[[np.ndarray], np.ndarray]
"""(stay, step, channel) float32 series in [0, 1] -> (stay, encoded step, encoded channel); any number of each."""

MIN_SUBJECTS = 10  # fewer would be a small cell: nothing about them may be reported


@dataclass(frozen=True, eq=False, repr=False)
class EncodingScene(ArrayRecord):
    """An encoded artefact, and an attacker who has patients of his own.

    `encode` applies the encoder with its key; only attacks under T4 call it on chosen series. `own` are the attacker's
    prepared series (the tuning part), `targets` those of training subjects, which only score the attack.
    `window_steps` inputs, neighbours along `axis`, are encoded together by one map shared by all windows.
    """

    artefact: str
    artefact_digest: str
    encode: Encode
    own: Float[np.ndarray, "own_stay step channel"]
    targets: Float[np.ndarray, "stay step channel"]
    encoded_targets: Float[np.ndarray, "stay encoded_step encoded_channel"]
    target_subjects: Shaped[np.ndarray, " stay"]
    channels: tuple[str, ...]
    window_steps: int
    axis: Literal["time", "variables"] = "time"
    max_targets: int = 400
    n_bootstrap: int = 500

    def __post_init__(self) -> None:
        stays, steps, channels = self.targets.shape
        if self.own.shape[1:] != (steps, channels) or len(self.channels) != channels:
            raise DataError(f"scene {self.artefact}: own and target series differ in steps or channels")
        if len(self.encoded_targets) != stays or self.target_subjects.shape != (stays,):
            raise DataError(f"scene {self.artefact}: {stays} targets need as many encoded series and subjects")


@dataclass(frozen=True, eq=False, repr=False)
class CondensedScene(ArrayRecord):
    """A condensed set, the stays it was made from (members) and stays of other subjects (holdout), encoded alike."""

    artefact: str
    artefact_digest: str
    condensed: CondensedSet
    members: Float[np.ndarray, "member step channel"]
    holdout: Float[np.ndarray, "other step channel"]
    member_subjects: Shaped[np.ndarray, " member"]
    holdout_subjects: Shaped[np.ndarray, " other"]

    def __post_init__(self) -> None:
        shape = self.condensed.features.shape[1:]
        if self.members.shape[1:] != shape or self.holdout.shape[1:] != shape:
            raise DataError(f"scene {self.artefact}: samples, members and holdout differ in steps or channels")
        if len(self.member_subjects) != len(self.members) or len(self.holdout_subjects) != len(self.holdout):
            raise DataError(f"scene {self.artefact}: every stay needs its subject")
        shared = np.intersect1d(self.member_subjects, self.holdout_subjects).size
        if shared:
            raise DataError(f"scene {self.artefact}: {shared} subjects are both member and holdout")


@dataclass(frozen=True)
class BytesScene:
    """The bytes that would leave, and what must not be in them.

    `identifiers`: stay ids, subject ids, names. `secrets`: key bytes. `dates`: dates or timestamps of the source, as
    text. `seeds`: integers that must stay inside. `public_numbers`: numbers that the release states on purpose (file
    sizes, counts) and that may equal an identifier by chance.
    """

    artefact: str
    artefact_digest: str
    files: Mapping[str, bytes] = field(repr=False)
    identifiers: Sequence[str] = field(default=(), repr=False)
    secrets: Sequence[bytes] = field(default=(), repr=False)
    dates: Sequence[str] = field(default=(), repr=False)
    seeds: Sequence[int] = field(default=(), repr=False)
    public_numbers: Sequence[int] = field(default=(), repr=False)


Scene = EncodingScene | CondensedScene | BytesScene


@runtime_checkable
class LeakageAttack(Protocol):
    """One attack family; `scene_type` says which scenes it is about, `unsupported` which of these it cannot do."""

    name: ClassVar[str]
    threat_model: ClassVar[ThreatModel]
    scene_type: ClassVar[type]

    def unsupported(self, scene: Any) -> str | None:
        """Why this attack cannot run on the scene, or None."""
        ...

    def run(self, scene: Any, seed: int) -> tuple[AttackResult, ...]:
        """Run it; deterministic given the seed. `detail["controls_held"]` says whether both controls behaved."""
        ...
