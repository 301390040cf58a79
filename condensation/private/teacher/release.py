"""Where the private teacher meets patients: sums, thirty gradients, counts of risks, then nothing.

1. *Process*, 15 % of the budget: number of subjects, sums and sums of squares of `statistic_rows`. Rows have entries
   within 1 and norm at most c; a subject moves the answer by at most sqrt(c^2 + (c/2)^2 + c^2).
2. *Scale*, 10.2 %: the same of the teacher's features (entries within 1/2, norm at most c', squares weighted 2), and
   per task the sums of y and of 1 - y, weighted so that all tasks together move by at most c'/2. A subject moves the
   answer by at most sqrt(c'^2 + (c'/2)^2 + c'^2 + (c'/2)^2). Its noisy count is the one in the step size.
3. *Gradients*, 71.4 %, in equal parts over the rounds: the sums of `gradient_parts`; a subject moves a round's answer
   by at most `GRADIENT_CLIP`, for any number of tasks and stays.
4. *Reliability*, 3.4 %: the sums of `reliability_parts` under the teacher that the gradients gave; a subject moves the
   answer by at most 1. They calibrate its risks.

All four are priced together and reserved before the first noise. Gaussian queries, each asked in view of those before
it, are exactly as private as one whose 1 / multiplier^2 is the sum of theirs (Dong, Roth and Su 2022, corollary 3.3);
so the rounds stand in the account as one event. A subject's stays share a weight of one, and as every bound above is a
ball, what holds for one stay holds for any number. No step raises, stops or branches on a value of the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from condensation.private import process_statistics
from condensation.private.accounting import accountant_name, noise_multipliers
from condensation.private.channels import PublicChannels, public_channels
from condensation.private.granular import noisy_answer
from condensation.private.moments import (
    COUNT_WEIGHT,
    NOISE_LAW,
    PUBLIC_CONSTANTS,
    RAW_CLIP_SHARE,
    SPREAD_FLOOR,
    Standardiser,
    Sums,
    ask_sums,
    require_public,
    subject_shares,
)
from condensation.private.process_statistics import ProcessStatistics, row_clip, row_length, statistics_from_sums
from condensation.private.teacher import logistic
from condensation.private.teacher import sums as summing
from condensation.private.teacher.logistic import LogisticTeacher, linear_teacher, starting_logits
from condensation.private.teacher.reliability import KNOTS, Reliability
from condensation.private.teacher.sums import ExactSums
from pipeline.core.digest import digest_array, digest_json
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.threads import single_threaded
from pipeline.core.types import EncodedCohort, Json, PrivacyGuarantee

PROCESS_SHARE: Final = 0.15  # of the budget
SCALE_SHARE: Final = 0.12  # of the rest
RELIABILITY_SHARE: Final = 0.04  # of the rest
QUERIES: Final = ("process", "scale", "gradients", "reliability")


@final
@dataclass(frozen=True)
class NoisyAnswers:
    """The four queries' answers as they were given; all else is made of them."""

    process: Sums
    scale: Sums
    gradients: np.ndarray  # (round, task, entry)
    reliability: Reliability


@final
@dataclass(frozen=True)
class TeacherRelease:
    """All that is known of the patients from here on: private answers, what they say, and public facts."""

    answers: NoisyAnswers
    channels: PublicChannels
    statistics: ProcessStatistics
    teacher: LogisticTeacher
    event_shares: np.ndarray  # (task,), mean labels
    guarantee: PrivacyGuarantee

    @property
    def reliability(self) -> Reliability:
        """Of the teacher's logits."""
        return self.answers.reliability


