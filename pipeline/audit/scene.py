"""What an attacker holds. Scenes carry callables and arrays, never an encoder or a condenser."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Shaped

from pipeline.audit.once import Keep, Piece
from pipeline.core.errors import DataError
from pipeline.core.options.encoders import Axis as Axis
from pipeline.core.types import (
    ArrayRecord,
    AttackResult,
    AuditPiece,
    CondensedSet,
    EncodedCohort,
    Json,
    PrivacyGuarantee,
    Split,
    ThreatModel,
)

Encode = Callable[[np.ndarray], np.ndarray]
"""(stay, step, channel) float32 series in [0, 1] -> (stay, encoded step, encoded channel); any number of each."""

Recondense = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
"""Series, labels and subjects `(stay, ...)` and a seed -> samples `(sample, step, channel)`, condensed as the set was.

Seed 0 asks for the seed of the set itself. Private methods draw their noise from a made-up secret.
"""

Receiver = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
"""Training series `(sample, step, channel)` and labels `(sample, task)`, records that are asked about and a seed ->
probabilities `(record, task)` of the model that a receiver would train.
"""

MIN_SUBJECTS = 10  # fewer would be a small cell: nothing about them may be reported


Level = Literal["screen", "full"]
"""The nightly screen takes minutes, the full audit hours."""
MASK: str = "observed:"  # how the channels are called that hold the pattern of measurements


@final
@dataclass(frozen=True, eq=False, repr=False)
class Mechanism(ArrayRecord):
    """A private mechanism as the auditor gets it.

    `release(cohort, number)` gives the artefact of that cohort at a site whose noise secret is the made-up one of that
    number; the same number and cohort give the same artefact. `shape` is any cohort, even an empty one, with the steps,
    channels, tasks and transforms of the site; none of its stays is used. Features are meant to lie in [low, high].
    """

    release: Callable[[EncodedCohort, int], object]
    shape: EncodedCohort
    guarantee: PrivacyGuarantee
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True, eq=False, repr=False)
class EncodingScene(ArrayRecord):
    """An encoded artefact, and an attacker who has patients of his own.

    `encode` applies the encoder with its key and without noise; only attacks under T4 call it on chosen series. `own`
    are the attacker's prepared series (the tuning part), `targets` those of training subjects, which only score the
    attack. `window_steps` inputs, neighbours along `axis`, are encoded together, a window every `stride` (None: every
    `window_steps`) positions, by one map shared by all windows, or by all of a channel (`key_scope` "per_channel").
    `noise_sd` or `shots` say what `encoded_targets` hold beside it.
    Channels that the release shows in plain are in `released`, not among the others.

    `surrogates`: the same public encoder under keys that the attacker made up. `observed_targets`, `observed_own`:
    which cells of the first channels were measured; the former only scores. `not_understood`: why the noise is none
    that the attacks know, or None. `angle`: radians by which a circuit turns for an input of 1.
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
    axis: Axis = "time"
    max_targets: int = 400
    n_bootstrap: int = 500
    stride: int | None = None
    key_scope: str = "shared"
    noise_sd: float = 0.0
    shots: int | None = None
    not_understood: str | None = None
    surrogates: tuple[Encode, ...] = ()
    observed_targets: Bool[np.ndarray, "stay step variable"] | None = None
    observed_own: Bool[np.ndarray, "own_stay step variable"] | None = None
    released: Float[np.ndarray, "stay encoded_step variable"] | None = None
    angle: float = math.pi
    encode_under: Callable[[bytes], Encode] | None = None

    def __post_init__(self) -> None:
        stays, steps, channels = self.targets.shape
        if self.own.shape[1:] != (steps, channels) or len(self.channels) != channels:
            raise DataError(f"scene {self.artefact}: own and target series differ in steps or channels")
        if len(self.encoded_targets) != stays or self.target_subjects.shape != (stays,):
            raise DataError(f"scene {self.artefact}: {stays} targets need as many encoded series and subjects")
        for masks, series in ((self.observed_targets, self.targets), (self.observed_own, self.own)):
            if masks is not None and (masks.shape[:2] != series.shape[:2] or masks.shape[2] > channels):
                raise DataError(f"scene {self.artefact}: the masks do not fit the series")
        if self.released is not None and len(self.released) != stays:
            raise DataError(f"scene {self.artefact}: {stays} targets need as many released masks")

    @property
    def hop(self) -> int:
        """Positions from one window to the next."""
        return self.window_steps if self.stride is None else self.stride


