"""Privacy noise, expanded from a secret of the site.

The noise of a release is a secret: were it drawn from the recorded seed, the receiver could subtract it. It is a PRF of
(site secret, cohort digest, query, scale, shape), so that the same query replays the same answer, another cohort gets
fresh noise, and nothing recorded with an artefact lets a receiver compute it (docs/keys.md has the steps and vectors).

Normals are float64 and continuous in intent. Against attacks on their low bits (Mironov 2012) a private release adds
them on a grid (`condensation.granular`); that covers six standard deviations, and every guarantee says so.
"""

from __future__ import annotations

import json
from typing import Final, final

import numpy as np

from pipeline.core.keystream import keystream_normal as keystream_normal
from pipeline.core.keystream import keystream_uniform as keystream_uniform
from pipeline.core.keystream import keystream_words as keystream_words
from pipeline.core.secrets import Secret

STREAM_NAME: Final = "noise"


@final
class NoiseSource:
    """Replayable secret noise for one cohort at one site."""

    def __init__(self, site_secret: Secret, cohort_digest: str) -> None:
        self._secret = site_secret
        self._cohort_digest = cohort_digest

    def normal(self, query: object, scale: float, shape: tuple[int, ...]) -> np.ndarray:
        """N(0, scale^2) noise for `query`, any JSON-able description of *everything* the true answer depends on."""
        subkey = self._subkey({"query": query, "scale": float(scale).hex(), "shape": list(shape)})
        return scale * keystream_normal(subkey, STREAM_NAME, shape)

    def uniform(self, query: object, shape: tuple[int, ...]) -> np.ndarray:
        """Uniforms in (0, 1) for `query`, described as for `normal`; unrelated to its normals of the same query."""
        return keystream_uniform(
            self._subkey({"law": "uniform", "query": query, "shape": list(shape)}), STREAM_NAME, shape
        )

    def _subkey(self, asked: dict[str, object]) -> bytes:
        return self._secret.derive(json.dumps({"cohort": self._cohort_digest} | asked, sort_keys=True, allow_nan=False))

    def __repr__(self) -> str:
        return f"NoiseSource(cohort={self._cohort_digest[:12]})"
