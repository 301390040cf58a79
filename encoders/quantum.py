"""Random quantum encoding (RQE) of [Enc] (Thakur et al., Nat Commun 15:1582, 2024, arXiv 2305.03710).

Windows of `n_qubits` values are embedded as rotations of a qubit each, go through `n_layers` layers of a random circuit
whose angles are the key, and become the expectations <Z_j>, if asked for with the correlations <Z_j Z_k>. The circuit
is the same for all windows and stays; nothing is trained.

What it is and is not: a pseudonymisation by key. Who holds the key inverts it, and so does who knows a few windows with
their encodings, unless shots or noise that are not in the key blur it (docs/encoders.md).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from jaxtyping import Float, Float64

from encoders.circuits.engines import engine_for
from encoders.circuits.gates import (
    Parameters,
    circuit_gates,
    drawn_parameters,
)
from encoders.circuits.pauli import observables
from encoders.circuits.pennylane_backend import SEEDED, DeviceCircuit, OnCircuits, Progress, ignore_circuits
from encoders.circuits.windows import WindowCircuits
from encoders.leakage import encoder_bound
from encoders.randomise import NO_SOURCE, OutputNoise
from encoders.windows import Geometry, Sealed, check_features, encoded_cohort, encoded_names
from pipeline.core.errors import ConfigError, DataError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.options.encoders import QuantumOptions
from pipeline.core.types import EncodedCohort, Json

logger = logging.getLogger("decoct")

SCHEME: Final = "encoder/quantum/v2"


@final
@dataclass(frozen=True, kw_only=True)
class QuantumEncoder(QuantumOptions):
    """The circuit's public shape; the angles come with the key.

    Sub-key: all that decides what a window means is part of its label, so that another option gives unrelated angles:
    template, embedding and its range, qubits, layers, axis, stride, correlations, and with "per_channel" the channel.
    Not part of it are `shots`, `noise_sd` and the backend: they blur or run the same encoder.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.embedding_range
        if not 0 <= low < high <= 1:
            raise ConfigError("a quantum encoder's embedding_range is (low, high) with 0 <= low < high <= 1")
        if self.stride is not None and self.stride > self.n_qubits:
            raise ConfigError("a quantum encoder's stride is 1 to n_qubits: nothing is skipped")
        if self.key_scope == "per_channel" and self.axis != "time":
            raise ConfigError("a circuit per channel needs windows along time")
        if self.backend == "pennylane" and self.shots is not None and self.pennylane_device not in SEEDED:
            raise ConfigError(
                f"shots that the device {self.pennylane_device!r} draws cannot be drawn again, and each time would be "
                f"another look at the same people: take one of {', '.join(SEEDED)}, or the closed form"
            )
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


