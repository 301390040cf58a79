"""The few numbers that a public process needs of the patients: rows that add up, and what their sums say.

A row of a stay holds, per channel, its late level, how much higher the early level was, the standard deviation over
its own steps, and whether it was ever measured. Sums of rows and of their squares are all that is asked, so the same
numbers can come from one query, from several sites or from a running sum; nothing here knows which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float64

from condensation.private.channels import PublicChannels

CLIP_SHARE: Final = 0.275  # of sqrt(row length): rows are clipped to this norm
LEAST_MEASURED: Final = 0.02  # smallest share of stays that a statistic "given that it was measured" is divided by
SPREAD: Final = (0.05, 0.3)  # least and largest standard deviation of levels that is believed, in shares of the range
LARGEST_OWN_SPREAD: Final = 0.2  # of a stay's own standard deviation
TOLD_APART: Final = 1e-6  # from the constant that stands where nothing was measured, in shares of the range


@final
@dataclass(frozen=True)
class ProcessStatistics:
    """What a process is drawn from, `(channel,)` each, scaled; all but `measured` given that it was measured."""

    measured: Float64[np.ndarray, " channel"]  # share of stays in which it was measured at all; 1 where not known
    level_mean: Float64[np.ndarray, " channel"]
    level_sd: Float64[np.ndarray, " channel"]
    trend_mean: Float64[np.ndarray, " channel"]  # early less late; 0 for statics
    trend_sd: Float64[np.ndarray, " channel"]
    own_sd: Float64[np.ndarray, " channel"]  # of a stay's steps around their mean


def row_length(channels: PublicChannels) -> int:
    """Levels of all channels; trends and own deviations of all but statics; measured where a constant tells it."""
    moving, told = _moving(channels), _told(channels)
    return len(channels.names) + 2 * len(moving) + len(told)


def row_clip(channels: PublicChannels) -> float:
    """The public norm that rows are clipped to."""
    return float(CLIP_SHARE * np.sqrt(row_length(channels)))


def statistic_rows(channels: PublicChannels, series: np.ndarray) -> Float64[np.ndarray, "stay entry"]:
    """`(stay, step, channel)` -> `(stay, row_length)`, entries in [-1, 1].

    Levels are taken from the constant of a variable that nobody measured (1/2 where there is none), so a stay without
    a measurement adds nothing to that channel's level, trend and deviation; "measured" is 1/2 or -1/2.
    """
    moving, told = _moving(channels), _told(channels)
    blocks, shares = channels.blocks, channels.shares(series)
    late = channels.scaled(shares[:, blocks.late_start :].mean(axis=1))
    early = channels.scaled(shares[:, : blocks.early_end].mean(axis=1))
    seen = np.abs(shares[:, :, told] - channels.linear(channels.start)[told]).max(axis=1, initial=0.0) > TOLD_APART
    own = channels.scaled(shares).std(axis=1)[:, moving]
    return np.concatenate([late - _origin(channels), (early - late)[:, moving], own, seen - 0.5], axis=1)


def statistics_from_sums(
    channels: PublicChannels, count: float, sums: np.ndarray, squares: np.ndarray
) -> ProcessStatistics:
    """What (noisy) sums of `statistic_rows` and of their squares say; finite for any numbers, whatever the noise.

    Args:
        count: number of subjects, noisy; below 1 it counts as 1.
        sums, squares: `(row_length,)`.
    """
    count = max(float(count), 1.0)
    mean, square = np.clip(sums / count, -1.0, 1.0), np.clip(squares / count, 0.0, 1.0)
    size, moving, told = len(channels.names), _moving(channels), _told(channels)
    measured = np.ones(size)
    measured[told] = np.clip(mean[size + 2 * len(moving) :] + 0.5, 0.0, 1.0)
    given = np.maximum(measured, LEAST_MEASURED)
    offset = np.clip(mean[:size] / given, -1.0, 1.0)
    spread = np.sqrt(np.maximum(square[:size] / given - offset**2, 0.0))
    trends = slice(size, size + len(moving))
    own = slice(trends.stop, trends.stop + len(moving))
    trend = np.clip(mean[trends] / given[moving], -1.0, 1.0)
    trend_variance = np.clip(square[trends] / given[moving] - trend**2, 0.0, SPREAD[1] ** 2)
    return ProcessStatistics(
        measured=measured,
        level_mean=np.clip(offset + _origin(channels), 0.0, 1.0),
        level_sd=np.clip(spread, *SPREAD),
        trend_mean=_spread_out(size, moving, trend),
        trend_sd=_spread_out(size, moving, np.sqrt(trend_variance)),
        own_sd=_spread_out(size, moving, np.clip(mean[own] / given[moving], 0.0, LARGEST_OWN_SPREAD)),
    )


def _origin(channels: PublicChannels) -> np.ndarray:
    return np.where(np.isnan(channels.start) | channels.static, 0.5, channels.start)


def _moving(channels: PublicChannels) -> np.ndarray:
    return np.flatnonzero(~channels.static)


def _told(channels: PublicChannels) -> np.ndarray:
    return np.flatnonzero(~channels.static & ~np.isnan(channels.start))


def _spread_out(size: int, places: np.ndarray, values: np.ndarray) -> np.ndarray:
    found = np.zeros(size)
    found[places] = values
    return found
