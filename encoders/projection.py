"""Random projection (RP), after [Enc] (Thakur et al., Nat Commun 15:1582, 2024, arXiv 2305.03710).

One matrix, drawn from the key, multiplies every window. (The authors' notebook draws a new matrix for every window and
keeps none: no encoder that two sites could share; `benchmarks/encoding_paper_inputs.py` has it for comparison.)

What it is and is not: a linear map, hence a pseudonymisation by key that `window` independent known windows undo
completely, unless noise that is not in the key is added (docs/encoders.md).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float, Float64

from encoders.leakage import encoder_bound
from encoders.products import products, tensor_products
from encoders.random_matrices import MatrixLaw
from encoders.randomise import OutputNoise
from encoders.windows import Geometry, Sealed, check_features, encoded_cohort, encoded_names
from pipeline.core.errors import ConfigError, DataError, EnvironmentProblem
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.options.encoders import ProjectionOptions
from pipeline.core.types import EncodedCohort, Json

SCHEME: Final = "encoder/random_projection/v2"


@final
@dataclass(frozen=True, kw_only=True)
class RandomProjectionEncoder(ProjectionOptions):
    """The projection's public shape; the matrix comes with the key. `distribution` and `density`: see `MatrixLaw`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        Geometry(self.window, self.stride or 1, self.axis)
        if self.key_scope == "per_channel" and self.axis != "time":
            raise ConfigError("a matrix per channel needs windows along time")
        if self.axis == "record" and self.stride is not None:
            raise ConfigError("a record is one window and has no stride")
        wide = max(self.window, self.n_components or 1) if self.axis == "record" else self.window
        self.law(wide)

    def geometry(self, steps: int, channels: int) -> Geometry:
        """The windows of stays of `steps` x `channels`."""
        width = steps * channels if self.axis == "record" else self.window
        return Geometry(width, self.stride or width, self.axis)

    def law(self, width: int) -> MatrixLaw:
        """The distribution of a matrix for windows of `width` values."""
        components = width if self.n_components is None else self.n_components
        return MatrixLaw(self.distribution, components, width, self.density)

    def fit(self, cohort: EncodedCohort, key: Secret) -> FittedProjectionEncoder:
        """Bind to the key; of the cohort only the shape and channel names are used, so all but the key is public.

        Raises:
            ConfigError: an empty record, or more components than a record has values.
        """
        names = encoded_names(cohort)
        steps, channels = cohort.features.shape[1], len(names)
        if self.axis == "record" and not steps * channels:
            raise ConfigError("a record without steps or channels cannot be projected")
        geometry = self.geometry(steps, channels)
        law = self.law(geometry.width)
        owners: tuple[str | None, ...] = names if self.key_scope == "per_channel" else (None,)
        weights = np.zeros((len(owners), law.components, law.width))
        for place, owner in enumerate(owners):
            weights[place] = self.matrix(key, width=law.width, channel=owner)
        return FittedProjectionEncoder(
            shape=self,
            key_fingerprint=key.fingerprint,
            n_steps=steps,
            channels=names,
            geometry=geometry,
            law=law,
            weights=weights,
            leakage_bound=encoder_bound(
                [functools.partial(_mapped, matrix) for matrix in weights],
                geometry,
                (steps, channels),
                OutputNoise(self.noise_sd),
                "constant",
            ),
        )

    def matrix(
        self, key: Secret, *, width: int | None = None, channel: str | None = None
    ) -> Float64[np.ndarray, "component position"]:
        """The secret for windows of `width` (default: `window`) values, and of `channel` if every one has its own.

        The sub-key depends on all options that shape the map, so that other options are another, unrelated encoder.
        """
        width = self.window if width is None else width
        drawn: np.ndarray = self.law(width).draw(self.subkey(key, width, channel), "matrix", 1)[0]
        return drawn

    def subkey(self, key: Secret, width: int, channel: str | None = None) -> bytes:
        """The 32 bytes from which matrices for windows of `width` values are drawn."""
        law = self.law(width)
        label = f"{SCHEME}/{self.axis}/{self.distribution}/{width}/{self.stride or width}/{law.components}"
        if law.share is not None:
            label += f"/density {law.share.hex()}"
        return key.derive(label if channel is None else f"{label}/channel {channel}")


