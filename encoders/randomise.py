"""Randomness that is not in the key: what is done to an encoding before it leaves.

Who holds the key knows the encoder, not the noise: that comes from the site's noise secret and the content that is
encoded, so the same cohort gets the same noise again and another cohort fresh noise. It is a cryptographic stream and
no statistical generator: who knows some plaintexts knows their noise, and must learn nothing of the rest of it.

Two ways, alone or one after the other: finite shots (an output z in [-1, 1] becomes the mean of `shots` outcomes +1 or
-1, as a quantum computer would read it, every output by itself), then Gaussian noise. What each bounds is computed in
`encoders.leakage`. Encoding the same cohort at two levels of noise gives a receiver two independent looks at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float, Float64
from scipy.stats import binom

from pipeline.core.errors import ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.types import Json

MAX_SHOTS: Final = 1_000_000
SHOTS_OF_EXPECTATIONS: Final = "finite shots read outputs in [-1, 1], as a quantum encoding's are; others take noise_sd"
NO_SOURCE: Final = "a randomised encoder needs the site's noise source; give encode() one"
_BLOCK_VALUES: Final = 1 << 20
_FEW_SHOTS: Final = 8  # up to here a uniform per shot is faster than the inverse distribution function
_ROUNDING: Final = 1e-5  # how far beyond [-1, 1] a float32 expectation may stray


@final
@dataclass(frozen=True)
class OutputNoise:
    """What is done to every output: `shots` outcomes averaged (None = the exact expectation), then Gaussian noise.

    `noise_sd` is in the outputs' own unit; 0 = none.
    """

    noise_sd: float = 0.0
    shots: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.noise_sd < float("inf"):
            raise ConfigError("an encoder's noise_sd is a number of at least 0")
        if self.shots is not None and not 1 <= self.shots <= MAX_SHOTS:
            raise ConfigError(f"an encoder's shots are a whole number from 1 to {MAX_SHOTS}, or none are drawn")

    @property
    def is_random(self) -> bool:
        """Whether encoding twice under two noise secrets gives two results."""
        return self.noise_sd > 0 or self.shots is not None

    def public_spec(self) -> Json:
        """What a receiver is told."""
        if not self.is_random:
            return {"kind": "none"}
        if self.shots is None:
            return {"kind": "gaussian", "noise_sd": self.noise_sd}
        shots = {"shots": self.shots}
        return {"kind": "shots", **shots} | ({"noise_sd": self.noise_sd} if self.noise_sd else {})


def randomised(
    encoded: Float[np.ndarray, "stay row column"], how: OutputNoise, noise: NoiseSource | None, spec: Json
) -> Float[np.ndarray, "stay row column"]:
    """`encoded` with its noise, in place if contiguous; `spec` (the encoder's public spec) names the query.

    The expectation of the result is `encoded`. Besides it a few dozen megabytes are held.

    Raises:
        ConfigError: the encoder is randomised and no noise source was given, or shots are asked of outputs that are no
            expectations in [-1, 1].
    """
    if not how.is_random:
        return encoded
    if noise is None:
        raise ConfigError(NO_SOURCE)
    # a bound that another machine rounds otherwise must not draw other noise: the difference would tell
    asked = {name: value for name, value in spec.items() if name != "leakage_bound"}
    flat = encoded.reshape(-1)
    for start in range(0, len(flat), _BLOCK_VALUES):
        block = flat[start : start + _BLOCK_VALUES]
        query = {"encoder": asked, "noise": dict(how.public_spec()), "start": start}
        if how.shots is not None:
            block[:] = measured(block.astype(np.float64), how.shots, noise, query)
        if how.noise_sd > 0:
            block += noise.normal(query, how.noise_sd, block.shape).astype(encoded.dtype)
    return flat.reshape(encoded.shape)


def measured(
    expectation: Float64[np.ndarray, " output"], shots: int, noise: NoiseSource, query: Json
) -> Float64[np.ndarray, " output"]:
    """2 Binomial(shots, (1 + z) / 2) / shots - 1 for every z, independent, with the secret uniforms of `query`.

    Exact but for the uniforms' grid of 2^-52: few shots by one uniform each, more by the binomial's inverse
    distribution function.

    Raises:
        ConfigError: an output is no expectation in [-1, 1].
    """
    if expectation.size and float(np.abs(expectation).max()) > 1 + _ROUNDING:
        raise ConfigError(SHOTS_OF_EXPECTATIONS)
    probability = np.clip((1.0 + expectation) / 2.0, 0.0, 1.0)
    if shots <= _FEW_SHOTS:
        ones = np.zeros(expectation.shape)
        for shot in range(shots):
            ones += noise.uniform({**query, "shot": shot}, expectation.shape) < probability
    else:
        ones = binom.ppf(noise.uniform(query, expectation.shape), shots, probability)
    return 2.0 * ones / shots - 1.0
