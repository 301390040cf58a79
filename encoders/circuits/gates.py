"""Circuits as lists of gates: the three PennyLane templates of [Enc] (Nat Commun 15:1582, 2024), without PennyLane.

A machine that encodes need not have PennyLane, and a key must give the same circuit whatever version it is of. So the
templates are written out here; tests hold them against PennyLane's own decompositions. Wire 0 is the most significant
bit of a basis state, as PennyLane counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, final

import numpy as np
from jaxtyping import Complex128, Float64

from pipeline.core.keys.keystream import keystream_uniform, keystream_words
from pipeline.core.options.encoders import Embedding as Embedding
from pipeline.core.options.encoders import Template as Template

_ROTATIONS: Final = ("RX", "RY", "RZ")
_RATIO_IMPRIMITIVE: Final = 0.3  # PennyLane's default share of CNOTs in RandomLayers
_SEED_BITS: Final = 31


@final
@dataclass(frozen=True, repr=False)
class Gate:
    """RX, RY or RZ of `angle` on one wire, or a CNOT of (control, target)."""

    name: Literal["RX", "RY", "RZ", "CNOT"]
    wires: tuple[int, ...]
    angle: float = 0.0

    def __repr__(self) -> str:
        return "Gate(...)"  # a circuit's gates are its key


@final
@dataclass(frozen=True, eq=False, repr=False)
class Parameters:
    """What the key decides: angles in (0, 2 pi), and for `RandomLayers` the seed that places the gates."""

    weights: Float64[np.ndarray, "layer ..."]
    seed: int | None = None

    def __repr__(self) -> str:
        return "Parameters(...)"


def drawn_parameters(template: Template, n_layers: int, n_qubits: int, subkey: bytes) -> Parameters:
    """Expand a 32-byte sub-key: weights uniform on (0, 2 pi), for `RandomLayers` also a seed of 31 bits."""
    shape = (n_layers, n_qubits, 3) if template == "StronglyEntanglingLayers" else (n_layers, n_qubits)
    weights = 2.0 * math.pi * keystream_uniform(subkey, "angles", shape)
    if template != "RandomLayers":
        return Parameters(weights)
    return Parameters(weights, int(keystream_words(subkey, "seed", 1)[0]) >> (64 - _SEED_BITS))


def circuit_gates(template: Template, n_qubits: int, parameters: Parameters) -> tuple[Gate, ...]:
    """The template's gates in the order in which they act."""
    if template == "BasicEntanglerLayers":
        return _basic_entangler(parameters.weights, n_qubits)
    if template == "StronglyEntanglingLayers":
        return _strongly_entangling(parameters.weights, n_qubits)
    assert parameters.seed is not None
    return _random_layers(parameters.weights, n_qubits, parameters.seed)


def _basic_entangler(weights: np.ndarray, n_qubits: int) -> tuple[Gate, ...]:
    """RX on every wire, then CNOTs in a closed ring; two wires have one CNOT, one wire none."""
    gates = []
    for layer in weights:
        gates += [Gate("RX", (wire,), float(angle)) for wire, angle in enumerate(layer)]
        gates += _ring(n_qubits, 1)[: 1 if n_qubits == 2 else None]
    return tuple(gates)


def _strongly_entangling(weights: np.ndarray, n_qubits: int) -> tuple[Gate, ...]:
    """RZ RY RZ on every wire, then CNOTs to the wire l mod (n - 1) + 1 further on in layer l = 0, 1, ...; two wires:
    there and back.
    """
    gates = []
    for index, layer in enumerate(weights):
        for wire, (first, second, third) in enumerate(layer):
            gates += [Gate("RZ", (wire,), float(first)), Gate("RY", (wire,), float(second))]
            gates += [Gate("RZ", (wire,), float(third))]
        if n_qubits > 1:
            gates += _ring(n_qubits, index % (n_qubits - 1) + 1)
    return tuple(gates)


def _ring(n_qubits: int, reach: int) -> list[Gate]:
    if n_qubits == 1:
        return []
    return [Gate("CNOT", (wire, (wire + reach) % n_qubits)) for wire in range(n_qubits)]


