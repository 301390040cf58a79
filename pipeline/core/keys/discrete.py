"""From a sub-key to discrete Gaussian integers: P(k) is proportional to exp(-k^2 / (2 scale^2)), exactly, at every k.

Rejection, as in Canonne, Kamath and Steinke (2020, arXiv 2004.00010, algorithm 3), from proposals that cost one word of
the keystream and no arithmetic: |k| = x 2^b + u with u uniform below 2^b and x from a table of whole shares of 2^14,
share[x] a little above the part that x has of half the bell. A proposal is accepted with the probability

    level exp(-k^2 / (2 scale^2)) / share[x],    level a whole number so small that this is at most 1 everywhere.

Floating point only screens: a uniform within `MARGIN` of its probability is compared with it again in exact arithmetic,
with as many more bits of the keystream as that takes. So no value depends on a machine's rounding, and none is out of
reach. docs/keys.md defines every step, with test vectors.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Final, final

import numpy as np

from pipeline.core.errors import EnvironmentProblem
from pipeline.core.keys.keystream import keystream_words

LARGEST_SCALE: Final = 1 << 46  # up to it the screen's |k| are float64 to the last bit, and a word has bits left
MARGIN: Final = 2.0**-40  # some thousand times the rounding of the screen's few operations
TAIL: Final = 64  # from this x on P(TAIL + g) = 2^-(g + 1) of the last share; the bell halves faster: 2^b > scale / 8
_WORD: Final = 64  # bits
_INDEX: Final = 14  # of them choose x
_FIXED: Final = 96  # bits behind the point of the table's fixed-point numbers
_PROPOSALS: Final = 1 << 13  # in a round, so that its temporaries stay in a core's cache


def keystream_discrete_normal(key: bytes, label: str, scale: int, shape: tuple[int, ...]) -> np.ndarray:
    """Independent int64 values with P(k) proportional to exp(-k^2 / (2 scale^2)), over all whole numbers.

    Raises:
        EnvironmentProblem: a scale below 1 or above `LARGEST_SCALE`.
    """
    if not 1 <= scale <= LARGEST_SCALE:
        raise EnvironmentProblem(f"discrete noise has a scale of 1 to {LARGEST_SCALE} steps, not {scale}")
    table = _table(int(scale))
    found = np.empty(math.prod(shape), dtype=np.int64)
    done = number = 0
    while done < len(found):
        left = len(found) - done
        accepted = _round(key, f"{label}/{number}", table, min(left + left // 8 + 32, _PROPOSALS))[:left]
        found[done : done + len(accepted)] = accepted
        done, number = done + len(accepted), number + 1
    return found.reshape(shape)


@final
@dataclass(frozen=True)
class _Table:
    """The proposals of one scale."""

    scale: int
    low: int  # b, the bits of u
    level: int
    shares: tuple[int, ...]  # of x = 0, 1, ..., TAIL; together 2^14
    places: np.ndarray  # (2^14,) uint8: x, by a word's highest bits
    factors: np.ndarray  # (TAIL + 1,): level / share

    @property
    def digits(self) -> int:
        """How many bits of the deciding uniform are in the word itself."""
        return _WORD - _INDEX - 1 - self.low


def _round(key: bytes, label: str, table: _Table, asked: int) -> np.ndarray:
    """The accepted ones of `asked` proposals, in their order.

    A word is, from its highest bit: 14 bits for x, the first bits of the uniform that decides, the sign, b bits of u.
    """
    words = keystream_words(key, label, asked)
    low, digits = table.low, table.digits
    x = table.places[words >> np.uint64(_WORD - _INDEX)]
    size = (words & np.uint64((1 << low) - 1)).astype(np.float64)
    size += x * 2.0**low
    gap = size / table.scale
    gap *= gap
    gap *= -0.5
    np.exp(gap, out=gap)
    gap *= table.factors[x]
    head = words >> np.uint64(low)
    gap -= (head >> np.uint64(1) & np.uint64((1 << digits) - 1)).astype(np.float64) * 2.0**-digits
    negative = (head & np.uint64(1)).astype(bool)
    values = size.astype(np.int64)
    np.negative(values, out=values, where=negative)
    kept = gap > 0
    unsure = (gap > -MARGIN) & (gap < 2.0**-digits + MARGIN)
    unsure |= x == TAIL
    for place in np.flatnonzero(unsure).tolist():
        value = _decided(key, f"{label}/{place}", table, int(words[place]))
        kept[place] = value is not None
        values[place] = value or 0
    kept &= (values != 0) | ~negative  # one zero, not two
    return np.asarray(values[kept])


def _decided(key: bytes, label: str, table: _Table, word: int) -> int | None:
    """The value that a word proposes, None if it is rejected: in exact arithmetic, however many bits that takes."""
    bits = _bits(key, label, word, table.digits)
    x = int(table.places[word >> (_WORD - _INDEX)])
    factor = Fraction(table.level, table.shares[x])
    if x == TAIL:
        factor *= 2
        while not next(bits):
            x, factor = x + 1, factor * 2
    size = (x << table.low) + (word & ((1 << table.low) - 1))
    if not _below(bits, factor, Fraction(size**2, 2 * table.scale**2)):
        return None
    return -size if word >> table.low & 1 else size


def _bits(key: bytes, label: str, word: int, digits: int) -> Iterator[int]:
    """The word's bits after its first 14, then, without end, those of the proposal's own stream, highest first."""
    yield from (word >> place & 1 for place in range(_WORD - _INDEX - 1, _WORD - _INDEX - 1 - digits, -1))
    taken = 0
    while True:
        more = int(keystream_words(key, label, taken + 1)[taken])
        yield from (more >> place & 1 for place in range(_WORD - 1, -1, -1))
        taken += 1


def _below(bits: Iterator[int], factor: Fraction, exponent: Fraction) -> bool:
    """Is the uniform with these binary digits less than factor exp(-exponent)? Digits are taken until that is clear."""
    uniform, known = 0, 0
    while True:
        for _ in range(_WORD):
            uniform, known = 2 * uniform + next(bits), known + 1
        least, most = _exponential(exponent, digits=20 + known // 3)
        if Fraction(uniform + 1, 1 << known) <= factor * least:
            return True
        if Fraction(uniform, 1 << known) >= factor * most:
            return False


def _exponential(exponent: Fraction, digits: int) -> tuple[Fraction, Fraction]:
    """Two numbers with exp(-exponent) between them.

    `decimal` rounds quotient and exponential correctly: the one is off by |exponent| 10^-digits at most, the other by
    10^(1 - digits) of itself. An exponent above 100,000 has a chance of less than 2^-300.
    """
    with localcontext() as context:
        context.prec = digits
        value = Fraction((-Decimal(exponent.numerator) / Decimal(exponent.denominator)).exp())
    room = Fraction(1, 10 ** (digits - 7))
    return value * (1 - room), value * (1 + room)


@functools.lru_cache(maxsize=16)
def _table(scale: int) -> _Table:
    """share[x] = floor(level exp(-(x 2^b)^2 / (2 scale^2)) + 2^-64) + 1, the last one from twice the bell before it.

    The first share takes what is left of 2^14: a share may be larger than it must.
    """
    low = max(scale.bit_length() - 3, 0)
    bell = _half_bell(scale, low)
    level = ((1 << _INDEX) - 2 * TAIL << _FIXED) // sum(bell)
    room = 1 << (_FIXED - 64)  # far above the error of a fixed-point product, so that no share is too small
    shares = [(level * height + room >> _FIXED) + 1 for height in (*bell, 2 * bell[-1])]
    shares[0] += (1 << _INDEX) - sum(shares)
    places = np.repeat(np.arange(TAIL + 1, dtype=np.uint8), shares)
    return _Table(scale, low, level, tuple(shares), places, level / np.array(shares, dtype=np.float64))


def _half_bell(scale: int, low: int) -> list[int]:
    """exp(-(x 2^b)^2 / (2 scale^2)) for x = 0 ... TAIL - 1, with 96 bits behind the point, equal on every machine."""
    first = sum(_exponential(Fraction(1 << 2 * low, 2 * scale**2), digits=40)) / 2
    ratio = int(first * (1 << _FIXED))
    step = ratio * ratio >> _FIXED
    bell = [1 << _FIXED]
    for _ in range(TAIL - 1):
        bell.append(bell[-1] * ratio >> _FIXED)
        ratio = ratio * step >> _FIXED
    return bell
