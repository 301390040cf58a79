"""Random quantum encoding (RQE) of [Enc] (Thakur et al., Nat Commun 15:1582, 2024, arXiv 2305.03710).

Every stay and channel separately is cut along time into windows of `n_qubits` steps. A window is embedded as
RY(pi x_j), goes through `n_layers` entangling layers whose angles are the key, and becomes the expectations <Z_j>. The
angles are the same for all windows, channels and stays; nothing is trained and no shots are drawn.

What it is and is not: a pseudonymisation by key. Who holds the key inverts it, and so does who knows a few windows with
their encodings (docs/encoders.md). The map has period 2 in every value: outside [0, 1] values alias.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Final, Literal, final

import numpy as np
from jaxtyping import Float, Float64

from encoders.circuit import Branch, evaluated, expectation_terms, factorised
from encoders.windows import Sealed, check_features, check_layout, encoded_as, missing_to_full, time_blocks
from pipeline.core.errors import ConfigError
from pipeline.core.noise import keystream_uniform
from pipeline.core.secrets import Secret
from pipeline.core.types import EncodedCohort, Json

logger = logging.getLogger("decoct")

SCHEME: Final = "encoder/quantum/v1"
MAX_QUBITS: Final = 10
_BLOCK_VALUES: Final = 1 << 14  # per step of a window: the block's cosines and sines stay in a core's cache


@final
@dataclass(frozen=True)
class QuantumEncoder:
    """The circuit's public shape; the angles come with the key."""

    n_qubits: int = 4
    n_layers: int = 2
    template: Literal["BasicEntanglerLayers"] = "BasicEntanglerLayers"

    def __post_init__(self) -> None:
        if not 1 <= self.n_qubits <= MAX_QUBITS or self.n_layers < 1:
            raise ConfigError(f"a quantum encoder has 1 to {MAX_QUBITS} qubits and at least one layer")
        if self.template != "BasicEntanglerLayers":
            raise ConfigError("the quantum encoder's only template is BasicEntanglerLayers")

    def fit(self, cohort: EncodedCohort, key: Secret) -> FittedQuantumEncoder:
        """Bind to the key; of the cohort only the shape is used, so the encoder is public but for its key."""
        terms = expectation_terms(self.angles(key))
        return FittedQuantumEncoder(
            circuit=self,
            key_fingerprint=key.fingerprint,
            n_steps=cohort.features.shape[1],
            n_channels=cohort.features.shape[2],
            outputs=tuple(factorised(words, tuple(range(self.n_qubits))) for words in terms),
        )

    def angles(self, key: Secret) -> Float64[np.ndarray, "layer qubit"]:
        """The secret: angles uniform on (0, 2 pi), expanded from the key for this very circuit."""
        stream = key.derive(f"{SCHEME}/{self.template}/{self.n_qubits}/{self.n_layers}")
        return 2.0 * math.pi * keystream_uniform(stream, "angles", (self.n_layers, self.n_qubits))


@final
@dataclass(frozen=True, eq=False, repr=False)
class FittedQuantumEncoder(Sealed):
    """The encoder with its key; made by `QuantumEncoder.fit`."""

    circuit: QuantumEncoder
    key_fingerprint: str
    n_steps: int
    n_channels: int
    outputs: tuple[Branch | float, ...]  # <Z_j> as polynomials in cos(pi x) and sin(pi x)

    def public_spec(self) -> Json:
        """Circuit, key fingerprint, and how many steps were added (repeating the last) to fill the last window."""
        return {
            "kind": "quantum",
            "public": True,
            "scheme": SCHEME,
            "window": self.circuit.n_qubits,
            "axis": "time",
            "n_qubits": self.circuit.n_qubits,
            "n_layers": self.circuit.n_layers,
            "template": self.circuit.template,
            "key_fingerprint": self.key_fingerprint,
            "padded_steps": missing_to_full(self.n_steps, self.circuit.n_qubits),
        }

    def encode(self, cohort: EncodedCohort) -> EncodedCohort:
        """Encode a prepared cohort; `padded_steps` steps longer. Warns, with the share, of values that alias.

        Raises:
            DataError: the cohort's steps or channels are not those fitted to.
        """
        check_layout(cohort, self.n_steps, self.n_channels)
        _warn_outside(cohort.features)
        return encoded_as(cohort, self.encode_array(cohort.features), self.public_spec())

    def encode_array(self, features: Float[np.ndarray, "stay step channel"]) -> Float[np.ndarray, "stay step channel"]:
        """Encode bare features of any number of steps and channels, in their own precision, into [-1, 1].

        Besides input and output a few megabytes are held (for up to a million channels under 256 MiB).

        Raises:
            DataError: not float32 or float64 `(stay, step, channel)`.
        """
        check_features(features)
        stays, steps, channels = features.shape
        width = self.circuit.n_qubits
        encoded = np.empty((stays, steps + missing_to_full(steps, width), channels), features.dtype)
        windows_out = encoded.reshape(stays, encoded.shape[1] // width, width, channels)
        for rows, columns, block in time_blocks(features, width, _BLOCK_VALUES, "edge"):
            cos, sin = _embedded(block)
            for wire, polynomial in enumerate(self.outputs):
                windows_out[rows, columns, wire] = evaluated(polynomial, cos, sin)
        return encoded


def _embedded(
    block: Float[np.ndarray, "stay window wire channel"],
) -> tuple[Float[np.ndarray, "wire stay window channel"], Float[np.ndarray, "wire stay window channel"]]:
    """cos(pi x) and sin(pi x), a contiguous plane per wire."""
    angles = np.empty((block.shape[2], *block.shape[:2], block.shape[3]), block.dtype)
    np.multiply(block.transpose(2, 0, 1, 3), math.pi, out=angles)
    sin = np.sin(angles)
    return np.cos(angles, out=angles), sin


def _warn_outside(features: np.ndarray) -> None:
    if features.size and (features.min() < 0 or features.max() > 1):
        share = float(np.mean((features < 0) | (features > 1)))
        logger.warning("%.3g %% of the values lie outside [0, 1] and alias in the quantum encoding", 100 * share)