@final
@dataclass(frozen=True, eq=False, repr=False)
class FittedQuantumEncoder(Sealed):
    """The encoder with its key; made by `QuantumEncoder.fit`."""

    circuit: QuantumEncoder
    scheme: str
    key_fingerprint: str
    n_steps: int
    channels: tuple[str, ...]
    parameters: tuple[Parameters, ...]  # one, or one per channel
    windows: WindowCircuits
    leakage_bound: Json | None  # `encoders.leakage`; None without noise

    def public_spec(self) -> Json:
        """Options, key fingerprint, and how many positions repeat the last one to fill the last window."""
        circuit = self.circuit
        positions = circuit.geometry.positions(self.n_steps, len(self.channels))
        noise = dict(OutputNoise(circuit.noise_sd, circuit.shots).public_spec())
        if self._device_draws:
            noise["shots_drawn_by"] = "device"  # by its own generator, seeded from the site's secret
        return {
            **circuit.shape_told(),
            "kind": "quantum",
            "public": True,
            "scheme": self.scheme,
            "window": circuit.n_qubits,
            "stride": circuit.geometry.stride,
            "key_fingerprint": self.key_fingerprint,
            "padded_positions": circuit.geometry.padding(positions),
            "noise": noise,
            "leakage_bound": self.leakage_bound,
            "pennylane_device": circuit.pennylane_device if circuit.backend == "pennylane" else None,
        }

    @property
    def stays_apart(self) -> bool:
        """Shots and noise are drawn by a stay's place in the cohort; the closed form has the same bits anywhere."""
        return self.circuit.backend == "closed_form" and self.circuit.shots is None and self.circuit.noise_sd == 0

    def encode(
        self,
        cohort: EncodedCohort,
        noise: NoiseSource | None = None,
        device: str = "cpu",
        on_circuits: OnCircuits = ignore_circuits,
    ) -> EncodedCohort:
        """Encode a prepared cohort; names, hours per step and released channels: see `encoded_cohort`.

        Warns, with the share, of values that alias. `device` is torch's and for the closed form; `on_circuits` hears of
        PennyLane's progress.

        Raises:
            DataError: the cohort's steps or channels (with a circuit per channel: their names) are not those fitted to.
            ConfigError: shots or noise without a noise source, released channels whose steps would not be kept, or a
                PennyLane device that does not exist.
            EnvironmentProblem: a device that is not there or fails.
        """
        if self.circuit.key_scope == "per_channel" and encoded_names(cohort) != self.channels:
            raise DataError(
                "the cohort's channels are not those whose circuits were drawn; fit it again with the same key"
            )
        _warn_outside(cohort.features)

        def encode_array(features: np.ndarray) -> np.ndarray:
            if self.circuit.backend == "closed_form":
                return self.encode_array(features, device)
            return self._on_pennylane(features, self.circuit.shots, on_circuits, noise)

        return encoded_cohort(
            cohort,
            spec=self.public_spec(),
            encode_array=encode_array,
            geometry=self.circuit.geometry,
            components=self.circuit.components,
            fitted_to=(self.n_steps, len(self.channels)),
            how=OutputNoise(self.circuit.noise_sd, None if self._device_draws else self.circuit.shots),
            noise=noise,
        )

    def encode_array(
        self,
        features: Float[np.ndarray, "stay step channel"],
        device: str = "cpu",
        on_circuits: OnCircuits = ignore_circuits,
    ) -> Float[np.ndarray, "stay row column"]:
        """Encode bare features of any number of steps and channels, in their own precision, into [-1, 1].

        Without shots and noise: exact expectations, on PennyLane's device if that is the backend and draws no shots,
        else in closed form, by numpy on the CPU and by torch on any other device. Besides input and output at most 256
        MiB are held (for up to a million lanes), on the CPU a few. On the CPU the bits depend on neither the number of
        threads nor on what else is encoded.

        Raises:
            DataError: not float32 or float64 `(stay, step, channel)`, or other channels than there are circuits for.
            EnvironmentProblem: a device that is not there or fails.
        """
        check_features(features)
        self._check_channels(features.shape[2])
        if self.circuit.backend == "pennylane" and self.circuit.shots is None:
            return self._on_pennylane(features, None, on_circuits, None)
        return self.windows.encoded_array(features, device)

    def window_map(
        self, windows: Float[np.ndarray, "n position"], channel: int = 0
    ) -> Float64[np.ndarray, "n component"]:
        """What one window encodes to, without shots or noise; `channel` says whose, where each has its own circuit."""
        return self.windows.window_map(windows, channel)

    def qnode(self, channel: int = 0) -> Any:
        """The circuit of one window as PennyLane's QNode: angles `(wire)` to exact expectations, one per output.

        Its weights are the key. `qml.draw(..., decimals=None, show_matrices=False)` leaves them out of a drawing.

        Raises:
            EnvironmentProblem: PennyLane is not installed. ConfigError: it cannot open the device.
        """
        circuit, of_channel = self.circuit, channel if self.circuit.key_scope == "per_channel" else 0
        shape = (circuit.template, circuit.embedding, circuit.n_qubits, circuit.correlations)
        how = (circuit.pennylane_device, None, Progress(ignore_circuits), int)
        return DeviceCircuit(*shape, self.parameters[of_channel], *how).qnode()

    @property
    def _device_draws(self) -> bool:
        return self.circuit.backend == "pennylane" and self.circuit.shots is not None

    def _on_pennylane(
        self, features: np.ndarray, shots: int | None, on_circuits: OnCircuits, noise: NoiseSource | None
    ) -> Float[np.ndarray, "stay row column"]:
        circuit = self.circuit
        shape = (circuit.template, circuit.embedding, circuit.n_qubits, circuit.correlations)
        progress = Progress(on_circuits)
        asked = {name: value for name, value in self.public_spec().items() if name != "leakage_bound"}

        def seed_of(place: int) -> int:
            if noise is None:
                raise ConfigError(NO_SOURCE)
            return int.from_bytes(noise.uniform({"encoder": asked, "device seed": place}, (4,)).tobytes(), "little")

        how = (circuit.pennylane_device, shots, progress, seed_of)
        runs = [DeviceCircuit(*shape, drawn, *how) for drawn in self.parameters]
        positions = circuit.geometry.positions(*features.shape[1:])
        lanes = features[0].size // positions if features.size else 0
        progress.expect(runs[0].n_circuits(len(features) * lanes * circuit.geometry.count(positions)))
        logger.info("%d circuits run on the PennyLane device %s", progress.total, circuit.pennylane_device)
        return dataclasses.replace(self.windows, engines=tuple(runs)).encoded_array(features, threads=1)

    def _check_channels(self, channels: int) -> None:
        if self.circuit.key_scope == "per_channel" and channels != len(self.parameters):
            raise DataError(
                f"the encoder holds circuits for {len(self.parameters)} channels, the features have {channels}"
            )


def _warn_outside(features: np.ndarray) -> None:
    if features.size and (features.min() < 0 or features.max() > 1):
        share = float(np.mean((features < 0) | (features > 1)))
        logger.warning("%.3g %% of the values lie outside [0, 1] and may alias in the quantum encoding", 100 * share)
