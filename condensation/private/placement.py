"""Which of many drawn series become the samples: those at equal steps of the teacher's logit.

Drawn at random most samples would say the same, that a typical patient has a typical risk; at equal steps from the
lowest to the highest hundredth a few of them show the whole range.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Float64, Int64

POOL: Final = 3000  # series to choose from
POOL_PER_SAMPLE: Final = 3  # at least, where many samples are asked for
TAIL: Final = 0.01  # of the pool's logits at either end are passed over


def pool_size(n: int) -> int:
    """How many series to draw for `n` samples."""
    return max(POOL, POOL_PER_SAMPLE * n)


def placed(logits: Float64[np.ndarray, " series"], n: int) -> Int64[np.ndarray, " sample"]:
    """Positions of `n` different series, each the nearest unused one to its step: `n` at most `len(logits)`."""
    low, high = np.quantile(logits, [TAIL, 1 - TAIL])
    distance, chosen = np.array(logits, dtype=np.float64), np.empty(n, dtype=np.int64)
    for sample, step in enumerate(np.linspace(low, high, n)):
        chosen[sample] = int(np.argmin(np.abs(distance - step)))
        distance[chosen[sample]] = np.inf
    return chosen
