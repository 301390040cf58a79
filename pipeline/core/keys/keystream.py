"""From a sub-key to numbers: SHAKE-256 words, uniforms and normals, the same bytes on every machine.

docs/keys.md defines every step with test vectors, so that somebody else can implement it. Nothing but the standard
library and numpy is used, and of numpy only what IEEE 754 fixes to the last bit (+ - * / and square root, one operation
per call, so that no compiler can fuse two): no logarithm, no power, no matrix product of a library that may round
otherwise tomorrow.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final

import numpy as np

from pipeline.core.errors import EnvironmentProblem
from pipeline.core.keys.subkeys import SUBKEY_BYTES

_WORD_BYTES: Final = 8
_DISCARDED_BITS: Final = np.uint64(12)
_BLOCK: Final = 1 << 14  # values whose temporaries stay in a core's cache


def keystream_words(key: bytes, label: str, count: int) -> np.ndarray:
    """`count` little-endian uint64 words of SHAKE-256(key || label).

    Raises:
        EnvironmentProblem: the key is not 32 bytes long, so that key and label could run into one another.
    """
    if len(key) != SUBKEY_BYTES:
        raise EnvironmentProblem(f"a keystream's sub-key is {SUBKEY_BYTES} bytes long")
    stream = hashlib.shake_256(key + label.encode()).digest(count * _WORD_BYTES)
    return np.frombuffer(stream, dtype="<u8")


def keystream_uniform(key: bytes, label: str, shape: tuple[int, ...]) -> np.ndarray:
    """float64 uniforms in the open interval (0, 1): (k + 1/2) / 2^52 with k the word's top 52 bits.

    With 52 bits every value is exact, and u as likely as 1 - u; with 53, k + 1/2 would have to be rounded, to 1 even.
    """
    count = math.prod(shape)
    words = keystream_words(key, label, count)
    uniforms = np.empty(count)
    for start in range(0, count, _BLOCK):
        block = uniforms[start : start + _BLOCK]
        block[:] = words[start : start + _BLOCK] >> _DISCARDED_BITS
        block += 0.5
        block *= 2.0**-52
    return uniforms.reshape(shape)


def keystream_normal(key: bytes, label: str, shape: tuple[int, ...]) -> np.ndarray:
    """float64 standard normals: the normal quantile of `keystream_uniform`, at most 8.2 away from 0."""
    draws = keystream_uniform(key, label, shape)
    flat = draws.reshape(-1)
    for start in range(0, len(flat), _BLOCK):
        block = flat[start : start + _BLOCK]
        block[:] = _quantile(block)
    return draws


def normal_quantile(probability: np.ndarray) -> np.ndarray:
    """The inverse of the standard normal distribution function, for float64 values in the open interval (0, 1).

    Wichura 1988, algorithm AS 241 (PPND16), with the logarithm below; 0, 1 and beyond are not looked for.
    """
    flat = np.asarray(probability, dtype=np.float64).reshape(-1)
    result = np.empty(flat.shape)
    for start in range(0, len(flat), _BLOCK):
        result[start : start + _BLOCK] = _quantile(flat[start : start + _BLOCK])
    return result.reshape(np.shape(probability))


# Highest power first, as Horner's rule takes them. The denominators' last coefficient is 1.
_CENTRE: Final = (
    (
        *(2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4),
        *(1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0),
    ),
    (
        *(5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4),
        *(5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0),
    ),
)
_NEAR_TAIL: Final = (
    (
        *(7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0),
        *(3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0),
    ),
    (
        *(1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1),
        *(6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0),
    ),
)
_FAR_TAIL: Final = (
    (
        *(2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2),
        *(2.96560571828504891230e-1, 1.78482653991729133580e0, 5.46378491116411436990e0, 6.65790464350110377720e0),
    ),
    (
        *(2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4),
        *(1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0),
    ),
)
_SQRT_HALF: Final = float.fromhex("0x1.6a09e667f3bcdp-1")
_LN2_HIGH: Final = float.fromhex("0x1.62e42fefa3800p-1")  # ln 2 to 42 bits: its product with an exponent is exact
_LN2_LOW: Final = float.fromhex("0x1.ef35793c76730p-45")
_ODD_RECIPROCALS: Final = tuple(1.0 / odd for odd in range(23, 2, -2))  # 1/23, 1/21, ..., 1/3


def _quantile(probability: np.ndarray) -> np.ndarray:
    """One block of `normal_quantile`, flat: a rational function in the middle, two others in the tails."""
    offset = probability - 0.5
    square = offset * offset
    np.subtract(0.180625, square, out=square)
    np.maximum(square, 0.0, out=square)  # the tails are overwritten below
    result = _ratio(_CENTRE, square)
    result *= offset
    tails = np.flatnonzero(np.abs(offset) > 0.425)
    if len(tails):
        below = probability[tails]
        distance = np.sqrt(-_log(np.minimum(below, 1.0 - below)))
        size = _ratio(_NEAR_TAIL, distance - 1.6)
        far = distance > 5.0
        if far.any():
            size[far] = _ratio(_FAR_TAIL, distance[far] - 5.0)
        result[tails] = np.copysign(size, offset[tails])
    return result


def _ratio(polynomials: tuple[tuple[float, ...], tuple[float, ...]], at: np.ndarray) -> np.ndarray:
    above, below = (_horner(coefficients, at) for coefficients in polynomials)
    above /= below
    return above


def _horner(coefficients: tuple[float, ...], at: np.ndarray) -> np.ndarray:
    value = np.full(at.shape, coefficients[0])
    for coefficient in coefficients[1:]:
        value *= at
        value += coefficient
    return value


def _log(value: np.ndarray) -> np.ndarray:
    """The natural logarithm of positive normal floats, from exact operations: exponent times ln 2, plus 2 artanh s.

    m 2^e = value with sqrt(1/2) <= m < sqrt 2, s = (m - 1) / (m + 1), |s| < .172: twelve terms of the series are
    exact to the last bits.
    """
    mantissa, exponent = np.frexp(value)
    low = mantissa < _SQRT_HALF
    mantissa = np.where(low, mantissa * 2.0, mantissa)
    power = exponent.astype(np.float64) - low
    ratio = (mantissa - 1.0) / (mantissa + 1.0)
    square = ratio * ratio
    tail = _horner(_ODD_RECIPROCALS, square) * square * ratio
    series = 2.0 * (tail + ratio)
    return np.asarray(power * _LN2_HIGH + (power * _LN2_LOW + series))
