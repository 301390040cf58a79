"""The default condenser: a teacher and a process's statistics in one accounted release, then samples of them alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from condensation.private.teacher.release import NoisyAnswers, exact_sums, release_teacher
from condensation.private.teacher.samples import samples_from_teacher
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.options.base import check_n_per_class
from pipeline.core.options.condensers import PrivateTeacherOptions
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.types import CondensedSet, EncodedCohort, PrivacyGuarantee, Provenance

METHOD: Final = "private_teacher"


@final
@dataclass(frozen=True, kw_only=True)
class PrivateTeacher(PrivateTeacherOptions):
    """(epsilon, delta)-differentially private, one release; the size of the set costs nothing."""

    def answering(self, encoded: EncodedCohort) -> Callable[[NoiseSource], tuple[NoisyAnswers, PrivacyGuarantee]]:
        """All that the samples rest on, under any noise: the same query, so no further cost. Raises as the release."""
        sums = exact_sums(encoded)

        def answers(noise: NoiseSource) -> tuple[NoisyAnswers, PrivacyGuarantee]:
            released = release_teacher(encoded, **self.told(), noise=noise, sums=sums)
            return released.answers, released.guarantee

        return answers

    def condense(
        self,
        encoded: EncodedCohort,
        *,
        n_per_class: int,
        seed: int,
        noise: NoiseSource,
        device: str = "cpu",
        on_step: OnStep = ignore_step,
    ) -> CondensedSet:
        """2 * n_per_class samples; `device` is not used.

        Raises:
            ConfigError: n_per_class below 1. Else as `release_teacher`.
        """
        check_n_per_class(n_per_class)
        released = release_teacher(encoded, **self.told(), noise=noise)
        on_step(1, 2, math.nan)
        kinds = [task.kind for task in encoded.tasks]
        samples = samples_from_teacher(
            released.channels,
            released.statistics,
            released.teacher,
            released.event_shares,
            released.reliability,
            kinds=kinds,
            n=2 * n_per_class,
            seed=seed,
        )
        on_step(2, 2, math.nan)
        return CondensedSet(
            **samples.in_set(),
            channels=encoded.channels,
            tasks=encoded.tasks,
            step_hours=encoded.step_hours,
            transforms=encoded.transforms,
            method=METHOD,
            starts_from_records=False,
            guarantee=released.guarantee,
            provenance=Provenance("condense", config={**self.told(), "n_per_class": n_per_class}, seed=seed),
        )