def _random_layers(weights: np.ndarray, n_qubits: int, seed: int) -> tuple[Gate, ...]:
    """Rotations about random axes on random wires, CNOTs between random wires with chance .3 each time."""
    draws = _Draws(seed)
    gates = []
    for layer in weights:
        for angle in layer:
            while draws.uniform() <= _RATIO_IMPRIMITIVE:
                if n_qubits > 1:
                    gates.append(Gate("CNOT", draws.pair(n_qubits)))
            name = _ROTATIONS[draws.below(3)]
            gates.append(Gate(name, (draws.below(n_qubits),), float(angle)))  # type: ignore[arg-type]  # RX, RY or RZ
    return tuple(gates)


class _Draws:
    """The draws of `numpy.random.default_rng(seed)` that PennyLane's `RandomLayers` makes, from PCG64's raw words.

    numpy promises that the words stay what they are, but not `Generator.choice` (NEP 19).
    """

    def __init__(self, seed: int) -> None:
        self._words = np.random.PCG64(seed)
        self._high: int | None = None  # the half word not used yet

    def uniform(self) -> float:
        """`Generator.random()`: 53 bits."""
        return (int(self._words.random_raw()) >> 11) * 2.0**-53

    def below(self, count: int) -> int:
        """`Generator.integers(count)`, and the first index of `choice(count, 1, replace=False)` (Lemire 2019)."""
        if count == 1:
            return 0
        product = self._half() * count
        while (product & 0xFFFFFFFF) < (1 << 32) % count:
            product = self._half() * count
        return product >> 32

    def pair(self, count: int) -> tuple[int, int]:
        """`Generator.choice(count, 2, replace=False)`: Floyd's algorithm, then a shuffle."""
        first, second = self.below(count - 1), self.below(count)
        if second == first:
            second = count - 1
        return (first, second) if self.below(2) else (second, first)

    def _half(self) -> int:
        if self._high is not None:
            word, self._high = self._high, None
            return word
        whole = int(self._words.random_raw())
        self._high = whole >> 32
        return whole & 0xFFFFFFFF


def embedding_gates(embedding: Embedding, n_qubits: int) -> tuple[Gate, ...]:
    """What turns the product of RY(a_j)|0> into the embedding's state, up to a phase.

    RX(a)|0>: a quarter turn about Z. RZ(a) is only a phase on |0>, so that RZ embeds after a Hadamard on every wire:
    RZ(a) H|0>, quarter turns about Y and then X.
    """
    quarter = math.pi / 2
    turns: dict[Embedding, tuple[tuple[Literal["RX", "RY", "RZ"], float], ...]] = {
        "RY": (),
        "RX": (("RZ", -quarter),),
        "RZ": (("RY", quarter), ("RX", quarter)),
    }
    return tuple(Gate(name, (wire,), angle) for wire in range(n_qubits) for name, angle in turns[embedding])


def unitary(gates: tuple[Gate, ...], n_qubits: int) -> Complex128[np.ndarray, "state state"]:
    """The product of all gates; column b is what becomes of basis state b."""
    size = 1 << n_qubits
    columns = np.eye(size, dtype=np.complex128)
    for gate in gates:
        if gate.name == "CNOT":
            control, target = (n_qubits - 1 - wire for wire in gate.wires)
            states = np.arange(size)
            columns = columns[states ^ (states >> control & 1) << target]
        else:
            tensor = columns.reshape(1 << gate.wires[0], 2, -1)
            columns = np.einsum("ab,xby->xay", _rotation(gate), tensor).reshape(size, size)
    return columns


def _rotation(gate: Gate) -> np.ndarray:
    cos, sin = math.cos(gate.angle / 2), math.sin(gate.angle / 2)
    if gate.name == "RX":
        return np.array([[cos, -1j * sin], [-1j * sin, cos]])
    if gate.name == "RY":
        return np.array([[cos, -sin], [sin, cos]], dtype=np.complex128)
    return np.array([[cos - 1j * sin, 0], [0, cos + 1j * sin]])
