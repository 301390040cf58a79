"""Circuits as matrix products over a block of windows: all monomials, or the state; on numpy and torch alike.

A matrix product may round a window differently beside other neighbours: OpenBLAS's AVX2 kernels do in float32, by the
window's place in a block. Therefore on the CPU products are float64 whatever the windows are, rounded at the end; all
blocks of a circuit have one width, which depends on neither threads nor data; the last block is filled up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import torch
from jaxtyping import Complex128, Float64

from encoders.circuits.trigonometry import Array, cosine_and_sine

_CPU_BYTES: Final = 1 << 22  # at most held for a block: within a core's reach
_CPU_WINDOWS: Final = 1 << 11
_DEVICE_BYTES: Final = 1 << 26


@final
@dataclass(frozen=True, eq=False, repr=False)
class Bilinear:
    """z_k = sum over words t of the last wires, h of the first: M[k, t, h] phi_t phi_h; phi a product of 1, c, s each.

    One matrix product over h, then a sum over t: 3^n multiply-adds per output without ever holding 3^n monomials.
    """

    head_wires: int
    weights: Float64[np.ndarray, "output tail head"]

    def rows(self, angles: Array) -> Iterator[Array]:
        """One row over windows per output, for angles `(wire, window)`."""
        n_outputs, tails, heads = self.weights.shape
        matrix = _placed(self.weights.reshape(n_outputs * tails, heads), angles)
        block = _block_width(heads + (n_outputs + 1) * tails, angles)
        head, tail, product = (_working((size, block), angles) for size in (heads, tails, n_outputs * tails))
        by_tail = product.reshape(n_outputs, tails, block)
        encoded = _empty((n_outputs, angles.shape[1]), angles)
        for columns, piece in _blocks(angles, block):
            cos, sin = cosine_and_sine(piece)
            _monomials(cos[: self.head_wires], sin[: self.head_wires], head)
            _monomials(cos[self.head_wires :], sin[self.head_wires :], tail)
            _library(angles).matmul(matrix, head, out=product)
            for word in range(1, tails):
                by_tail[:, word] *= tail[word]
                by_tail[:, 0] += by_tail[:, word]
            encoded[:, columns] = by_tail[:, 0, : columns.stop - columns.start]
        yield from encoded

    def __repr__(self) -> str:
        return "Bilinear(...)"


@final
@dataclass(frozen=True, eq=False, repr=False)
class Statevector:
    """The embedded product state, which is real, times the unitary; then probabilities, then the outputs' signs."""

    unitary: Complex128[np.ndarray, "state state"]
    signs: Float64[np.ndarray, "output state"]

    def rows(self, angles: Array) -> Iterator[Array]:
        """One row over windows per output, for angles `(wire, window)`."""
        size = len(self.unitary)
        matrix = _placed(np.concatenate([self.unitary.real, self.unitary.imag]), angles)
        signs = _placed(self.signs, angles)
        block = _block_width(3 * size, angles)
        state, amplitudes = _working((size, block), angles), _working((2 * size, block), angles)
        encoded = _empty((len(self.signs), angles.shape[1]), angles)
        for columns, piece in _blocks(angles, block):
            piece *= 0.5
            cos, sin = cosine_and_sine(piece)
            _product_state(cos, sin, state)
            _library(angles).matmul(matrix, state, out=amplitudes)
            amplitudes *= amplitudes
            amplitudes[:size] += amplitudes[size:]
            encoded[:, columns] = (signs @ amplitudes[:size])[:, : columns.stop - columns.start]
        yield from encoded

    def __repr__(self) -> str:
        return "Statevector(...)"


def output_signs(outputs: tuple[tuple[int, ...], ...], n_qubits: int) -> Float64[np.ndarray, "output state"]:
    """The eigenvalue of each product of Z on every basis state."""
    states = np.arange(1 << n_qubits)
    bits = np.stack([states >> (n_qubits - 1 - wire) & 1 for wire in range(n_qubits)])
    return np.stack([1.0 - 2.0 * (bits[list(wires)].sum(axis=0) & 1) for wires in outputs])


