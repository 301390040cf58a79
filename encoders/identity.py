"""No encoding: the control beside which the others are judged, in utility and in the audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from encoders.windows import Sealed, check_features, encoded_as
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.options.base import Options
from pipeline.core.types import EncodedCohort, Json


@final
@dataclass(frozen=True, kw_only=True)
class IdentityEncoder(Options):
    """Leaves the prepared series as they are and says so."""

    def fit(self, cohort: EncodedCohort, key: Secret) -> FittedIdentityEncoder:
        """Uses neither the cohort nor the key."""
        return FittedIdentityEncoder()


@final
@dataclass(frozen=True, eq=False, repr=False)
class FittedIdentityEncoder(Sealed):
    """The identity."""

    def public_spec(self) -> Json:
        """The whole of it."""
        return {
            "kind": "identity",
            "public": True,
            "window": 1,
            "stride": 1,
            "axis": "time",
            "key_fingerprint": None,
            "padded_positions": 0,
            "noise": {"kind": "none"},
            "leakage_bound": None,
        }

    def encode(self, cohort: EncodedCohort, noise: NoiseSource | None = None, device: str = "cpu") -> EncodedCohort:
        """The same features, released channels among them; the transform is recorded. Uses no noise and no device."""
        return encoded_as(cohort, cohort.features, self.public_spec())

    def encode_array(
        self, features: Float[np.ndarray, "stay step channel"], device: str = "cpu"
    ) -> Float[np.ndarray, "stay step channel"]:
        """A copy.

        Raises:
            DataError: not float32 or float64 `(stay, step, channel)`.
        """
        check_features(features)
        return features.copy()
