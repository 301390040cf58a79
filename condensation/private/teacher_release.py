"""Where the private teacher meets patients: sums for the process, sums for the scale, thirty gradients, then nothing.

1. *Process*, 15 % of the budget: number of subjects, sums and sums of squares of `statistic_rows`. Rows have entries
   within 1 and norm at most c; a subject moves the answer by at most sqrt(c^2 + (c/2)^2 + c^2).
2. *Scale*, 10.2 %: the same of the late levels (entries within 1/2, norm at most c', squares weighted 2), and per task
   the sums of y and of 1 - y, weighted so that all tasks together move by at most c'/2. A subject moves the answer by
   at most sqrt(c'^2 + (c'/2)^2 + c'^2 + (c'/2)^2). Its noisy count is the one in the step size.
3. *Gradients*, 74.8 %, in equal parts over the rounds: the sums of `gradient_parts`; a subject moves a round's answer
   by at most `GRADIENT_CLIP`, for any number of tasks and stays.

All three are priced together and reserved before the first noise. Gaussian queries, each asked in view of those before
it, are exactly as private as one whose 1 / multiplier^2 is the sum of theirs (Dong, Roth and Su 2022, corollary 3.3);
so the rounds stand in the account as one event. A subject's stays share a weight of one, and as every bound above is a
ball, what holds for one stay holds for any number. No step raises, stops or branches on a value of the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from condensation.private import process_statistics, teacher
from condensation.private.accounting import accountant_name, noise_multipliers, task_weights
from condensation.private.channels import PublicChannels, public_channels
from condensation.private.granular import noisy_answer
from condensation.private.moments import (
    COUNT_WEIGHT,
    FLOATING_POINT,
    PUBLIC_CONSTANTS,
    RAW_CLIP_SHARE,
    SPREAD_FLOOR,
    RowBlocks,
    Standardiser,
    ask_sums,
    require_public,
    row_blocks,
    standardised,
    subject_shares,
)
from condensation.private.process_statistics import (
    ProcessStatistics,
    row_clip,
    row_length,
    statistic_rows,
    statistics_from_sums,
)
from condensation.private.teacher import LogisticTeacher, gradient_parts, linear_teacher, starting_logits
from pipeline.core.digest import digest_array, digest_blocks, digest_json
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.threads import single_threaded
from pipeline.core.types import EncodedCohort, Json, PrivacyGuarantee

PROCESS_SHARE: Final = 0.15  # of the budget
SCALE_SHARE: Final = 0.12  # of the rest
QUERIES: Final = ("process", "scale", "gradients")
LABEL_WEIGHT: Final = 0.5  # of the label sums in the scale's query, in units of that query's clip norm


@final
@dataclass(frozen=True)
class TeacherRelease:
    """All that is known of the patients from here on: private answers and public facts."""

    channels: PublicChannels
    statistics: ProcessStatistics
    teacher: LogisticTeacher
    event_shares: np.ndarray  # (task,), mean labels
    guarantee: PrivacyGuarantee


@single_threaded
def release_teacher(encoded: EncodedCohort, *, epsilon: float, delta: float, noise: NoiseSource) -> TeacherRelease:
    """Ask once, (epsilon, delta)-DP per subject, add or remove one; an empty cohort is as good as any.

    Raises:
        ConfigError: a transform looked at patients, or epsilon or delta is out of range.
        BudgetError: the noise source has a ledger, and it refuses.
    """
    require_public(encoded)
    channels = public_channels(encoded.channels, encoded.transforms, encoded.features.shape[1], encoded.step_hours)
    multipliers = noise_multipliers(epsilon, delta, budget_shares())
    asked = _Asked(encoded, channels, noise, epsilon, delta)
    noise.reserve(asked.query, _events(multipliers))  # before the first noise: a ledger may say no
    statistics, process_scale = asked.process(multipliers[0])
    scaler, count, known, scale_scale = asked.scale(multipliers[1])
    weights, gradient_scale = asked.descent(scaler, count, multipliers[2])
    kinds = [task.kind for task in encoded.tasks]
    known_scale = scale_scale / asked.label_weights
    return TeacherRelease(
        channels=channels,
        statistics=statistics,
        teacher=linear_teacher(weights, scaler.centre, scaler.gain),
        event_shares=teacher.shares_of_events(known, kinds, known_scale),
        guarantee=_guarantee(
            encoded, epsilon, delta, multipliers, (process_scale, scale_scale, gradient_scale), channels.digest()
        ),
    )


def budget_shares() -> tuple[float, float, float]:
    """Of the queries in `QUERIES`."""
    scale = (1 - PROCESS_SHARE) * SCALE_SHARE
    return PROCESS_SHARE, scale, 1 - PROCESS_SHARE - scale


def label_parts(labels: np.ndarray, share: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Per task weights[t] * (sum of y, sum of 1 - y), flat, `(2 * task,)`; a missing label adds to neither.

    (y, 1 - y) has a norm of at most 1, so a subject moves it by at most sqrt(sum of weights^2).
    """
    known = np.clip(labels.astype(np.float64), 0.0, 1.0)
    both = np.nan_to_num(np.stack([known, 1.0 - known], axis=2), nan=0.0)
    return np.asarray((weights[:, None] * np.tensordot(share, both, axes=1)).ravel())