@final
@dataclass(frozen=True, eq=False, repr=False)
class FittedProjectionEncoder(Sealed):
    """The encoder with its key; made by `RandomProjectionEncoder.fit`."""

    shape: RandomProjectionEncoder
    key_fingerprint: str
    n_steps: int
    channels: tuple[str, ...]
    geometry: Geometry
    law: MatrixLaw
    weights: Float64[np.ndarray, "matrix component position"]  # one, or one per channel
    leakage_bound: Json | None  # `encoders.leakage`; None without noise

    def public_spec(self) -> Json:
        """Options, key fingerprint, and how many zero positions were added to fill the last window."""
        positions = self.geometry.positions(self.n_steps, len(self.channels))
        return {
            **self.shape.shape_told(),
            "kind": "random_projection",
            "public": True,
            "scheme": SCHEME,
            "window": self.geometry.width,
            "stride": self.geometry.stride,
            "density": self.law.share,
            "n_components": self.law.components,
            "key_fingerprint": self.key_fingerprint,
            "padded_positions": self.geometry.padding(positions),
            "noise": OutputNoise(self.shape.noise_sd).public_spec(),
            "leakage_bound": self.leakage_bound,
        }

    @property
    def stays_apart(self) -> bool:
        """Noise is drawn by a stay's place in the cohort; a product has the same bits anywhere."""
        return self.shape.noise_sd == 0

    def encode(self, cohort: EncodedCohort, noise: NoiseSource | None = None, device: str = "cpu") -> EncodedCohort:
        """Encode a prepared cohort; names, hours per step and released channels: see `encoded_cohort`.

        Raises:
            DataError: the cohort's steps or channels (with a matrix per channel: their names) are not those fitted to.
            ConfigError: `noise_sd` without a noise source, or released channels whose steps would not be kept.
        """
        if self.shape.key_scope == "per_channel" and encoded_names(cohort) != self.channels:
            raise DataError(
                "the cohort's channels are not those whose matrices were drawn; fit it again with the same key"
            )
        return encoded_cohort(
            cohort,
            spec=self.public_spec(),
            encode_array=lambda features: self.encode_array(features, device),
            geometry=self.geometry,
            components=self.law.components,
            fitted_to=(self.n_steps, len(self.channels)),
            how=OutputNoise(self.shape.noise_sd),
            noise=noise,
        )

    def encode_array(
        self, features: Float[np.ndarray, "stay step channel"], device: str = "cpu"
    ) -> Float[np.ndarray, "stay row column"]:
        """Encode bare features of any number of steps and channels, in their own precision, without noise.

        On the CPU by numpy: besides input and output a few megabytes are held (for up to a million values in a window's
        lanes under 256 MiB). On any other device by torch, in blocks.

        Raises:
            DataError: not float32 or float64 `(stay, step, channel)`, or other channels than there are matrices for.
            EnvironmentProblem: torch cannot use the device.
        """
        check_features(features)
        self._check_channels(features.shape[2])
        weights = self.weights.astype(features.dtype)
        if not _is_cpu(device):
            tensor = torch.from_numpy(np.require(features, requirements="W"))  # torch takes no read-only array quietly
            return tensor_products(tensor, self.geometry, torch.from_numpy(weights), device).numpy()
        return products(features, self.geometry, weights, per_channel=self.shape.key_scope == "per_channel")

    def window_map(
        self, windows: Float[np.ndarray, "n position"], channel: int = 0
    ) -> Float64[np.ndarray, "n component"]:
        """What one window encodes to, without noise; `channel` says whose, where each has its own matrix."""
        return _mapped(self.weights[channel if self.shape.key_scope == "per_channel" else 0], windows)

    def _check_channels(self, channels: int) -> None:
        if self.shape.key_scope == "per_channel" and channels != len(self.weights):
            raise DataError(
                f"the encoder holds matrices for {len(self.weights)} channels, the features have {channels}"
            )


def _mapped(weights: np.ndarray, windows: np.ndarray) -> np.ndarray:
    return np.asarray(np.asarray(windows, np.float64) @ weights.T)


def _is_cpu(device: str) -> bool:
    try:
        return torch.empty(0, device=device).device.type == "cpu"
    except (RuntimeError, AssertionError, NotImplementedError):  # torch built without it raises any of these
        raise EnvironmentProblem(f"torch cannot use the device {device!r}") from None