@single_threaded
def release_teacher(
    encoded: EncodedCohort, *, epsilon: float, delta: float, noise: NoiseSource, sums: ExactSums | None = None
) -> TeacherRelease:
    """Ask once, (epsilon, delta)-DP per subject, add or remove one; an empty cohort is as good as any.

    Args:
        sums: `exact_sums` of the cohort, for who asks about one again and again; None = they are made here.

    Raises:
        ConfigError: a transform looked at patients, or epsilon or delta is out of range.
        BudgetError: the noise source has a ledger, and it refuses.
    """
    require_public(encoded)
    sums = exact_sums(encoded) if sums is None else sums
    channels = sums.channels
    multipliers = noise_multipliers(epsilon, delta, budget_shares())
    asked = _Asked(encoded, sums, noise, epsilon, delta)
    noise.reserve(asked.query, _events(multipliers))  # before the first noise: a ledger may say no
    process, scale = asked.process(multipliers[0]), asked.scale(multipliers[1])
    scaler = scale.standardiser(channels, channels.half_range)
    weights, gradients, gradient_scale = asked.descent(scaler, scale.count, multipliers[2])
    taught = linear_teacher(weights, scaler.centre, scaler.gain)
    counted, counted_scale = asked.reliability(taught, multipliers[3])
    known = scale.beside.reshape(-1, 2) / sums.label_weights[:, None]
    kinds = [task.kind for task in encoded.tasks]
    return TeacherRelease(
        answers=NoisyAnswers(process, scale, gradients, counted),
        channels=channels,
        statistics=statistics_from_sums(channels, process.count, process.totals, process.squares),
        teacher=taught,
        event_shares=logistic.shares_of_events(known, kinds, scale.scale / sums.label_weights),
        guarantee=_guarantee(
            encoded,
            epsilon,
            delta,
            multipliers,
            (process.scale, scale.scale, gradient_scale, counted_scale),
            sums.channels_digest,
        ),
    )


def budget_shares() -> tuple[float, ...]:
    """Of the queries in `QUERIES`."""
    scale, counted = ((1 - PROCESS_SHARE) * share for share in (SCALE_SHARE, RELIABILITY_SHARE))
    return PROCESS_SHARE, scale, 1 - PROCESS_SHARE - scale - counted, counted


@final
class _Asked:
    """The queries about one cohort; each answer's noise is named by everything that the true answer depends on."""

    def __init__(
        self, encoded: EncodedCohort, sums: ExactSums, noise: NoiseSource, epsilon: float, delta: float
    ) -> None:
        self._sums, self._noise = sums, noise
        self._starts = starting_logits([task.kind for task in encoded.tasks])
        # one noise on two answers would cancel in their difference, so neither another part of the cohort nor a
        # constant of a later version may meet the same; published nowhere
        self.query: dict[str, object] = {
            "mechanism": "private_teacher on a grid",
            "channels": sums.channels.describe(),
            "epsilon": float(epsilon).hex(),
            "delta": float(delta).hex(),
            "tasks": [[task.name, task.kind] for task in encoded.tasks],
            "transforms": digest_json([dict(step) for step in encoded.transforms]),
            "constants": public_constants(),
            "rows": sums.digests,
        }

    def process(self, multiplier: float) -> Sums:
        """Of `statistic_rows`."""
        sums, asked = self._sums, {**self.query, "part": "process"}
        clip, width = row_clip(sums.channels), row_length(sums.channels)
        return ask_sums(sums.statistics, sums.share, width, clip, 1.0, multiplier, self._noise, asked)

    def scale(self, multiplier: float) -> Sums:
        """Of the teacher's features; beside them `label_parts`."""
        sums, asked = self._sums, {**self.query, "part": "scale"}
        half, width = sums.channels.half_range, sums.channels.n_features
        beside = sums.labelled(), float(np.linalg.norm(sums.label_weights))
        return ask_sums(sums.levels, sums.share, width, sums.clip, half, multiplier, self._noise, asked, beside)

    def descent(self, scaler: Standardiser, count: float, multiplier: float) -> tuple[np.ndarray, np.ndarray, float]:
        """The averaged weights, `(task, 1 + feature)`, every round's answer, and the scale of a round's noise."""
        each, weighed = multiplier * math.sqrt(logistic.ROUNDS), self._sums.task_weights
        used = {name: digest_array(array) for name, array in vars(scaler).items()}
        used["task_weights"] = digest_array(weighed)
        exact = self._sums.gradients(scaler)
        answers: list[np.ndarray] = []
        scales: list[float] = []

        def ask(number: int, weights: np.ndarray) -> np.ndarray:
            told = {**self.query, "part": "gradients", "round": number, "weights": digest_array(weights), **used}
            answer, scale = noisy_answer(exact(weights), logistic.GRADIENT_CLIP, each, self._noise, told)
            scales.append(scale)
            answers.append(answer.reshape(weights.shape) / weighed[:, None])
            return answers[-1]

        weights = logistic.descend(ask, count, self._starts, self._sums.channels.n_features)
        return weights, np.stack(answers), scales[0]

    def reliability(self, taught: LogisticTeacher, multiplier: float) -> tuple[Reliability, float]:
        """Of the teacher's logits, and the scale of the query's noise."""
        weighed = self._sums.task_weights
        used = {name: digest_array(array) for name, array in vars(taught).items()}
        used["task_weights"] = digest_array(weighed)
        told = {**self.query, "part": "reliability", **used}
        answer, scale = noisy_answer(self._sums.reliability(taught), 1.0, multiplier, self._noise, told)
        sums = answer.reshape(len(weighed), len(KNOTS), 2) / weighed[:, None, None]
        return Reliability(sums, scale / weighed), scale


