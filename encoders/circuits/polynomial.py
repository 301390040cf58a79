"""Sparse trigonometric polynomials in Horner's form, evaluated elementwise on numpy arrays and torch tensors alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, final

from encoders.circuits.trigonometry import Array, cosine_and_sine

_SYMBOLS: Final = "1cs"


@final
@dataclass(frozen=True, eq=False, repr=False)
class Branch:
    """A multilinear polynomial split at one wire: one + cos(a_wire) * cos + sin(a_wire) * sin (Horner's form)."""

    wire: int
    one: Branch | float | None
    cos: Branch | float | None
    sin: Branch | float | None

    def __repr__(self) -> str:
        return "Branch(...)"  # the coefficients are the key


@final
@dataclass(frozen=True, eq=False, repr=False)
class Sparse:
    """An engine of few words per output."""

    polynomials: tuple[Branch | float, ...]

    def rows(self, angles: Array) -> Iterator[Array]:
        """One row over windows per output; angles `(wire, window)` are overwritten."""
        cos, sin = cosine_and_sine(angles)
        for polynomial in self.polynomials:
            value = evaluated(polynomial, cos, sin)
            yield cos[0] * 0.0 + value if isinstance(value, float) else value

    def __repr__(self) -> str:
        return f"Sparse(<{len(self.polynomials)}>)"


def factorised(terms: dict[str, float], wires: tuple[int, ...]) -> Branch | float:
    """Horner's form of a sum of words over `wires`; the wire that most words contain goes outermost."""
    if not terms:
        return 0.0
    if not wires:
        return next(iter(terms.values()))
    wire = max(wires, key=lambda j: sum(word[j] != "1" for word in terms))
    rest = tuple(j for j in wires if j != wire)
    if all(word[wire] == "1" for word in terms):
        return factorised(terms, rest)
    parts = ({w: v for w, v in terms.items() if w[wire] == symbol} for symbol in _SYMBOLS)
    return Branch(wire, *(factorised(part, rest) if part else None for part in parts))


def products(polynomial: Branch | float | None) -> int:
    """How many products of two rows, or of a row and a number, an evaluation takes."""
    if not isinstance(polynomial, Branch):
        return 0
    own = (polynomial.cos is not None) + (polynomial.sin is not None)
    return own + sum(products(part) for part in (polynomial.one, polynomial.cos, polynomial.sin))


def evaluated(polynomial: Branch | float, cos: Array, sin: Array) -> Any:
    """Value of a factorised polynomial, a new row over windows (or a number if no wire is in it)."""
    if isinstance(polynomial, float):
        return polynomial
    total = None if polynomial.one is None else evaluated(polynomial.one, cos, sin)
    for part, factor in ((polynomial.cos, cos[polynomial.wire]), (polynomial.sin, sin[polynomial.wire])):
        if part is None:
            continue
        value = evaluated(part, cos, sin)
        if isinstance(value, float):
            value = factor * value
        else:
            value *= factor
        if total is not None:
            value += total
        total = value
    return 0.0 if total is None else total
