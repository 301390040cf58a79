"""A circuit's expectations as exact trigonometric polynomials: no simulator in the loop.

Instead of moving the state forward we move each observable backward (the Heisenberg picture). A CNOT maps a Pauli
string to a Pauli string; a rotation about P leaves strings that commute with P, and maps Q to cos(theta) Q +
i sin(theta) P Q otherwise. The embedded state is a product whose Bloch vectors have one cosine and one sine each, hence

    <O>(x) = sum over words w in {1, c, s}^n of v_w * prod_j [1, cos(a_j), sin(a_j)][w_j],

exactly, with a_j the embedded angles. How many words there are depends on the circuit. In `BasicEntanglerLayers` all
rotations, seen through the CNOTs, are about products of X and commute, so that embedded by RY each <Z_k> keeps one Z
mask: for 4 qubits and 2 layers the four outputs hold 2 + 2 + 4 + 4 coefficients, not 4 * 81.
"""

from __future__ import annotations

import itertools
import math
from typing import Final

from encoders.circuits.gates import Embedding, Gate

PauliString = tuple[int, int]
"""(x mask, z mask): bit j set in x only = X on wire j, in z only = Z, in both = Y."""

_BITS: Final = {"RX": (1, 0), "RY": (1, 1), "RZ": (0, 1)}
_SIGN_OF_PRODUCT: Final = {  # of i P Q, for the axis P of a rotation and Q as (x, z) bits
    ("RX", (1, 1)): -1.0,
    ("RX", (0, 1)): 1.0,
    ("RY", (1, 0)): 1.0,
    ("RY", (0, 1)): -1.0,
    ("RZ", (1, 0)): -1.0,
    ("RZ", (1, 1)): 1.0,
}
_BLOCH: Final[dict[Embedding, dict[tuple[int, int], tuple[str, float]]]] = {  # non-zero expectations, by (x, z) bits
    "RY": {(0, 0): ("1", 1.0), (1, 0): ("s", 1.0), (0, 1): ("c", 1.0)},
    "RX": {(0, 0): ("1", 1.0), (1, 1): ("s", -1.0), (0, 1): ("c", 1.0)},
    "RZ": {(0, 0): ("1", 1.0), (1, 0): ("c", 1.0), (1, 1): ("s", 1.0)},
}


def observables(n_qubits: int, correlations: bool) -> tuple[tuple[int, ...], ...]:
    """The wires of each output: Z_j, and with `correlations` Z_j Z_k for j < k behind them."""
    singles = tuple((wire,) for wire in range(n_qubits))
    return singles + tuple(itertools.combinations(range(n_qubits), 2)) if correlations else singles


def expectation_words(
    gates: tuple[Gate, ...], n_qubits: int, outputs: tuple[tuple[int, ...], ...], embedding: Embedding, limit: int
) -> tuple[dict[str, float], ...] | None:
    """Word -> coefficient for each output; a word has one of "1", "c", "s" per wire.

    None when an observable spreads over more than `limit` Pauli strings on its way.
    """
    polynomials = []
    for wires in outputs:
        terms: dict[PauliString, float] = {(0, sum(1 << wire for wire in wires)): 1.0}
        for gate in reversed(gates):
            if gate.name == "CNOT":
                terms = dict(_through_cnot(string, value, *gate.wires) for string, value in terms.items())
            else:
                terms = _through_rotation(terms, gate)
            if len(terms) > limit:
                return None
        polynomials.append(_words(terms, n_qubits, embedding))
    return tuple(polynomials)


def _through_cnot(string: PauliString, value: float, control: int, target: int) -> tuple[PauliString, float]:
    """CNOT P CNOT: X spreads to the target, Z to the control (signs: Aaronson & Gottesman 2004)."""
    x, z = string
    x_control, x_target = x >> control & 1, x >> target & 1
    z_control, z_target = z >> control & 1, z >> target & 1
    flips = x_control and z_target and x_target == z_control
    return (x ^ x_control << target, z ^ z_target << control), -value if flips else value


def _through_rotation(terms: dict[PauliString, float], gate: Gate) -> dict[PauliString, float]:
    """R(theta)^dagger Q R(theta) for a sum of strings Q."""
    wire = gate.wires[0]
    x_axis, z_axis = _BITS[gate.name]
    cos, sin = math.cos(gate.angle), math.sin(gate.angle)
    moved: dict[PauliString, float] = {}
    for (x, z), value in terms.items():
        here = (x >> wire & 1, z >> wire & 1)
        sign = _SIGN_OF_PRODUCT.get((gate.name, here))
        if sign is None:  # identity or the axis itself
            moved[x, z] = moved.get((x, z), 0.0) + value
            continue
        moved[x, z] = moved.get((x, z), 0.0) + value * cos
        product = (x ^ x_axis << wire, z ^ z_axis << wire)
        moved[product] = moved.get(product, 0.0) + value * sign * sin
    return moved


def _words(terms: dict[PauliString, float], n_qubits: int, embedding: Embedding) -> dict[str, float]:
    """Strings with a factor whose expectation is 0 in every embedded state drop out."""
    bloch = _BLOCH[embedding]
    words = {}
    for (x, z), value in terms.items():
        factors = [bloch.get((x >> wire & 1, z >> wire & 1)) for wire in range(n_qubits)]
        if all(factors):
            word = "".join(factor[0] for factor in factors if factor)
            words[word] = value * math.prod(factor[1] for factor in factors if factor)
    return words