def encoding_scene(
    artefact: str,
    artefact_digest: str,
    *,
    prepared: EncodedCohort,
    encoded: EncodedCohort,
    encode: Encode,
    spec: Json,
    observed: np.ndarray | None = None,
    surrogates: Sequence[Encode] = (),
    encode_under: Callable[[bytes], Encode] | None = None,
    max_targets: int = 400,
    n_bootstrap: int = 500,
) -> EncodingScene:
    """The scene of an encoding: the tuning stays are the attacker's own patients, training stays are his targets.

    Args:
        prepared, encoded: all stays before and after the encoder, in one order; `encoded` may hold the training part
            alone.
        encode: the encoder's map of bare features without noise, for the channels that it encodes.
        spec: the encoder's public description.
        observed: `(stay, step, variable)` which cells of `prepared` were measured, if known.
        surrogates: `encode` of the same encoder under other keys.
        encode_under: the same encoder's `encode` under the key that it is given.

    Raises:
        DataError: the parts do not fit together.
    """
    plain = [i for i, name in enumerate(prepared.channels) if name not in _released(prepared)]
    shown = [i for i, name in enumerate(encoded.channels) if name in _released(prepared)]
    hidden = [i for i, name in enumerate(encoded.channels) if name not in _released(prepared)]
    targets, own = prepared.split == int(Split.TRAIN), prepared.split == int(Split.TUNING)
    series = encoded.part(Split.TRAIN)
    noise = spec.get("noise") or {}
    low, high = spec.get("embedding_range") or (0.0, 1.0)
    kind, shots = str(noise.get("kind", "none")), noise.get("shots")
    known = kind in ("none", "gaussian", "shots")
    return EncodingScene(
        artefact=artefact,
        artefact_digest=artefact_digest,
        encode=encode,
        own=prepared.features[own][:, :, plain],
        targets=prepared.features[targets][:, :, plain],
        encoded_targets=series.features[:, :, hidden],
        target_subjects=prepared.subject_index[targets],
        channels=tuple(prepared.channels[i] for i in plain),
        window_steps=int(spec["window"]),
        axis=spec["axis"],
        max_targets=max_targets,
        n_bootstrap=n_bootstrap,
        stride=spec.get("stride"),
        key_scope=str(spec.get("key_scope", "shared")),
        noise_sd=float(noise.get("noise_sd", 0.0)),
        shots=None if shots is None else int(shots),
        not_understood=None if known else f"the attacks do not know noise of the kind {kind}",
        surrogates=tuple(surrogates),
        observed_targets=None if observed is None else observed[targets],
        observed_own=None if observed is None else observed[own],
        released=series.features[:, :, shown] if shown else None,
        angle=math.pi * float(high - low),
        encode_under=encode_under,
    )


def _released(prepared: EncodedCohort) -> tuple[str, ...]:
    steps = [step for step in prepared.transforms if step.get("kind") == "missingness"]
    return tuple(name for step in steps if step.get("mode") == "release" for name in step["channels"])


