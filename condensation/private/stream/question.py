"""What a stream asks of every stay, and what the sums so far say of a teacher and a process.

A stay adds one vector of norm at most 1, in three parts whose squared norms are shared 20 : 76 : 4.

- *Process*: one, its `statistic_rows` and their squares, its labels; the answers describe the public process.
- *Gradient*: `gradient_parts` at the weights that last night's answers gave (Kairouz et al. 2021, DP-FTRL; Denisov et
  al. 2022 for the factor), on features that a public constant centres and scales. Each night the weights take one
  step along what its sum grew by, and the teacher is their mean over the last half of the nights.

- *Reliability*: `reliability_parts` of the teacher that last night's answers gave. What the last half of the nights (or
  the window) added calibrates the teacher's risks: before that it was another teacher.

Nothing is computed from patients outside these sums, so all nights together are the stream's one query. A step counts
at most `STEP_STAYS` stays, whatever a night brings: a backlog, or a large hospital, does not overshoot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from condensation.private.accounting import task_weights
from condensation.private.channels import PublicChannels, public_channels
from condensation.private.moments import CHUNK_STAYS, COUNT_WEIGHT, clipped
from condensation.private.process_statistics import (
    ProcessStatistics,
    row_clip,
    row_length,
    statistic_rows,
    statistics_from_sums,
)
from condensation.private.stream.factor import running_sums
from condensation.private.teacher.logistic import (
    CLIP_NORM,
    CONSTANT,
    GRADIENT_CLIP,
    LogisticTeacher,
    gradient_parts,
    linear_teacher,
    shares_of_events,
    starting_logits,
)
from condensation.private.teacher.reliability import KNOTS, Reliability, reliability_parts
from pipeline.core.digest import digest_json
from pipeline.core.errors import ConfigError
from pipeline.core.types import EncodedCohort, Json

METHOD: Final = "private_stream"
PROCESS_SHARE: Final = 0.2  # of the squared norm of what a stay adds
RELIABILITY_SHARE: Final = 0.04  # likewise
LABEL_WEIGHT: Final = 0.5  # of a stay's labels, in units of the clip of its statistics
LEARNING_RATE: Final = 0.8  # of a stay's gradient
STEP_STAYS: Final = 32.0  # that a night's step counts, at most
AVERAGED: Final = 0.5  # share of the nights, up to the last, whose weights are averaged
SPREAD: Final = 4 / 3  # norm of a standardised row whose levels lie as far from the middle as uniform ones


@final
@dataclass(frozen=True)
class Question:
    """What is asked of every stay: public, and the same on all nights."""

    channels: PublicChannels
    kinds: tuple[str, ...]  # of the tasks, "binary" or "regression"

    @property
    def size(self) -> int:
        """Entries of a stay's vector."""
        return self._process_size + self._gradient_size + len(self.kinds) * len(KNOTS) * 2

    @property
    def _process_size(self) -> int:
        return 1 + 2 * row_length(self.channels) + 2 * len(self.kinds)

    @property
    def _gradient_size(self) -> int:
        return len(self.kinds) * (1 + self.channels.n_features)

    @property
    def _process_weight(self) -> float:
        """The process part's share of the norm over what a stay can move in it: count, rows, squares and labels."""
        clip = row_clip(self.channels)
        bound = clip * math.sqrt(COUNT_WEIGHT**2 + 1 + 1 + LABEL_WEIGHT**2)  # rows lie within 1, so squares too
        return math.sqrt(PROCESS_SHARE) / bound

    @property
    def _gradient_weight(self) -> float:
        return math.sqrt(1 - PROCESS_SHARE - RELIABILITY_SHARE) / GRADIENT_CLIP

    @property
    def _label_weights(self) -> np.ndarray:
        return task_weights(len(self.kinds), LABEL_WEIGHT * row_clip(self.channels))

    @property
    def _gain(self) -> float:
        return SPREAD * math.sqrt(12 / self.channels.n_features)

    def added(self, series: np.ndarray, labels: np.ndarray, weights: np.ndarray, taught: LogisticTeacher) -> np.ndarray:
        """The sum of the stays' vectors, `(size,)`; each has a norm of at most 1, whatever its values.

        Args:
            series: `(stay, step, channel)`. labels: `(stay, task)`, missing = NaN.
            weights: `(task, 1 + feature)`, of the night before. taught: that night's teacher.
        """
        if len(series) > CHUNK_STAYS:  # a stream's first night may meet a whole archive
            parts = [slice(start, start + CHUNK_STAYS) for start in range(0, len(series), CHUNK_STAYS)]
            return np.asarray(sum(self.added(series[part], labels[part], weights, taught) for part in parts))
        rows = clipped(statistic_rows(self.channels, series), row_clip(self.channels))
        known = np.clip(labels.astype(np.float64), 0.0, 1.0)
        both = np.nan_to_num(np.stack([known, 1.0 - known], axis=2), nan=0.0).sum(axis=0)
        count = COUNT_WEIGHT * row_clip(self.channels) * len(series)
        process = [[count], rows.sum(axis=0), (rows**2).sum(axis=0), (self._label_weights[:, None] * both).ravel()]
        levels = self.channels.features(series)
        z = clipped(levels * self._gain, CLIP_NORM)
        z = np.concatenate([np.full((len(z), 1), CONSTANT), z], axis=1)
        tasks = task_weights(len(self.kinds), 1.0)
        each = np.ones(len(z))
        gradient = gradient_parts(z, labels, weights, each, tasks)
        counted = reliability_parts(taught.unbounded(levels), labels, each, tasks)
        return np.concatenate(
            [
                self._process_weight * np.concatenate(process),
                self._gradient_weight * gradient,
                math.sqrt(RELIABILITY_SHARE) * counted,
            ]
        )

    def weights(self, answers: np.ndarray, window: int | None = None) -> np.ndarray:
        """Of every night from 0, before anybody entered, `(1 + night, task, 1 + feature)`.

        A night that leaves the window takes its step back, so the weights forget.
        """
        tasks, entries = len(self.kinds), 1 + self.channels.n_features
        start = np.zeros((1, tasks, entries))
        start[0, :, 0] = starting_logits(self.kinds) / CONSTANT
        gradients = slice(self._process_size, self._process_size + self._gradient_size)
        sums = answers[:, gradients].reshape(len(answers), tasks, entries) / self._gradient_weight
        sums = sums / task_weights(tasks, 1.0)[:, None]
        summed = np.minimum(np.arange(1, len(answers) + 1), window or len(answers))
        a_night = self._counts(answers) / summed
        steps = LEARNING_RATE * np.minimum(1.0, STEP_STAYS / np.maximum(a_night, 1.0))
        for night in range(window or len(sums), len(sums)):
            sums[night] += sums[night - (window or 0)]  # from sums of a window to sums so far
        moved = running_sums(steps[:, None, None] * np.diff(sums, axis=0, prepend=0.0), window)
        return np.concatenate([start, start - moved])

    def teacher(self, answers: np.ndarray, window: int | None = None) -> LogisticTeacher:
        """The mean of the weights over the last half of the nights, or of the window; before the first, the start."""
        kept = max(1, round(AVERAGED * min(len(answers), window or len(answers))))
        gain = np.full(self.channels.n_features, self._gain)
        return linear_teacher(self.weights(answers, window)[-kept:].mean(axis=0), np.zeros(len(gain)), gain)

    def statistics(self, answer: np.ndarray) -> ProcessStatistics:
        """What a night's answer says of the process."""
        sums, width = answer[: self._process_size] / self._process_weight, row_length(self.channels)
        count = float(self._counts(answer[None])[0])
        return statistics_from_sums(self.channels, count, sums[1 : 1 + width], sums[1 + width : 1 + 2 * width])

    def event_shares(self, answer: np.ndarray, scale: float) -> np.ndarray:
        """Mean label of every task, `(task,)`; `scale` is the noise of an entry of the answer."""
        known = answer[1 + 2 * row_length(self.channels) : self._process_size] / self._process_weight
        weights = self._label_weights
        noise = scale / self._process_weight / weights
        return shares_of_events(known.reshape(-1, 2) / weights[:, None], self.kinds, noise)

    def reliability(
        self, answers: np.ndarray, factor: np.ndarray, scale: float, window: int | None = None
    ) -> Reliability:
        """Of the teacher of these nights: what was counted in their last half, or in the window.

        Args:
            factor, scale: of the noise in the answers; half of the nights' answers stand in both terms of a difference.
        """
        nights, weights = len(answers), math.sqrt(RELIABILITY_SHARE) * task_weights(len(self.kinds), 1.0)
        counted, noise = answers[:, self._process_size + self._gradient_size :], factor[:nights][::-1].copy()
        found = counted[-1]
        if window is None and nights > 1:
            found = found - counted[nights // 2 - 1]
            noise[: nights // 2] -= factor[: nights // 2][::-1]
        sums = found.reshape(len(self.kinds), len(KNOTS), 2) / weights[:, None, None]
        return Reliability(sums, scale * float(np.linalg.norm(noise)) / weights)

    def _counts(self, answers: np.ndarray) -> np.ndarray:
        return np.asarray(answers[:, 0] / self._process_weight / (COUNT_WEIGHT * row_clip(self.channels)))


def question_of(encoded: EncodedCohort) -> Question:
    """What a stream asks of stays like these; it depends on none of them.

    Raises:
        ConfigError: a transform's constants were computed from patients.
    """
    if not encoded.is_public_transform:
        raise ConfigError("a stream gives a guarantee, which every transform must be public for")
    shape = (encoded.features.shape[1], encoded.step_hours)
    channels = public_channels(encoded.channels, encoded.transforms, *shape)  # no score items: they gain nothing here
    return Question(channels, tuple(task.kind for task in encoded.tasks))


def about(encoded: EncodedCohort) -> Json:
    """All that a stay's vector depends on beside the stay: it names the stream."""
    shares = [PROCESS_SHARE, RELIABILITY_SHARE, LABEL_WEIGHT]
    constants = [*shares, LEARNING_RATE, STEP_STAYS, AVERAGED, SPREAD, GRADIENT_CLIP, CLIP_NORM]
    return {
        "method": METHOD,
        "unit": encoded.protected_unit,
        "channels": question_of(encoded).channels.digest(),
        "transforms": digest_json([dict(step) for step in encoded.transforms]),
        "tasks": [[task.name, task.kind] for task in encoded.tasks],
        "constants": [*constants, CONSTANT, COUNT_WEIGHT, *KNOTS.tolist()],
    }
