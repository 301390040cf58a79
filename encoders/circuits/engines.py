"""Three exact ways to evaluate a circuit on many windows, and the choice among them by what a window costs.

* `Sparse`: a polynomial of few words in Horner's form, elementwise.
* `Bilinear`: all 3^n monomials in two halves of the wires: one real matrix product and a short sum.
* `Statevector`: the embedded product state times the circuit's 2^n x 2^n unitary; cheaper where correlations of many
  qubits are asked for, as all outputs share it.

The choice depends on the circuit alone, and all give the same numbers but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from encoders.circuits.gates import Embedding, Gate, embedding_gates, unitary
from encoders.circuits.pauli import expectation_words, observables
from encoders.circuits.polynomial import Sparse, factorised, products
from encoders.circuits.products import Statevector, bilinear, output_signs
from encoders.circuits.trigonometry import Array

_STRINGS_AT_MOST: Final = 1024  # a sparse polynomial has fewer, and looking for one takes no longer than seconds
_ROW_COST: Final = 1.0  # of one elementwise pass of a matrix engine over a row (measured: .4 ns a window in float32)
_SPARSE_COST: Final = 0.6  # of a product of rows and its sum in a sparse polynomial
_MATRIX_COST: Final = 0.065  # of one multiply-add inside a matrix product


class Engine(Protocol):
    """Evaluates one circuit."""

    def rows(self, angles: Array) -> Iterator[Array]:
        """Angles `(wire, window)`, contiguous and given away -> a row over windows per output, of the same kind."""
        ...


def engine_for(gates: tuple[Gate, ...], n_qubits: int, correlations: bool, embedding: Embedding) -> Engine:
    """The cheapest engine for <Z_j>, and with `correlations` <Z_j Z_k>, behind this embedding and these gates."""
    outputs = observables(n_qubits, correlations)
    head_wires = min(range(n_qubits + 1), key=lambda head: _bilinear_rows(n_qubits, len(outputs), head))
    by_monomials = _MATRIX_COST * len(outputs) * 3**n_qubits
    by_monomials += _ROW_COST * _bilinear_rows(n_qubits, len(outputs), head_wires)
    by_state = _MATRIX_COST * (2 * 4**n_qubits + len(outputs) * 2**n_qubits) + _ROW_COST * 5 * 2**n_qubits
    words = expectation_words(gates, n_qubits, outputs, embedding, _STRINGS_AT_MOST)
    if words is not None:
        sparse = Sparse(tuple(factorised(terms, tuple(range(n_qubits))) for terms in words))
        if _SPARSE_COST * sum(map(products, sparse.polynomials)) <= min(by_monomials, by_state):
            return sparse
    matrix = unitary((*embedding_gates(embedding, n_qubits), *gates), n_qubits)
    signs = output_signs(outputs, n_qubits)
    return Statevector(matrix, signs) if by_state < by_monomials else bilinear(matrix, signs, head_wires)


def _bilinear_rows(n_qubits: int, n_outputs: int, head_wires: int) -> int:
    """Elementwise passes of `Bilinear`: making the monomials, and a product and a sum for every output and tail."""
    return int(3**head_wires + (1 + 2 * n_outputs) * 3 ** (n_qubits - head_wires))