@final
class _Asked:
    """The queries about one cohort; each answer's noise is named by everything that the true answer depends on."""

    def __init__(
        self, encoded: EncodedCohort, channels: PublicChannels, noise: NoiseSource, epsilon: float, delta: float
    ) -> None:
        self._labels, self._noise, self._channels = encoded.labels, noise, channels
        self._share = subject_shares(encoded.subject_index)
        self._width = len(channels.names)
        self._levels = row_blocks(encoded.features, channels.late_levels, self._width)
        self._rows = row_blocks(encoded.features, lambda series: statistic_rows(channels, series), row_length(channels))
        self._clip = RAW_CLIP_SHARE * channels.half_range * math.sqrt(self._width)
        self.label_weights = task_weights(len(encoded.tasks), LABEL_WEIGHT * self._clip)
        self.query = self._question(encoded, epsilon, delta)

    def process(self, multiplier: float) -> tuple[ProcessStatistics, float]:
        channels, width = self._channels, row_length(self._channels)
        asked = {**self.query, "part": "process"}
        found = ask_sums(self._rows, self._share, width, row_clip(channels), 1.0, multiplier, self._noise, asked)
        return statistics_from_sums(channels, found.count, found.totals, found.squares), found.scale

    def scale(self, multiplier: float) -> tuple[Standardiser, float, np.ndarray, float]:
        """Standardiser, number of subjects, known labels (task, 2), and the scale of the noise; all noisy."""
        half = self._channels.half_range
        labels = label_parts(self._labels, self._share, self.label_weights)
        bound = float(np.linalg.norm(self.label_weights))
        asked = {**self.query, "part": "scale"}
        found = ask_sums(
            self._levels, self._share, self._width, self._clip, half, multiplier, self._noise, asked, (labels, bound)
        )
        known = found.beside.reshape(-1, 2) / self.label_weights[:, None]
        return found.standardiser(self._channels, half), found.count, known, found.scale

    def descent(self, scaler: Standardiser, count: float, multiplier: float) -> tuple[np.ndarray, float]:
        """The averaged weights, `(task, 1 + channel)`, and the scale of a round's noise."""
        each = multiplier * math.sqrt(teacher.ROUNDS)
        weighed = task_weights(self._labels.shape[1], 1.0)
        used = {name: digest_array(array) for name, array in vars(scaler).items()} | {
            "task_weights": digest_array(weighed)
        }
        starts = starting_logits(self._kinds)
        scales = []

        def ask(number: int, weights: np.ndarray) -> np.ndarray:
            exact = np.zeros(weights.size)
            for part, block in self._levels():
                z = standardised(block, scaler, teacher.CLIP_NORM)
                z[:, 0] = teacher.CONSTANT
                exact += gradient_parts(z, self._labels[part], weights, self._share[part], weighed)
            told = {**self.query, "part": "gradients", "round": number, "weights": digest_array(weights), **used}
            answer, scale = noisy_answer(exact, teacher.GRADIENT_CLIP, each, self._noise, told)
            scales.append(scale)
            return np.asarray(answer.reshape(weights.shape) / weighed[:, None])

        return teacher.descend(ask, count, starts, self._width), scales[0]

    def _question(self, encoded: EncodedCohort, epsilon: float, delta: float) -> dict[str, object]:
        """What names the noise, and is published nowhere. One noise on two answers would cancel in their difference, so
        neither another part of the cohort nor a constant of a later version may meet the same."""
        self._kinds = [task.kind for task in encoded.tasks]
        return {
            "mechanism": "private_teacher on a grid",
            "channels": self._channels.describe(),
            "epsilon": float(epsilon).hex(),
            "delta": float(delta).hex(),
            "tasks": [[task.name, task.kind] for task in encoded.tasks],
            "transforms": digest_json([dict(step) for step in encoded.transforms]),
            "constants": public_constants(),
            "rows": [
                self._digest(self._levels, self._width),
                self._digest(self._rows, row_length(self._channels)),
                *(digest_array(part) for part in (encoded.features, encoded.labels, encoded.subject_index)),
            ],
        }

    def _digest(self, rows: RowBlocks, width: int) -> str:
        shape = (len(self._labels), width)
        return digest_blocks(np.dtype(np.float64), shape, (block for _, block in rows()))


