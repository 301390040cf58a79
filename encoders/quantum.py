"""Random quantum encoding (RQE) of [Enc] (Thakur et al., Nat Commun 15:1582, 2024, arXiv 2305.03710).

Windows of `n_qubits` values are embedded as rotations of a qubit each, go through `n_layers` layers of a random circuit
whose angles are the key, and become the expectations <Z_j>, if asked for with the correlations <Z_j Z_k>. The circuit
is the same for all windows and stays; nothing is trained.

What it is and is not: a pseudonymisation by key. Who holds the key inverts it, and so does who knows a few windows with
their encodings, unless shots or noise that are not in the key blur it (docs/encoders.md).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Final, Literal, final

from encoders.circuits.engines import engine_for
from encoders.circuits.gates import (
    EMBEDDINGS,
    TEMPLATES,
    Embedding,
    Parameters,
    Template,
    circuit_gates,
    drawn_parameters,
)
from encoders.circuits.pauli import observables
from encoders.circuits.windows import WindowCircuits
from encoders.fitted_quantum import FittedQuantumEncoder
from encoders.leakage import encoder_bound
from encoders.randomise import OutputNoise
from encoders.windows import Geometry, encoded_names
from pipeline.core.errors import ConfigError
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import EncodedCohort, Json

SCHEME: Final = "encoder/quantum/v2"
MAX_QUBITS: Final = 10
EMBEDDING_RANGE: Final = (0.0, 0.5)
"""[Enc] embeds v as the angle pi v, the range (0, 1). Then cos(pi / 2) = 0 wipes out windows that hold 1/2, where
public clinical ranges put normal values (docs/encoders.md)."""


@final
@dataclass(frozen=True)
class QuantumEncoder:
    """The circuit's public shape; the angles come with the key.

    `template`: PennyLane's layers of that name (`RandomLayers`: `n_qubits` rotations per layer, CNOTs with chance .3).
    `embedding`: the axis of the rotation of |0>; RZ, which would change nothing there, acts after a Hadamard on every
    wire. `embedding_range` (low, high): value v becomes the angle pi (low + (high - low) v).
    `axis`: windows of steps of one channel, or of channels of one step, one every `stride` (None = `n_qubits`).
    `correlations`: <Z_j Z_k>, j < k, behind the <Z_j> of each window. `key_scope` "per_channel": a circuit for every
    channel, by its name. `shots`: every output is the mean of that many outcomes of its own; `noise_sd`: Gaussian noise
    on every output. `backend` "pennylane" runs the circuit on `pennylane_device` instead of computing it.

    Sub-key: all that decides what a window means is part of its label, so that another option gives unrelated angles:
    template, embedding and its range, qubits, layers, axis, stride, correlations, and with "per_channel" the channel.
    Not part of it are `shots`, `noise_sd` and the backend: they blur or run the same encoder.
    """

    n_qubits: int = 4
    n_layers: int = 2
    template: Template = "BasicEntanglerLayers"
    embedding: Embedding = "RY"
    embedding_range: tuple[float, float] = EMBEDDING_RANGE
    axis: Literal["time", "variables"] = "time"
    stride: int | None = None
    correlations: bool = False
    shots: int | None = None
    noise_sd: float = 0.0
    key_scope: Literal["shared", "per_channel"] = "shared"
    backend: Literal["closed_form", "pennylane"] = "closed_form"
    pennylane_device: str = "default.qubit"

    def __post_init__(self) -> None:
        if not 1 <= self.n_qubits <= MAX_QUBITS or self.n_layers < 1:
            raise ConfigError(f"a quantum encoder has 1 to {MAX_QUBITS} qubits and at least one layer")
        if self.template not in TEMPLATES or self.embedding not in EMBEDDINGS:
            raise ConfigError(
                f"a quantum encoder's template is {', '.join(TEMPLATES)}; its embedding {', '.join(EMBEDDINGS)}"
            )
        low, high = self.embedding_range
        if not 0 <= low < high <= 1:
            raise ConfigError("a quantum encoder's embedding_range is (low, high) with 0 <= low < high <= 1")
        object.__setattr__(self, "embedding_range", (float(low), float(high)))
        if self.axis not in ("time", "variables"):
            raise ConfigError("a quantum encoder's axis is time or variables")
        if self.stride is not None and not 1 <= self.stride <= self.n_qubits:
            raise ConfigError("a quantum encoder's stride is 1 to n_qubits: nothing is skipped")
        if self.key_scope not in ("shared", "per_channel") or self.backend not in ("closed_form", "pennylane"):
            raise ConfigError(
                "a quantum encoder's key_scope is shared or per_channel, its backend closed_form or pennylane"
            )
        if self.key_scope == "per_channel" and self.axis != "time":
            raise ConfigError("a circuit per channel needs windows along time")
        OutputNoise(self.noise_sd, self.shots)

    @property
    def geometry(self) -> Geometry:
        """How windows are cut."""
        return Geometry(self.n_qubits, self.stride or self.n_qubits, self.axis)

    @property
    def components(self) -> int:
        """Outputs per window."""
        return len(observables(self.n_qubits, self.correlations))

    def fit(self, cohort: EncodedCohort, key: Secret) -> FittedQuantumEncoder:
        """Bind to the key; of the cohort only the shape and channel names are used, so all but the key is public."""
        names = encoded_names(cohort)
        owners: tuple[str | None, ...] = names if self.key_scope == "per_channel" else (None,)
        parameters = tuple(self.parameters(key, channel) for channel in owners)
        engines = tuple(
            engine_for(
                circuit_gates(self.template, self.n_qubits, drawn), self.n_qubits, self.correlations, self.embedding
            )
            for drawn in parameters
        )
        low, high = self.embedding_range
        windows = WindowCircuits(engines, self.components, self.geometry, math.pi * (high - low), math.pi * low)
        return FittedQuantumEncoder(
            circuit=self,
            scheme=SCHEME,
            key_fingerprint=key.fingerprint,
            n_steps=cohort.features.shape[1],
            channels=names,
            parameters=parameters,
            windows=windows,
            leakage_bound=self._leakage_bound(windows, (cohort.features.shape[1], len(names))),
        )

    def _leakage_bound(self, windows: WindowCircuits, shape: tuple[int, int]) -> Json | None:
        """None for shots that a device draws: how it errs is not ours to say."""
        if self.shots is not None and self.backend == "pennylane":
            return None
        maps = [functools.partial(windows.window_map, channel=place) for place in range(len(windows.engines))]
        return encoder_bound(maps, self.geometry, shape, OutputNoise(self.noise_sd, self.shots), "edge")

    def parameters(self, key: Secret, channel: str | None = None) -> Parameters:
        """The secret: angles uniform on (0, 2 pi), expanded from the key for this very circuit (and channel)."""
        low, high = self.embedding_range
        label = (
            f"{SCHEME}/{self.template}/{self.n_qubits}/{self.n_layers}/{self.embedding}/{low.hex()}/{high.hex()}/"
            f"{self.axis}/{self.stride or self.n_qubits}/{'correlations' if self.correlations else 'expectations'}"
        )
        subkey = key.derive(label if channel is None else f"{label}/channel {channel}")
        return drawn_parameters(self.template, self.n_layers, self.n_qubits, subkey)
