"""The private mechanism of a configuration, as the audit may call it: on cohorts and secrets of the audit's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Protocol

import numpy as np

from condensation.private.feature_map import public_range
from condensation.private.stream.condenser import PrivateStream
from condensation.private.stream.nights import guarantee_of, whole_stream
from condensation.private.stream.nights import suspicion as suspicion_of_stream
from condensation.private.teacher.condenser import PrivateTeacher
from condensation.private.teacher.release import suspicion
from flows import registry
from flows.stages.condense import ReleasesMoments
from pipeline.audit.games.release_game import N_OTHERS
from pipeline.audit.scene import Mechanism
from pipeline.core.config import Condense
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import SECRET_BYTES, Secret
from pipeline.core.types import CondensedSet, EncodedCohort, Provenance, with_tasks

GAME_NIGHTS: Final = 4  # of a stream that the audit makes up, on the terms of the site's
CANARY_NIGHT: Final = 0  # whose answers stay in all later ones; a young teacher's gradients are largest
GAME_STEPS: Final = 8  # of a made-up series: enough for every part of a feature map, a sixth of the time of 48


def private_mechanism(table: Condense, encoded: EncodedCohort, samples: CondensedSet) -> Mechanism | None:
    """The noisy answers behind a private set, which say all that the set says; None for methods that show none.

    No stay of `encoded` is passed on, and no key of the site: noise comes from secrets that the audit counts up.
    """
    condenser = registry.condenser(table)
    if samples.guarantee is None:
        return None
    low, high = public_range(encoded.transforms)
    shape = with_tasks(encoded.take(np.zeros(0, np.int64)), samples.tasks)
    features = shape.features[:, : min(GAME_STEPS, shape.features.shape[1])]
    shape = dataclasses.replace(shape, features=features, provenance=Provenance("audit"))  # one shape for all sources
    answers: _Answers
    if isinstance(condenser, PrivateTeacher):
        answers = _of_teacher(condenser, shape, low, high)
    elif isinstance(condenser, PrivateStream):
        answers = _of_stream(condenser, shape, low, high)
    elif isinstance(condenser, ReleasesMoments):
        answers = condenser.release
    else:
        return None

    def release(cohort: EncodedCohort, number: int) -> object:
        secret = Secret(number.to_bytes(SECRET_BYTES, "little"), "noise")
        return answers(cohort, noise=NoiseSource(secret, "a cohort that the audit made up"))

    return Mechanism(release, shape, samples.guarantee, low, high)


class _Answers(Protocol):
    def __call__(self, encoded: EncodedCohort, *, noise: NoiseSource) -> object: ...


def _extreme(shape: EncodedCohort, low: float, high: float) -> EncodedCohort:
    """The stay whose copies the game adds: the one to look for."""
    series = np.full((1, *shape.features.shape[1:]), high, np.float32)
    series[:, : shape.features.shape[1] // 2] = low
    return dataclasses.replace(
        shape,
        features=series,
        labels=np.ones((1, len(shape.tasks)), np.float32),
        subject_index=np.zeros(1, np.int32),
        split=np.zeros(1, np.int8),
    )


def _of_stream(condenser: PrivateStream, shape: EncodedCohort, low: float, high: float) -> _Answers:
    """All nights of a short stream on the same terms, on which everybody enters once, canaries on the first night.

    What the answers say of the canary to one who knows everybody else, and the guarantee.
    """
    terms = dataclasses.replace(condenser.stream, horizon=GAME_NIGHTS, entries=1, separation=1)
    stream = dataclasses.replace(terms, window=None if terms.window is None else min(terms.window, GAME_NIGHTS))
    suspect = _extreme(shape, low, high)

    @lru_cache(maxsize=1)
    def entered(encoded: EncodedCohort) -> tuple[list[EncodedCohort], Callable[[np.ndarray], float]]:
        firsts = encoded.take(np.sort(np.unique(encoded.subject_index, return_index=True)[1]))
        night = np.where(firsts.subject_index < N_OTHERS, firsts.subject_index % GAME_NIGHTS, CANARY_NIGHT)
        nights = [firsts.take(np.flatnonzero(night == number)) for number in range(GAME_NIGHTS)]
        known = [one.take(np.flatnonzero(one.subject_index < N_OTHERS)) for one in nights]
        return nights, suspicion_of_stream(stream, known, suspect, CANARY_NIGHT)

    def answers(encoded: EncodedCohort, *, noise: NoiseSource) -> object:
        nights, suspected = entered(encoded)
        return suspected(whole_stream(stream, nights, noise)), guarantee_of(stream, shape)

    return answers


def _of_teacher(condenser: PrivateTeacher, shape: EncodedCohort, low: float, high: float) -> _Answers:
    """The sums as they are; of the gradients what they say of the game's canary, everybody else known."""
    suspect = _extreme(shape, low, high)

    @lru_cache(maxsize=1)  # the game asks about one cohort under hundreds of noises
    def asked(encoded: EncodedCohort) -> Callable[[NoiseSource], object]:
        known = encoded.take(np.flatnonzero(encoded.subject_index < N_OTHERS))
        answering, suspected = condenser.answering(encoded), suspicion(known, suspect)

        def told(noise: NoiseSource) -> object:
            found, guarantee = answering(noise)
            return found.process, found.scale, suspected(found), guarantee

        return told

    def answers(encoded: EncodedCohort, *, noise: NoiseSource) -> object:
        return asked(encoded)(noise)

    return answers
