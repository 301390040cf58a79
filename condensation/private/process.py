"""A public process that draws series from a few statistics: it sees no patient, so any number of draws is free.

Per sample and channel: a level and a trend given that the variable was measured, first-order autoregressive noise
around them, laboratory values that stand for hours, the normal value before the first measurement and in place of a
variable that was never measured, statics that are what statics can be. The structure is textbook and the same for all
cohorts; only `ProcessStatistics` tells one from another.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Float32

from condensation.private.channels import OBSERVED, PublicChannels
from condensation.private.process_statistics import ProcessStatistics
from pipeline.core.seeds import generator

HOURLY_MEMORY: Final = 0.7  # correlation of neighbouring hours
HELD_HOURS: Final = 8.0  # how long a laboratory value stands
UNTIL_FIRST_HOURS: Final = (1.0, 4.0)  # mean time before the first measurement: at the bedside, in the laboratory


def draw_series(
    channels: PublicChannels, statistics: ProcessStatistics, n: int, seed: int
) -> Float32[np.ndarray, "sample step channel"]:
    """`n` series in the prepared range, every cell within its plausible limits, statics and 0/1 channels exact."""
    draws = generator(seed, "public process")
    level = statistics.level_mean + statistics.level_sd * draws.normal(size=(n, len(channels.names)))
    trend = statistics.trend_mean + statistics.trend_sd * draws.normal(size=level.shape)
    noise = statistics.own_sd * _autoregressive(channels, draws, n)
    noise[:, :, channels.falling] = 0.0
    scaled = np.clip(level[:, None] + _ramp(channels)[:, None] * trend[:, None] + noise, 0.0, 1.0)
    linear = np.clip(channels.linear(_held(channels, scaled, draws)), channels.floor, channels.ceiling)
    linear = np.where(channels.binary, _binary(channels, linear, draws), linear)
    linear = _measured(channels, statistics, linear, draws)
    linear[:, :, channels.falling] = np.minimum.accumulate(linear[:, :, channels.falling], axis=1)
    linear[:, :, channels.static] = _statics(channels, statistics, level, draws)[:, None]
    return np.asarray(channels.low + (channels.high - channels.low) * linear, dtype=np.float32)


def _ramp(channels: PublicChannels) -> np.ndarray:
    """1 over the early block, 0 over the late one, linear between: `(step,)`."""
    blocks = channels.blocks
    gap = max(1, blocks.late_start - blocks.early_end + 1)
    return np.asarray(np.clip((blocks.late_start - np.arange(channels.n_steps)) / gap, 0.0, 1.0))


def _autoregressive(channels: PublicChannels, draws: np.random.Generator, n: int) -> np.ndarray:
    """Stationary noise of variance 1, `(sample, step, channel)`."""
    memory = HOURLY_MEMORY**channels.step_hours
    noise = draws.normal(size=(n, channels.n_steps, len(channels.names)))
    noise[:, 1:] *= np.sqrt(1 - memory**2)
    for step in range(1, channels.n_steps):
        noise[:, step] += memory * noise[:, step - 1]
    return noise


def _held(channels: PublicChannels, series: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Laboratory values stand from one measurement to the next; when the first is taken differs between samples."""
    places = np.flatnonzero(channels.held)
    length = max(1, round(HELD_HOURS / channels.step_hours))
    if not places.size or length == 1:
        return series
    phase = draws.integers(0, length, size=(len(series), 1, places.size))
    taken = (np.arange(channels.n_steps)[:, None] + phase) // length * length - phase
    held = series.copy()
    held[:, :, places] = np.take_along_axis(series[:, :, places], np.maximum(taken, 0), axis=1)
    return held


def _binary(channels: PublicChannels, linear: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """0 or 1: a mask by chance in every step, anything else by which half its path is in."""
    by_chance = channels.mask & ~channels.falling
    return np.where(by_chance, draws.uniform(size=linear.shape) < linear, linear > 0.5).astype(np.float64)


def _measured(
    channels: PublicChannels, statistics: ProcessStatistics, linear: np.ndarray, draws: np.random.Generator
) -> np.ndarray:
    """The constant of an unmeasured variable throughout, or until its first measurement; masks agree with that."""
    place = {name: index for index, name in enumerate(channels.names)}
    of = [place.get(name.removeprefix(OBSERVED), index) for index, name in enumerate(channels.names)]
    never = (draws.uniform(size=(len(linear), len(of))) >= statistics.measured)[:, of]
    mean = np.where(channels.held, UNTIL_FIRST_HOURS[1], UNTIL_FIRST_HOURS[0])[of] / channels.step_hours
    until = np.where(never, channels.n_steps, (draws.geometric(1 / (1 + mean), size=never.shape) - 1)[:, of])
    constant = channels.linear(channels.start)
    has_constant = ~np.isnan(constant) & ~channels.falling & ~channels.static
    waits = (np.arange(channels.n_steps)[:, None] < until[:, None]) & has_constant
    return np.where(waits, constant, linear)


def _statics(
    channels: PublicChannels, statistics: ProcessStatistics, level: np.ndarray, draws: np.random.Generator
) -> np.ndarray:
    """`(sample, static)`: numbers by their level, 0/1 by their share, of one-hot categories one or none."""
    places = np.flatnonzero(channels.static)
    numbers = np.clip(channels.linear(np.clip(level, 0.0, 1.0)), channels.floor, channels.ceiling)
    linear = np.asarray(numbers[:, places])
    share = statistics.level_mean[places]
    chance = draws.uniform(size=(len(level), places.size))
    groups: dict[str, list[int]] = {}
    for column, place in enumerate(places):
        if channels.binary[place]:
            groups.setdefault(channels.names[place].split(":")[0], []).append(column)
    for columns in groups.values():
        edges = np.cumsum(share[columns]) / max(1.0, float(share[columns].sum()))
        drawn = (chance[:, columns[:1]] >= edges).sum(axis=1)  # beyond the last edge: none of them
        linear[:, columns] = drawn[:, None] == np.arange(len(columns))
    return linear