def public_constants() -> dict[str, float]:
    """Every number that shapes the queries; their digest is in the guarantee."""
    return {
        "process_share": PROCESS_SHARE,
        "scale_share": SCALE_SHARE,
        "count_weight": COUNT_WEIGHT,
        "raw_clip_share": RAW_CLIP_SHARE,
        "label_weight": LABEL_WEIGHT,
        "spread_floor": SPREAD_FLOOR,
        "row_clip_share": process_statistics.CLIP_SHARE,
        "rounds": teacher.ROUNDS,
        "learning_rate": teacher.LEARNING_RATE,
        "momentum": teacher.MOMENTUM,
        "averaged": teacher.AVERAGED,
        "constant": teacher.CONSTANT,
        "clip_norm": teacher.CLIP_NORM,
        "gradient_clip": teacher.GRADIENT_CLIP,
        "prior_logit": teacher.PRIOR_LOGIT,
    }


def _events(multipliers: tuple[float, ...]) -> tuple[Json, ...]:
    """The queries as the accountant sees them; the rounds as the one query that they together are as private as."""
    told = [
        {"event": "GaussianDpEvent", "query": name, "noise_multiplier": multiplier}
        for name, multiplier in zip(QUERIES, multipliers, strict=True)
    ]
    told[-1] |= {"rounds": teacher.ROUNDS}
    return tuple(told)


def _guarantee(
    encoded: EncodedCohort,
    epsilon: float,
    delta: float,
    multipliers: tuple[float, ...],
    scales: tuple[float, ...],
    digest: str,
) -> PrivacyGuarantee:
    return PrivacyGuarantee(
        epsilon=epsilon,
        delta=delta,
        unit=encoded.protected_unit,
        adjacency="add-or-remove-one",
        accountant=accountant_name(),
        events=tuple(
            {**event, "noise_scale": scale} for event, scale in zip(_events(multipliers), scales, strict=True)
        ),
        assumed_public=(
            *PUBLIC_CONSTANTS,
            f"feature specification {digest[:16]}, constants {digest_json(public_constants())[:16]}: late "
            "levels, their log scale, what is held, skewed or 0/1, and the process's structure, by rules on the above",
            FLOATING_POINT,
        ),
    )
