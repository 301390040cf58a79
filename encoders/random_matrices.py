"""Random matrices drawn from a key: the same bytes on every platform, so that two sites hold the same encoder.

Nothing here but comparisons, + - * / and square roots, each one operation per call (IEEE 754 fixes each to the last
bit, and no compiler can fuse two), in an order that is written down. A QR of LAPACK or a sum of numpy would do neither:
their order of additions depends on the machine's vector units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final, get_args

import numpy as np
from jaxtyping import Float64

from pipeline.core.errors import ConfigError
from pipeline.core.keys.keystream import keystream_normal, keystream_uniform, keystream_words
from pipeline.core.options.encoders import Distribution

_DISTRIBUTIONS: Final[tuple[Distribution, ...]] = get_args(Distribution)
_ROWS_AT_ONCE: Final = 64  # rows of a wide matrix that stay in a core's cache
_PASSES: Final = 2  # of Gram-Schmidt: "twice is enough" (Giraud, Langou, Rozloznik & van den Eshof 2005)


@final
@dataclass(frozen=True)
class MatrixLaw:
    """How a `components` x `width` matrix M is drawn, scaled so that E ||M x||^2 = ||x||^2.

    gaussian: N(0, 1 / components) (Johnson & Lindenstrauss 1984). rademacher: +-1 / sqrt(components). sparse: 0, or
    +-1 / sqrt(density * components) with probability `density` (Achlioptas 2003: 1/3; Li, Hastie & Church 2006:
    1 / sqrt(width), the default). orthogonal: the first rows of a Haar-distributed orthogonal matrix times
    sqrt(width / components); square, it keeps every distance exactly.
    """

    distribution: Distribution
    components: int
    width: int
    density: float | None = None

    def __post_init__(self) -> None:
        if self.distribution not in _DISTRIBUTIONS:
            raise ConfigError(f"a random projection's distribution is one of {', '.join(_DISTRIBUTIONS)}")
        if not 1 <= self.components <= self.width:
            raise ConfigError(
                f"a random projection has 1 to `window` components, not {self.components} for a window of {self.width}"
            )
        if self.density is not None and (self.distribution != "sparse" or not 0 < self.density <= 1):
            raise ConfigError("density is for distribution sparse alone, above 0 and at most 1")

    @property
    def share(self) -> float | None:
        """The expected share of entries that are not 0; None where all are not."""
        if self.distribution != "sparse":
            return None
        return 1.0 / math.sqrt(self.width) if self.density is None else self.density

    def draw(self, stream: bytes, label: str, count: int) -> Float64[np.ndarray, "matrix component position"]:
        """`count` independent matrices from the keystream `label` of the sub-key `stream`, entry after entry."""
        shape = (count, self.components, self.width)
        if self.distribution == "gaussian":
            return keystream_normal(stream, label, shape) / math.sqrt(self.components)
        if self.distribution == "rademacher":
            signs = (keystream_words(stream, label, math.prod(shape)) >> np.uint64(63)).astype(np.float64)
            return (2.0 * signs - 1.0).reshape(shape) / math.sqrt(self.components)
        if self.distribution == "sparse":
            return self._sparse(keystream_uniform(stream, label, shape))
        rows = keystream_normal(stream, label, shape)
        for _ in range(_PASSES):
            _orthonormalise(rows)
        rows *= math.sqrt(self.width / self.components)
        return rows

    def _sparse(self, uniform: np.ndarray) -> np.ndarray:
        share = self.share or 1.0
        signs = (uniform < share / 2).astype(np.float64)
        signs -= uniform > 1.0 - share / 2
        return signs / math.sqrt(share * self.components)


def _orthonormalise(rows: Float64[np.ndarray, "matrix component position"]) -> None:
    """Modified Gram-Schmidt in place, row after row; Gaussian rows become Haar-distributed (norms are positive)."""
    components = rows.shape[1]
    for done in range(components):
        row = rows[:, done : done + 1]
        row /= np.sqrt(_folded(row * row))
        for start in range(done + 1, components, _ROWS_AT_ONCE):
            rest = rows[:, start : start + _ROWS_AT_ONCE]
            rest -= _folded(rest * row) * row


def _folded(values: Float64[np.ndarray, "matrix row position"]) -> Float64[np.ndarray, "matrix row 1"]:
    """The sum over the last axis, the back half added onto the front half until one value is left; uses `values` up.

    Of an odd number the front keeps one more. Additions of whole arrays, hence one order on every machine.
    """
    left = values.shape[2]
    while left > 1:
        half = (left + 1) // 2
        values[:, :, : left - half] += values[:, :, half:left]
        left = half
    return values[:, :, :1]
