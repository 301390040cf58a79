"""The circuit on a device of PennyLane: simulators, `lightning`, or hardware through a plug-in.

Slow by nature (a simulator does a few hundred circuits per second); the closed form gives the same expectations. It is
here to run the real thing, with the device's own shots. They come from the device's generator, seeded from the site's
noise secret, so that encoding again is no second look at the same people; a device that takes no seed draws no shots
here. PennyLane is imported when it is needed, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from jaxtyping import Float

from encoders.circuits.gates import Embedding, Parameters, Template
from encoders.circuits.pauli import observables
from pipeline.core.errors import ConfigError, EnvironmentProblem
from pipeline.core.extras import not_installed

OnCircuits = Callable[[int, int], None]
"""Called as (circuits done, circuits in all), with 0 done before the first."""

_BROADCASTING: Final = "default.qubit"
SEEDED: Final = ("default.qubit", "default.mixed", "lightning.qubit")
"""Devices whose shots obey a seed."""
_BATCH: Final = 256


def ignore_circuits(done: int, total: int) -> None:
    """The `OnCircuits` of a caller who does not look."""


@final
class Progress:
    """Counts circuits and tells."""

    def __init__(self, on_circuits: OnCircuits) -> None:
        self.done, self.total = 0, 0
        self._tell = on_circuits

    def expect(self, total: int) -> None:
        """How many circuits there will be, before the first."""
        self.total = total
        self._tell(0, total)

    def advance(self, circuits: int) -> None:
        """So many more have run."""
        self.done += circuits
        self._tell(self.done, self.total)


@final
@dataclass(frozen=True, eq=False, repr=False)
class DeviceCircuit:
    """A circuit and the device that runs it; `shots` None asks for exact expectations (simulators only).

    `seed_of`: a secret seed for each number; needed with shots, else never called.
    """

    template: Template
    embedding: Embedding
    n_qubits: int
    correlations: bool
    parameters: Parameters
    device: str
    shots: int | None
    progress: Progress
    seed_of: Callable[[int], int]

    def __repr__(self) -> str:
        return f"DeviceCircuit({self.device!r})"

    def n_circuits(self, n_windows: int) -> int:
        """Circuits to run: one per window; with shots one per window and output, so that outputs are independent."""
        if self.shots is None:
            return n_windows
        return n_windows * len(observables(self.n_qubits, self.correlations))

    def rows(self, angles: Float[np.ndarray, "wire window"]) -> Iterator[np.ndarray]:
        """One row over windows per output.

        Raises:
            EnvironmentProblem: PennyLane is not installed, or the device fails.
            ConfigError: PennyLane cannot open such a device.
        """
        outputs = observables(self.n_qubits, self.correlations)
        together = [outputs] if self.shots is None else [(wires,) for wires in outputs]
        begun = self.progress.done  # circuits before these, so that no two devices of an encoding share a seed
        circuits = [self._qnode(measured, begun + place) for place, measured in enumerate(together)]
        batch = _BATCH if self.device == _BROADCASTING and self.shots is None else 1
        found = np.empty((len(outputs), angles.shape[1]), angles.dtype)
        for start in range(0, angles.shape[1], batch):
            values = angles[:, start : start + batch].astype(np.float64)
            results = [
                result for circuit in circuits for result in self._run(circuit, values if batch > 1 else values[:, 0])
            ]
            found[:, start : start + batch] = np.stack([np.broadcast_to(result, values.shape[1]) for result in results])
            self.progress.advance(self.n_circuits(values.shape[1]))
        yield from found

    def qnode(self) -> Any:
        """The circuit of one window as PennyLane's QNode of its angles.

        Raises:
            EnvironmentProblem: PennyLane is not installed. ConfigError: it cannot open the device.
        """
        return self._qnode(observables(self.n_qubits, self.correlations), 0)

    def _qnode(self, measured: tuple[tuple[int, ...], ...], place: int) -> Any:
        qml = pennylane()
        seed = None if self.shots is None else self.seed_of(place)
        options = {"seed": seed} if self.device in SEEDED else {}  # their default seed is numpy's global state
        try:
            device = qml.device(self.device, wires=self.n_qubits, **options)
        except Exception as error:  # plug-ins raise what they like
            raise ConfigError(f"PennyLane cannot open the device {self.device!r} ({type(error).__name__})") from None
        placed = {} if self.parameters.seed is None else {"seed": self.parameters.seed}

        def circuit(values: Any) -> list[Any]:
            if self.embedding == "RZ":
                for wire in range(self.n_qubits):
                    qml.Hadamard(wire)
            for wire in range(self.n_qubits):
                getattr(qml, self.embedding)(values[wire], wires=wire)
            getattr(qml, self.template)(self.parameters.weights, wires=range(self.n_qubits), **placed)
            return [qml.expval(qml.prod(*map(qml.PauliZ, wires))) for wires in measured]

        qnode = qml.QNode(circuit, device, interface="numpy", diff_method=None)
        return qnode if self.shots is None else qml.set_shots(qnode, self.shots)

    def _run(self, circuit: Any, values: np.ndarray) -> list[Any]:
        try:
            return list(circuit(values))
        except Exception as error:
            raise EnvironmentProblem(
                f"the PennyLane device {self.device!r} failed to run the circuit ({type(error).__name__})"
            ) from None


def pennylane() -> Any:
    """The library.

    Raises:
        NotInstalled: it is not there.
    """
    try:
        import pennylane as qml
    except ImportError:
        raise not_installed("quantum") from None
    return qml
