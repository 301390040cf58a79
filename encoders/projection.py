"""Random projection (RP), after [Enc] (Thakur et al., Nat Commun 15:1582, 2024, arXiv 2305.03710).

One matrix, drawn from the key, multiplies every window. (The authors' notebook draws a new matrix for every window and
keeps none, so that only norms survive; that is no encoder that two hospitals could share.)

What it is and is not: a linear map, hence a pseudonymisation by key that `window` independent known windows undo
completely (docs/encoders.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, final

import numpy as np
from jaxtyping import Float, Float64

from encoders.windows import Sealed, check_features, check_layout, encoded_as, missing_to_full, time_blocks
from pipeline.core.errors import ConfigError
from pipeline.core.noise import keystream_normal, keystream_words
from pipeline.core.secrets import Secret
from pipeline.core.types import EncodedCohort, Json

Axis = Literal["time", "variables"]
Distribution = Literal["gaussian", "orthogonal", "rademacher"]

SCHEME: Final = "encoder/random_projection/v1"
_BLOCK_VALUES: Final = 1 << 18


@final
@dataclass(frozen=True)
class RandomProjectionEncoder:
    """The projection's public shape; the matrix comes with the key.

    `axis`: windows of `window` steps inside one channel, or of `window` channels inside one step. `n_components` below
    `window` compresses; None keeps the size.
    """

    window: int = 4
    axis: Axis = "time"
    distribution: Distribution = "gaussian"
    n_components: int | None = None

    def __post_init__(self) -> None:
        if self.window < 1 or not 1 <= self.components <= self.window:
            raise ConfigError("a random projection has a window of at least 1 and 1 to `window` components")
        if self.axis not in ("time", "variables"):
            raise ConfigError("a random projection's axis is time or variables")
        if self.distribution not in ("gaussian", "orthogonal", "rademacher"):
            raise ConfigError("a random projection's distribution is gaussian, orthogonal or rademacher")

    @property
    def components(self) -> int:
        """Values per window after the projection."""
        return self.window if self.n_components is None else self.n_components

    def fit(self, cohort: EncodedCohort, key: Secret) -> FittedProjectionEncoder:
        """Bind to the key; of the cohort only the shape is used, so the encoder is public but for its key."""
        steps, channels = cohort.features.shape[1:]
        return FittedProjectionEncoder(self, key.fingerprint, steps, channels, self.matrix(key))

    def matrix(self, key: Secret) -> Float64[np.ndarray, "component position"]:
        """The secret, scaled so that E ||M x||^2 = ||x||^2 over keys (Johnson & Lindenstrauss 1984; Achlioptas 2003).

        gaussian: N(0, 1 / components). rademacher: +-1 / sqrt(components). orthogonal: the first rows of a
        Haar-distributed orthogonal matrix times sqrt(window / components); square, it keeps every distance exactly.
        """
        stream = key.derive(f"{SCHEME}/{self.axis}/{self.distribution}/{self.window}/{self.components}")
        shape = (self.components, self.window)
        if self.distribution == "gaussian":
            return keystream_normal(stream, "matrix", shape) / math.sqrt(self.components)
        if self.distribution == "rademacher":
            signs = keystream_words(stream, "matrix", shape[0] * shape[1]) >> np.uint64(63)
            return (2.0 * signs.astype(np.float64) - 1.0).reshape(shape) / math.sqrt(self.components)
        square = keystream_normal(stream, "matrix", (self.window, self.window))
        rotation, triangle = np.linalg.qr(square)
        rotation *= np.sign(np.diag(triangle))  # without it QR's sign convention would bend the Haar measure
        return np.asarray(rotation.T[: self.components] * math.sqrt(self.window / self.components))


@final
@dataclass(frozen=True, eq=False, repr=False)
class FittedProjectionEncoder(Sealed):
    """The encoder with its key; made by `RandomProjectionEncoder.fit`."""

    shape: RandomProjectionEncoder
    key_fingerprint: str
    n_steps: int
    n_channels: int
    weights: Float64[np.ndarray, "component position"]

    def public_spec(self) -> Json:
        """Options, key fingerprint, and how many zero steps or channels were added to fill the last window."""
        over_time = self.shape.axis == "time"
        return {
            "kind": "random_projection",
            "public": True,
            "scheme": SCHEME,
            "window": self.shape.window,
            "axis": self.shape.axis,
            "distribution": self.shape.distribution,
            "n_components": self.shape.components,
            "key_fingerprint": self.key_fingerprint,
            "padded_steps": missing_to_full(self.n_steps, self.shape.window) if over_time else 0,
            "padded_channels": 0 if over_time else missing_to_full(self.n_channels, self.shape.window),
        }

    def encode(self, cohort: EncodedCohort) -> EncodedCohort:
        """Encode a prepared cohort.

        Over time the channels stay and a window's components are its steps (compressed, `step_hours` grows to match);
        over variables the steps stay and the channels become `mix{window}_{component}`.

        Raises:
            DataError: the cohort's steps or channels are not those fitted to.
        """
        check_layout(cohort, self.n_steps, self.n_channels)
        features = self.encode_array(cohort.features)
        width, components = self.shape.window, self.shape.components
        if self.shape.axis == "time":
            step_hours = cohort.step_hours * width / components
            return encoded_as(cohort, features, self.public_spec(), step_hours=step_hours)
        windows = features.shape[2] // components
        names = tuple(f"mix{window:02d}_{component}" for window in range(windows) for component in range(components))
        return encoded_as(cohort, features, self.public_spec(), channels=names)

    def encode_array(self, features: Float[np.ndarray, "stay step channel"]) -> Float[np.ndarray, "stay row column"]:
        """Encode bare features of any number of steps and channels, in their own precision.

        Besides input and output a few megabytes are held (for up to a million channels under 256 MiB).

        Raises:
            DataError: not float32 or float64 `(stay, step, channel)`.
        """
        check_features(features)
        weights = self.weights.astype(features.dtype)
        return _over_time(features, weights) if self.shape.axis == "time" else _over_variables(features, weights)


def _over_time(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    components, width = weights.shape
    stays, steps, channels = features.shape
    n_windows = (steps + missing_to_full(steps, width)) // width
    encoded = np.empty((stays, n_windows, components, channels), features.dtype)
    for rows, columns, block in time_blocks(features, width, _BLOCK_VALUES, "constant"):
        np.matmul(weights, block, out=encoded[rows, columns])
    return encoded.reshape(stays, n_windows * components, channels)


def _over_variables(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    components, width = weights.shape
    stays, steps, channels = features.shape
    missing = missing_to_full(channels, width)
    n_windows = (channels + missing) // width
    encoded = np.empty((stays, steps, n_windows * components), features.dtype)
    for rows, columns, block in time_blocks(features, 1, _BLOCK_VALUES, "constant"):
        full = np.pad(block[:, :, 0], ((0, 0), (0, 0), (0, missing))) if missing else block
        np.matmul(full.reshape(-1, width), weights.T, out=encoded[rows, columns].reshape(-1, components))
    return encoded