def bilinear(
    unitary: Complex128[np.ndarray, "state state"], signs: Float64[np.ndarray, "output state"], head_wires: int
) -> Bilinear:
    """The coefficients of all 3^n words: with W a product of 1, Z (cosine) and X (sine), v_w = tr(U^+ O U W) / 2^n."""
    n_qubits = unitary.shape[0].bit_length() - 1
    trace = np.zeros((3, 2, 2))
    trace[0], trace[1], trace[2] = np.eye(2) / 2, np.diag([1.0, -1.0]) / 2, np.array([[0.0, 1.0], [1.0, 0.0]]) / 2
    rows = []
    for sign in signs:
        observable = sum(part.T @ (sign[:, None] * part) for part in (unitary.real, unitary.imag))
        tensor = np.asarray(observable).reshape((2,) * (2 * n_qubits))
        for wires_left in range(n_qubits, 0, -1):  # the first row and column bit become a word's symbol, last in line
            tensor = np.tensordot(tensor, trace, axes=((0, wires_left), (1, 2)))
        rows.append(tensor.reshape(3**head_wires, -1).T)
    return Bilinear(head_wires, np.ascontiguousarray(np.stack(rows)))


def _monomials(cos: Array, sin: Array, out: Array) -> None:
    """All products of 1, c_j, s_j over the wires, `(3^wires, window)`; the first wire's symbol changes slowest."""
    multiply = _library(out).multiply
    out[0] = 1.0
    size = 1
    for c, s in reversed(list(zip(cos, sin, strict=True))):
        multiply(out[:size], c, out=out[size : 2 * size])
        multiply(out[:size], s, out=out[2 * size : 3 * size])
        size *= 3


def _product_state(cos: Array, sin: Array, out: Array) -> None:
    """The amplitudes of the product of (c_j, s_j), `(2^wires, window)`; wire 0 is the most significant bit."""
    multiply = _library(out).multiply
    out[0] = 1.0
    size = 1
    for c, s in reversed(list(zip(cos, sin, strict=True))):
        multiply(out[:size], s, out=out[size : 2 * size])
        out[:size] *= c
        size *= 2


def _blocks(angles: Array, width: int) -> Iterator[tuple[slice, Array]]:
    """Contiguous copies of `width` windows each, the last one filled up with zeros."""
    n_windows = angles.shape[1]
    piece = _empty((angles.shape[0], width), angles)
    for start in range(0, n_windows, width):
        columns = slice(start, min(start + width, n_windows))
        piece[:, : columns.stop - start] = angles[:, columns]
        piece[:, columns.stop - start :] = 0.0
        yield columns, piece


def _block_width(rows: int, angles: Array) -> int:
    """How many windows at once: a power of two on the CPU, at least 64; elsewhere as many as there are, if they fit."""
    if isinstance(angles, np.ndarray):
        return min(_CPU_WINDOWS, 1 << max(6, (_CPU_BYTES // (8 * rows)).bit_length() - 1))
    fit = _DEVICE_BYTES // (int(angles.element_size()) * rows)
    return max(1, min(int(angles.shape[1]), fit))


def _library(array: Array) -> Any:
    return np if isinstance(array, np.ndarray) else torch


def _empty(shape: tuple[int, ...], like: Array) -> Array:
    if isinstance(like, np.ndarray):
        return np.empty(shape, like.dtype)
    return torch.empty(shape, dtype=like.dtype, device=like.device)


def _working(shape: tuple[int, ...], like: Array) -> Array:
    """Room for what goes into a matrix product and comes out of it."""
    return np.empty(shape, np.float64) if isinstance(like, np.ndarray) else _empty(shape, like)


def _placed(matrix: np.ndarray, like: Array) -> Array:
    if isinstance(like, np.ndarray):
        return matrix
    return torch.from_numpy(matrix).to(device=like.device, dtype=like.dtype)
