"""The private mechanism of a configuration, as the audit may call it: on cohorts and secrets of the audit's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

import numpy as np

from condensation.private.feature_map import public_range
from condensation.private.teacher_condenser import PrivateTeacher
from condensation.private.teacher_release import less_known
from flows import registry
from flows.stages.condense import ReleasesMoments
from pipeline.audit.games.release_game import N_OTHERS
from pipeline.audit.scene import Mechanism
from pipeline.core.config import Condense
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import SECRET_BYTES, Secret
from pipeline.core.protocols import Condenser
from pipeline.core.types import CondensedSet, EncodedCohort, with_tasks

GAME_STEPS: Final = 8  # of a made-up series: enough for every part of a feature map, a sixth of the time of 48


def private_mechanism(table: Condense, encoded: EncodedCohort, samples: CondensedSet) -> Mechanism | None:
    """The noisy answers behind a private set, which say all that the set says; None for methods that show none.

    No stay of `encoded` is passed on, and no key of the site: noise comes from secrets that the audit counts up.
    """
    if samples.guarantee is None or (answers := _answers(registry.condenser(table))) is None:
        return None
    shape = with_tasks(encoded.take(np.zeros(0, np.int64)), samples.tasks)
    shape = dataclasses.replace(shape, features=shape.features[:, : min(GAME_STEPS, shape.features.shape[1])])

    def release(cohort: EncodedCohort, number: int) -> object:
        secret = Secret(number.to_bytes(SECRET_BYTES, "little"), "noise")
        return answers(cohort, NoiseSource(secret, "a cohort that the audit made up"))

    low, high = public_range(encoded.transforms)
    return Mechanism(release, shape, samples.guarantee, low, high)


def _answers(condenser: Condenser) -> Callable[[EncodedCohort, NoiseSource], object] | None:
    """All that a method learns of a cohort; of a teacher, less what the game's other subjects add to it."""
    if isinstance(condenser, PrivateTeacher):
        teacher = condenser

        def left(cohort: EncodedCohort, noise: NoiseSource) -> object:
            found, guarantee = teacher.answers(cohort, noise=noise)
            return less_known(found, cohort.take(np.flatnonzero(cohort.subject_index < N_OTHERS))), guarantee

        return left
    if isinstance(condenser, ReleasesMoments):
        moments = condenser
        return lambda cohort, noise: moments.release(cohort, noise=noise)
    return None
