"""A fixed, public feature map of a prepared series, and its exact right inverse.

Everything in it is known before a patient is looked at: block borders are shares of the series, centre and range are
those of the scaling. phi(x) = (1, late - centre, early - late) per channel, where `late` is the mean over the last
quarter of the steps and `early` over the first half: level and trend, the two numbers per variable that a private
release of a few thousand stays can afford.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float64

from pipeline.core.digest import digest_json
from pipeline.core.errors import DataError
from pipeline.core.types import Json

KIND: Final = "late_level_and_trend"
VERSION: Final = 1
TREND_WEIGHT: Final = 0.5  # trends tell less than levels; a public choice
_ENCODED_KINDS: Final = ("quantum", "random_projection")


@final
@dataclass(frozen=True)
class LevelAndTrend:
    """phi for series of `n_steps` x `n_channels` with values meant to lie in [low, high]; 1 + 2 * n_channels features.

    Values outside the range are clipped to it: the sensitivity must not depend on anybody keeping a promise.
    """

    n_steps: int
    n_channels: int
    low: float
    high: float

    @property
    def n_features(self) -> int:
        """The constant, a level per channel, a trend per channel."""
        return 1 + 2 * self.n_channels

    @property
    def half_range(self) -> float:
        """Largest |level - centre|."""
        return (self.high - self.low) / 2

    @property
    def early_end(self) -> int:
        """The early block is [0, early_end)."""
        return max(1, self.n_steps // 2)

    @property
    def late_start(self) -> int:
        """The late block is [late_start, n_steps)."""
        return self.n_steps - max(1, self.n_steps // 4)

    @property
    def weights(self) -> Float64[np.ndarray, " feature"]:
        """Public importance of the non-constant features, `(2 * n_channels,)`."""
        return np.concatenate([np.ones(self.n_channels), np.full(self.n_channels, TREND_WEIGHT)])

    def features(self, series: np.ndarray) -> Float64[np.ndarray, "stay feature"]:
        """The non-constant part of phi: `(stay, step, channel)` -> `(stay, 2 * channel)`, in [-2h, 2h]."""
        clipped = np.clip(np.asarray(series, dtype=np.float64), self.low, self.high)
        late = clipped[:, self.late_start :].mean(axis=1)
        early = clipped[:, : self.early_end].mean(axis=1)
        return np.concatenate([late - (self.low + self.high) / 2, early - late], axis=1)

    def series(self, features: np.ndarray) -> Float64[np.ndarray, "sample step channel"]:
        """The flattest piecewise-linear series with these features, clipped to the range.

        Constant over the early block, linear between, constant over the late block, so `features(series(f)) == f`
        wherever nothing is clipped (n_steps = 1 has no trend).
        """
        level, trend = features[:, : self.n_channels], features[:, self.n_channels :]
        gap = max(1, self.late_start - self.early_end + 1)
        ramp = np.clip((self.late_start - np.arange(self.n_steps)) / gap, 0, 1)
        series = (level + (self.low + self.high) / 2)[:, None, :] + ramp[None, :, None] * trend[:, None, :]
        return np.asarray(np.clip(series, self.low, self.high))

    def describe(self) -> dict[str, object]:
        """The public description that `Moments.feature_map` carries; `from_description` reads it back."""
        return {
            "kind": KIND,
            "version": VERSION,
            "n_steps": self.n_steps,
            "n_channels": self.n_channels,
            "range": [self.low, self.high],
            "trend_weight": TREND_WEIGHT,
        }


def from_description(described: Json) -> LevelAndTrend:
    """The map that wrote `described`.

    Raises:
        DataError: another kind or version.
    """
    if described.get("kind") != KIND or described.get("version") != VERSION:
        raise DataError(f"the moments use a feature map other than {KIND} version {VERSION}")
    low, high = described["range"]
    return LevelAndTrend(int(described["n_steps"]), int(described["n_channels"]), float(low), float(high))


def public_range(transforms: tuple[Json, ...]) -> tuple[float, float]:
    """The range that the transforms publicly promise: a stated "range", [-1, 1] once encoded, else [0, 1]."""
    low, high = 0.0, 1.0
    for step in transforms:
        if "range" in step:
            low, high = (float(bound) for bound in step["range"])
        elif step.get("kind") in _ENCODED_KINDS:
            low, high = -1.0, 1.0
    return low, high


def map_digest(described: Json, channels: tuple[str, ...], tasks: tuple[str, ...], transforms: tuple[Json, ...]) -> str:
    """What two sites must share for their moments to add: the map, the columns, the tasks and what was done before."""
    return digest_json(
        {"map": dict(described), "channels": list(channels), "tasks": list(tasks), "transforms": _plain(transforms)}
    )


def _plain(transforms: tuple[Json, ...]) -> list[dict[str, object]]:
    return [dict(step) for step in transforms]
