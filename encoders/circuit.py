"""The quantum circuit's expectations as exact trigonometric polynomials: no simulator in the loop.

The circuit of [Enc] (Thakur et al., Nat Commun 15:1582, 2024) is RY(pi x_j) on wire j, then PennyLane's
`BasicEntanglerLayers`: per layer RX(theta) on every wire and a closed ring of CNOTs; its outputs are <Z_k>.

Instead of moving the state forward we move each Z_k backward (the Heisenberg picture). A CNOT maps a Pauli string to a
Pauli string; RX(theta) maps Z to cos(theta) Z + sin(theta) Y and Y to cos(theta) Y - sin(theta) Z. The embedded state
is a product with <X> = sin(pi x), <Y> = 0, <Z> = cos(pi x), so that

    z_k(x) = sum over words w in {1, c, s}^n of v_kw * prod_j [1, cos(pi x_j), sin(pi x_j)][w_j],

exactly. Of the 3^n words few have v_kw != 0. All rotations of this template, seen through the CNOTs, are about products
of X and commute, hence Z_k keeps one Z mask A_k: z_k = prod over A_k of cos(pi x_j) * a polynomial in the other wires'
sines. For 4 qubits and 2 layers the four outputs hold 2 + 2 + 4 + 4 coefficients, not 4 * 81.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float, Float64

PauliString = tuple[int, int]
"""(x mask, z mask): bit j set in x only = X on wire j, in z only = Z, in both = Y."""

_SYMBOLS: Final = "1cs"


def expectation_terms(angles: Float64[np.ndarray, "layer wire"]) -> tuple[dict[str, float], ...]:
    """Word -> coefficient for each output <Z_k>; a word has one of "1", "c", "s" per wire.

    Wires as PennyLane counts them: one wire has no CNOT, two wires have one, more have the closed ring.
    """
    n_wires = angles.shape[1]
    outputs = []
    for wire in range(n_wires):
        terms: dict[PauliString, float] = {(0, 1 << wire): 1.0}
        for layer in angles[::-1]:
            for control, target in reversed(_ring(n_wires)):
                terms = dict(_through_cnot(string, value, control, target) for string, value in terms.items())
            for rotated, theta in enumerate(layer):
                terms = _through_rx(terms, rotated, float(theta))
        # Y has expectation 0 in the embedded state, so strings with a Y (x and z overlap) drop out
        outputs.append({_word(string, n_wires): v for string, v in terms.items() if not string[0] & string[1]})
    return tuple(outputs)


def _ring(n_wires: int) -> list[tuple[int, int]]:
    if n_wires == 1:
        return []
    if n_wires == 2:
        return [(0, 1)]
    return [(wire, (wire + 1) % n_wires) for wire in range(n_wires)]


def _through_cnot(string: PauliString, value: float, control: int, target: int) -> tuple[PauliString, float]:
    """CNOT P CNOT: X spreads to the target, Z to the control (signs: Aaronson & Gottesman 2004)."""
    x, z = string
    x_control, x_target = x >> control & 1, x >> target & 1
    z_control, z_target = z >> control & 1, z >> target & 1
    flips = x_control and z_target and x_target == z_control
    return (x ^ x_control << target, z ^ z_target << control), -value if flips else value


def _through_rx(terms: dict[PauliString, float], wire: int, theta: float) -> dict[PauliString, float]:
    """RX(theta)^dagger P RX(theta) for a sum of strings."""
    bit = 1 << wire
    moved: dict[PauliString, float] = {}
    for (x, z), value in terms.items():
        if not z & bit:  # identity or X commutes with the rotation
            moved[x, z] = moved.get((x, z), 0.0) + value
            continue
        sign = -1.0 if x & bit else 1.0  # Y turns back to -Z
        moved[x, z] = moved.get((x, z), 0.0) + value * math.cos(theta)
        moved[x ^ bit, z] = moved.get((x ^ bit, z), 0.0) + value * sign * math.sin(theta)
    return moved


def _word(string: PauliString, n_wires: int) -> str:
    x, z = string
    return "".join(_SYMBOLS[2 if x >> wire & 1 else z >> wire & 1] for wire in range(n_wires))


@final
@dataclass(frozen=True, eq=False, repr=False)
class Branch:
    """A multilinear polynomial split at one wire: one + cos(pi x_wire) * cos + sin(pi x_wire) * sin (Horner's form)."""

    wire: int
    one: Branch | float | None
    cos: Branch | float | None
    sin: Branch | float | None

    def __repr__(self) -> str:
        return "Branch(...)"  # the coefficients are the key


def factorised(terms: dict[str, float], wires: tuple[int, ...]) -> Branch | float:
    """Horner's form of a non-empty sum of words over `wires`; the wire that most words contain goes outermost."""
    if not wires:
        return next(iter(terms.values()))
    wire = max(wires, key=lambda j: sum(word[j] != "1" for word in terms))
    rest = tuple(j for j in wires if j != wire)
    if all(word[wire] == "1" for word in terms):
        return factorised(terms, rest)
    parts = ({w: v for w, v in terms.items() if w[wire] == symbol} for symbol in _SYMBOLS)
    return Branch(wire, *(factorised(part, rest) if part else None for part in parts))


def evaluated(
    polynomial: Branch | float,
    cos: Float[np.ndarray, "wire stay window channel"],
    sin: Float[np.ndarray, "wire stay window channel"],
) -> Float[np.ndarray, "stay window channel"]:
    """Value of a factorised polynomial in the dtype of `cos` and `sin`, elementwise over all axes but `wire`."""
    if isinstance(polynomial, float):
        return np.full(cos.shape[1:], polynomial, cos.dtype)
    total = None if polynomial.one is None else evaluated(polynomial.one, cos, sin)
    for part, factor in ((polynomial.cos, cos[polynomial.wire]), (polynomial.sin, sin[polynomial.wire])):
        if part is None:
            continue
        if isinstance(part, float):
            value = part * factor
        else:
            value = evaluated(part, cos, sin)
            value *= factor
        if total is not None:
            value += total
        total = value
    return np.zeros(cos.shape[1:], cos.dtype) if total is None else total
