"""Members as one might hide them: what the views must find, or they are no evidence."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np

from pipeline.audit.sets.disguises.pairs import PAIRED
from pipeline.audit.sets.disguises.views import ANY_STEPS, HALF, MIN_NUMBERS, Space

FACTOR: Final = 1.1


def disguised(
    rows: np.ndarray,
    strangers: np.ndarray,
    space: Space,
    rng: np.random.Generator,
    told: Collection[str],
    paired: np.ndarray,
) -> dict[str, np.ndarray]:
    """Members as one might hide them: scaled from zero, mirrored, shifted; and what the views `told` are there for.

    Args:
        rows: the members; paired: others, among those whose pairs are known.
    """
    free = space.free
    scaled, mirrored, shifted = rows.copy(), rows.copy(), rows.copy()
    scaled[..., free] = FACTOR * (rows[..., free] - space.zero[free]) + space.zero[free]
    mirrored[..., free] = 2 * space.middle[free] - rows[..., free]
    shifted[..., free] = rows[..., free] + 0.5 * space.spread[free]
    planted = (
        {"scaled": scaled, "mirrored": mirrored, "shifted": shifted} if free.size * rows.shape[1] >= MIN_NUMBERS else {}
    )
    if HALF in told:
        half = strangers[rng.integers(len(strangers), size=len(rows))].copy()
        some = rng.permutation(free)[: (len(free) + 1) // 2]
        half[..., some] = rows[..., some]
        planted["half of the columns"] = half
    if ANY_STEPS in told:
        planted["backwards"] = rows[:, ::-1]
    if PAIRED in told:
        planted["every column by its own factor"] = (
            rng.uniform(0.5, 2, len(space.zero)) * (paired - space.zero) + space.zero
        )
    return planted