def suspicion(known: EncodedCohort, suspect: EncodedCohort) -> Callable[[NoisyAnswers], tuple[float, float]]:
    """How often gradients, and counts of risks, hold the stay `suspect`, to one who knows everybody else: with noise.

    For the audit. A round's gradients depend on the noise before it, which the answers tell; so what `known` people add
    is taken off round by round, and what is left is held against the suspect's own gradients (a matched filter). The
    counts likewise, under the teacher that the rounds gave.
    """
    sums, own_sums = _sums_of_distinct(known), exact_sums(suspect)
    starts = starting_logits([task.kind for task in known.tasks])

    def held(answer: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
        return float(answer @ theirs), float(theirs @ theirs)

    def suspected(answers: NoisyAnswers) -> tuple[float, float]:
        scaler = answers.scale.standardiser(sums.channels, sums.channels.half_range)
        others, own = sums.gradients(scaler), own_sums.gradients(scaler)
        found: list[tuple[float, float]] = []

        def replay(number: int, weights: np.ndarray) -> np.ndarray:
            answer = answers.gradients[number]
            left = (answer * sums.task_weights[:, None]).ravel() - others(weights)
            found.append(held(left, own(weights)))
            return np.asarray(answer)

        weights = logistic.descend(replay, answers.scale.count, starts, sums.channels.n_features)
        taught = linear_teacher(weights, scaler.centre, scaler.gain)
        counted = (answers.reliability.sums * sums.task_weights[:, None, None]).ravel()
        inner, square = held(counted - sums.reliability(taught), own_sums.reliability(taught))
        return sum(one for one, _ in found) / max(sum(each for _, each in found), 1e-12), inner / max(square, 1e-12)

    return suspected


def exact_sums(encoded: EncodedCohort) -> ExactSums:
    """Of a cohort, by its public channels; nothing of it may leave."""
    shape = encoded.features.shape[1], encoded.step_hours
    return ExactSums(encoded, public_channels(encoded.channels, encoded.transforms, *shape, encoded.tasks))


def _sums_of_distinct(encoded: EncodedCohort) -> ExactSums:
    """The same sums, last bits apart, from each distinct stay once: a cohort that the audit makes up has few."""
    rows = np.concatenate([encoded.features.reshape(len(encoded.labels), -1), encoded.labels], axis=1)
    _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    sums = exact_sums(encoded.take(first))
    sums.share = np.bincount(which.ravel(), subject_shares(encoded.subject_index))
    return sums


def public_constants() -> dict[str, float | list[float]]:
    """Every number that shapes the queries; their digest is in the guarantee."""
    return {
        "process_share": PROCESS_SHARE,
        "scale_share": SCALE_SHARE,
        "reliability_share": RELIABILITY_SHARE,
        "knots": [float(knot) for knot in KNOTS],
        "count_weight": COUNT_WEIGHT,
        "raw_clip_share": RAW_CLIP_SHARE,
        "label_weight": summing.LABEL_WEIGHT,
        "spread_floor": SPREAD_FLOOR,
        "row_clip_share": process_statistics.CLIP_SHARE,
        "rounds": logistic.ROUNDS,
        "learning_rate": logistic.LEARNING_RATE,
        "momentum": logistic.MOMENTUM,
        "averaged": logistic.AVERAGED,
        "constant": logistic.CONSTANT,
        "clip_norm": logistic.CLIP_NORM,
        "gradient_clip": logistic.GRADIENT_CLIP,
        "prior_logit": logistic.PRIOR_LOGIT,
    }


def _events(multipliers: tuple[float, ...]) -> tuple[Json, ...]:
    """The queries as the accountant sees them; the rounds as the one query that they together are as private as."""
    told = [
        {"event": "GaussianDpEvent", "query": name, "noise_multiplier": multiplier}
        for name, multiplier in zip(QUERIES, multipliers, strict=True)
    ]
    told[QUERIES.index("gradients")] |= {"rounds": logistic.ROUNDS}
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
            "levels, or the score items that the mapping lists by task; their log scale, what is held, skewed or 0/1, "
            "and the process's structure, by rules on the above",
            NOISE_LAW,
        ),
    )
