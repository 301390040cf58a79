"""The private mechanism of a configuration, as the audit may call it: on cohorts and secrets of the audit's own."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from condensation.private.feature_map import public_range
from flows import registry
from flows.stages.condense import ReleasesMoments
from pipeline.audit.scene import Mechanism
from pipeline.core.config import Condense
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import SECRET_BYTES, Secret
from pipeline.core.types import CondensedSet, EncodedCohort, Moments, with_tasks

GAME_STEPS: Final = 8  # of a made-up series: enough for every part of a feature map, a sixth of the time of 48


def private_mechanism(table: Condense, encoded: EncodedCohort, samples: CondensedSet) -> Mechanism | None:
    """The moments behind a private set, which say all that the set says; None for methods that release none.

    No stay of `encoded` is passed on, and no key of the site: noise comes from secrets that the audit counts up.
    """
    condenser = registry.condenser(table)
    if samples.guarantee is None or not isinstance(condenser, ReleasesMoments):
        return None
    shape = with_tasks(encoded.take(np.zeros(0, np.int64)), samples.tasks)
    shape = dataclasses.replace(shape, features=shape.features[:, : min(GAME_STEPS, shape.features.shape[1])])

    def release(cohort: EncodedCohort, number: int) -> Moments:
        secret = Secret(number.to_bytes(SECRET_BYTES, "little"), "noise")
        return condenser.release(cohort, noise=NoiseSource(secret, "a cohort that the audit made up"))

    low, high = public_range(encoded.transforms)
    return Mechanism(release, shape, samples.guarantee, low, high)
