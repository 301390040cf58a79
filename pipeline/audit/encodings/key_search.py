"""T3, T4: is the key one that can be tried out? The published code draws its parameters from small integer seeds.

The attacker knows one stay plain and encoded, makes encoders under keys that people choose (small integers written in
several ways, repeated bytes, digests of numbers and of words) and sees which reproduces it. That no weak key fits says
nothing of a strong one; against that stands arithmetic: 2^255 keys on average, at a thousand million a second.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Final, final

import numpy as np

from pipeline.audit.result import Controls, Figure, result
from pipeline.audit.scene import Encode, EncodingScene, Level
from pipeline.core.seeds import generator
from pipeline.core.types import AttackResult, ThreatModel

KEY_BYTES: Final = 32
SCREENED: Final = 64  # small integers that the nightly screen tries
SEARCHED: Final = 10_001  # and the full audit: 0 to 10,000
WORDS: Final = ("", "key", "secret", "password", "decoct", "encoder", "test", "changeme", "seed", "0000")
PER_SECOND: Final = 1e9  # keys; declared, not measured: a report must be the same on every machine
SECONDS_A_YEAR: Final = 31_557_600
SAME: Final = 1e-4  # of the encoded values' spread

WAYS: Final[dict[str, Callable[[int], bytes]]] = {
    "little-endian integer": lambda number: number.to_bytes(KEY_BYTES, "little"),
    "big-endian integer": lambda number: number.to_bytes(KEY_BYTES, "big"),
    "digest of a number": lambda number: hashlib.sha256(str(number).encode()).digest(),
}


def weak_keys(numbers: int) -> Iterator[bytes]:
    """Keys that people choose: each once, the likeliest first."""
    yield from (bytes([value]) * KEY_BYTES for value in range(256) if value < numbers)
    yield from (hashlib.sha256(word.encode()).digest() for word in WORDS)
    for number in range(1, numbers):
        yield from (way(number) for way in WAYS.values())


@dataclass(frozen=True)
class _Pair:
    """One stay plain and encoded, and the noise that the encoding holds."""

    plain: np.ndarray
    encoded: np.ndarray
    tolerance: float

    def fits(self, encode: Encode) -> bool:
        found = encode(self.plain)
        return found.shape == self.encoded.shape and bool(
            math.sqrt(float(((found - self.encoded) ** 2).mean())) <= self.tolerance
        )


def _pair(scene: EncodingScene, plain: np.ndarray, encoded: np.ndarray) -> _Pair:
    spread = float(encoded.std())
    noise = max(scene.noise_sd, 0.0 if scene.shots is None else 1 / math.sqrt(scene.shots))
    return _Pair(plain, encoded, max(SAME * spread, 1.2 * noise))


def search(pair: _Pair, encode_under: Callable[[bytes], Encode], numbers: int) -> tuple[int, int]:
    """How many weak keys fit (the search ends at the first) and how many were tried."""
    tried = 0
    for key in weak_keys(numbers):
        tried += 1
        if pair.fits(encode_under(key)):
            return 1, tried
    return 0, tried


def unsupported_search(scene: EncodingScene) -> str | None:
    """Nobody said how to make an encoder from a key, or its noise is none that is known."""
    if scene.encode_under is None:
        return "no way to make an encoder under a chosen key was given"
    return scene.not_understood


@dataclass(frozen=True)
class KeySearch:
    """Number of weak keys that reproduce the encoding, among those of the nightly screen."""

    name: ClassVar[str] = "key_enumeration"
    threat_model: ClassVar[ThreatModel] = "T3"
    scene_type: ClassVar[type] = EncodingScene
    numbers: int = SCREENED
    unsupported = staticmethod(unsupported_search)

    def run(self, scene: EncodingScene, seed: int) -> tuple[AttackResult, ...]:
        """One result."""
        return (searched(scene, seed, self),)


@final
@dataclass(frozen=True)
class LongKeySearch(KeySearch):
    """The same over all integers up to 10,000: an attack of the full audit."""

    name: ClassVar[str] = "key_enumeration_long"
    level: ClassVar[Level] = "full"
    numbers: int = SEARCHED


def searched(scene: EncodingScene, seed: int, attack: KeySearch) -> AttackResult:
    """Try all weak keys; the same search must find a weak key that is planted, and no random one."""
    rng = generator(seed, "audit", "key search", attack.name)
    numbers = attack.numbers
    moves = np.ptp(scene.targets, axis=1).sum(axis=1)
    place = int(rng.choice(np.argsort(moves)[-max(1, len(moves) // 10) :]))  # a stay in which much happens
    under = scene.encode_under
    assert under is not None  # `unsupported` was asked
    plain = scene.targets[[place]]
    found, tried = search(_pair(scene, plain, scene.encoded_targets[[place]]), under, numbers)
    way = list(WAYS.values())[int(rng.integers(len(WAYS)))]
    weak, strong = way(int(rng.integers(1, numbers))), rng.bytes(KEY_BYTES)
    planted, random = (search(_pair(scene, plain, under(key)(plain)), under, numbers)[0] for key in (weak, strong))
    return result(
        scene,
        attack,
        Figure("count", float(found), n=tried, powered=True, gates=True),
        Controls(float(random), float(planted), planted == 1 and random == 0),
        summary=f"Of {tried} keys that people choose, {'one opens' if found else 'none opens'} {scene.artefact}; a "
        f"planted one {'was' if planted else 'was not'} found. To try all keys of 256 random bits would take "
        f"{2.0**255 / PER_SECOND / SECONDS_A_YEAR:.0e} years at a thousand million a second.",
        detail={
            "keys_tried": tried,
            "numbers_tried": f"0 to {numbers - 1}",
            "log2_keys_tried": round(math.log2(tried), 2),
            "arithmetic": "years for 2^255 keys at 1e9 keys a second; declared, not measured",
        },
    )
