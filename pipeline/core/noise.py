"""Randomness expanded from secrets with SHAKE-256: keyed encoder parameters and privacy noise.

The noise of a release is a secret: were it drawn from the recorded seed, the receiver could subtract it. It is a PRF of
(site secret, cohort digest, query, scale, shape), so that the same query replays the same answer, another cohort gets
fresh noise, and nothing recorded with an artefact lets a receiver compute it. SHAKE-256 of the standard library gives
the same bytes on every platform and version; uniforms are the top 53 bits of little-endian words.

Limit, stated in every guarantee: normals are float64 and continuous in intent; no defence against floating-point
attacks (Mironov 2012) is made.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final, final

import numpy as np
from scipy.special import ndtri

from pipeline.core.secrets import Secret

_WORD_BYTES: Final = 8


def keystream_words(key: bytes, label: str, count: int) -> np.ndarray:
    """`count` little-endian uint64 words of SHAKE-256(key || label)."""
    stream = hashlib.shake_256(key + label.encode()).digest(count * _WORD_BYTES)
    return np.frombuffer(stream, dtype="<u8")


def keystream_uniform(key: bytes, label: str, shape: tuple[int, ...]) -> np.ndarray:
    """float64 uniforms in the open interval (0, 1): (k + 1/2) / 2^53 with k the word's top 53 bits."""
    words = keystream_words(key, label, int(np.prod(shape)))
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5).reshape(shape) * 2.0**-53


def keystream_normal(key: bytes, label: str, shape: tuple[int, ...]) -> np.ndarray:
    """float64 standard normals by the inverse distribution function."""
    return np.asarray(ndtri(keystream_uniform(key, label, shape)))


@final
class NoiseSource:
    """Replayable secret Gaussian noise for one cohort at one site."""

    def __init__(self, site_secret: Secret, cohort_digest: str) -> None:
        self._secret = site_secret
        self._cohort_digest = cohort_digest

    def normal(self, query: object, scale: float, shape: tuple[int, ...]) -> np.ndarray:
        """N(0, scale^2) noise for `query`, any JSON-able description of *everything* the true answer depends on."""
        asked = {"cohort": self._cohort_digest, "query": query, "scale": float(scale).hex(), "shape": list(shape)}
        label = json.dumps(asked, sort_keys=True, allow_nan=False)
        return scale * keystream_normal(self._secret.derive(label), "noise", shape)

    def __repr__(self) -> str:
        return f"NoiseSource(cohort={self._cohort_digest[:12]})"