@dataclass(frozen=True, eq=False, repr=False)
class CondensedScene(ArrayRecord):
    """A condensed set, the stays it was made from (members) and stays of other subjects (holdout), encoded alike.

    Shadow sets hold what a set holds: `shadow_folder` lies inside the site's workspace, or is None. `zero`: where the
    zero of the source's units lies in each channel, `unit`: how many of these make one of the channel's; None means
    0 and 1. `keep`: finds pieces that were made before.
    """

    artefact: str
    artefact_digest: str
    condensed: CondensedSet
    members: Float[np.ndarray, "member step channel"]
    holdout: Float[np.ndarray, "other step channel"]
    member_subjects: Shaped[np.ndarray, " member"]
    holdout_subjects: Shaped[np.ndarray, " other"]
    member_labels: Float[np.ndarray, "member task"] | None = None  # of the set's tasks; NaN = missing
    holdout_labels: Float[np.ndarray, "other task"] | None = None
    recondense: Recondense | None = None
    shadow_folder: str | None = None  # where shadow sets are kept, so that an audit that was stopped goes on
    mechanism: Mechanism | None = None  # what made the set, to be called on cohorts of the auditor's making
    receiver: Receiver | None = None  # how a receiver trains, so that models of the set can be attacked
    zero: Float[np.ndarray, " channel"] | None = None
    unit: Float[np.ndarray, " channel"] | None = None
    keep: Keep | None = None

    def __post_init__(self) -> None:
        shape = self.condensed.features.shape[1:]
        if self.members.shape[1:] != shape or self.holdout.shape[1:] != shape:
            raise DataError(f"scene {self.artefact}: samples, members and holdout differ in steps or channels")
        if len(self.member_subjects) != len(self.members) or len(self.holdout_subjects) != len(self.holdout):
            raise DataError(f"scene {self.artefact}: every stay needs its subject")
        if any(given is not None and given.shape != shape[1:] for given in (self.zero, self.unit)):
            raise DataError(f"scene {self.artefact}: {shape[1]} channels need as many zeros and units")
        tasks = len(self.condensed.tasks)
        for labels, series in ((self.member_labels, self.members), (self.holdout_labels, self.holdout)):
            if labels is not None and labels.shape != (len(series), tasks):
                raise DataError(
                    f"scene {self.artefact}: labels need a row per stay and a column for each of {tasks} tasks"
                )
        shared = np.intersect1d(self.member_subjects, self.holdout_subjects).size
        if shared:
            raise DataError(f"scene {self.artefact}: {shared} subjects are both member and holdout")

    def piece(self, attack: InPieces, seed: int, name: str) -> AuditPiece:
        """The piece of an attack that has this name, made now or found where it is kept; `seed` as in `run`."""
        how = attack.pieces(self, seed)[name]
        return how.make() if self.keep is None else self.keep(attack.name, name, seed, how)

    def lacks(self, subjects: int) -> str | None:
        """Why nothing can be said of it: no sample, or fewer than so many subjects among members or others; or None."""
        if len(self.condensed.features) == 0:
            return "the set holds no sample"
        if min(len(np.unique(self.member_subjects)), len(np.unique(self.holdout_subjects))) < subjects:
            return f"fewer than {subjects} subjects among members or holdout"
        return None


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


@dataclass(frozen=True, eq=False)
class TableScene:
    """A raw table that would leave as it is: numbers in their own precision (gaps NaN), words as unsigned codes."""

    artefact: str
    artefact_digest: str
    columns: Mapping[str, np.ndarray] = field(repr=False)  # `(row,)` each

    @property
    def rows(self) -> int:
        """How many."""
        return min((len(column) for column in self.columns.values()), default=0)


Scene = EncodingScene | CondensedScene | BytesScene | TableScene


@runtime_checkable
class LeakageAttack(Protocol):
    """One attack family; `scene_type` says which scenes it is about, `unsupported` which of these it cannot do.

    A class attribute `level` "full" keeps an attack out of the nightly screen; without it the attack is in both.
    """

    name: ClassVar[str]
    threat_model: ClassVar[ThreatModel]
    scene_type: ClassVar[type]

    def unsupported(self, scene: Any) -> str | None:
        """Why this attack cannot run on the scene, or None."""
        ...

    def run(self, scene: Any, seed: int) -> tuple[AttackResult, ...]:
        """Run it; deterministic given the seed. `pipeline.audit.result` makes a result."""
        ...


@runtime_checkable
class InPieces(LeakageAttack, Protocol):
    """An attack on sets, of which some pieces depend on less than the set: others may make them, once for several."""

    def pieces(self, scene: Any, seed: int) -> Mapping[str, Piece]:
        """By name; nothing is computed yet. `seed` as in `run`."""
        ...


@runtime_checkable
class CondensesAgain(Protocol):
    """An attack that has sets condensed again, each of which can be made by itself, beforehand and by somebody else."""

    name: ClassVar[str]

    def condensations(self) -> int:
        """How many."""
        ...

    def condense_again(self, scene: Any, seed: int, number: int) -> None:
        """One of them, into the scene's folder; `seed` as in `run`."""
        ...
