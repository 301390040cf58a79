"""Randomness that is not in the key: what is added to an encoding before it leaves.

Who holds the key knows the encoder, not the noise: that comes from the site's noise secret and the content that is
encoded, so the same cohort gets the same noise again and another cohort fresh noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float

from pipeline.core.errors import ConfigError
from pipeline.core.noise import NoiseSource
from pipeline.core.types import Json

_BLOCK_VALUES: Final = 1 << 20


@final
@dataclass(frozen=True)
class OutputNoise:
    """Gaussian noise of standard deviation `noise_sd` on every output, in the outputs' own unit; 0 = none."""

    noise_sd: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.noise_sd < float("inf"):
            raise ConfigError("an encoder's noise_sd is a number of at least 0")

    @property
    def is_random(self) -> bool:
        """Whether encoding twice under two noise secrets gives two results."""
        return self.noise_sd > 0

    def public_spec(self) -> Json:
        """What a receiver is told."""
        return {"kind": "gaussian", "noise_sd": self.noise_sd} if self.is_random else {"kind": "none"}


def randomised(
    encoded: Float[np.ndarray, "stay row column"], how: OutputNoise, noise: NoiseSource | None, spec: Json
) -> Float[np.ndarray, "stay row column"]:
    """`encoded` with its noise added in place; `spec` (the encoder's public spec) names the query.

    Raises:
        ConfigError: the encoder is randomised and no noise source was given.
    """
    if not how.is_random:
        return encoded
    if noise is None:
        raise ConfigError("a randomised encoder needs the site's noise source; give encode() one")
    flat = encoded.reshape(-1)
    for start in range(0, len(flat), _BLOCK_VALUES):
        block = flat[start : start + _BLOCK_VALUES]
        query = {"encoder": dict(spec), "start": start}
        block += noise.normal(query, how.noise_sd, block.shape).astype(encoded.dtype)
    return encoded
