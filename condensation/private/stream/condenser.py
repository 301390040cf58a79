"""The condenser of a stream: its options, a night's increment and set; and what one night alone would be."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from condensation.private.stream.nights import Entered, increment_of_night, night_of_stream
from condensation.private.stream.question import about
from condensation.private.stream.terms import Added, Stream
from pipeline.core.digest import digest_array, digest_json
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.options.condensers import PrivateStreamOptions
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.types import CondensedSet, EncodedCohort, Json


@final
@dataclass(frozen=True, kw_only=True)
class PrivateStream(PrivateStreamOptions):
    """A set a night, all nights for one price. Who enters on which night is the caller's to know."""

    @property
    def stream(self) -> Stream:
        """The terms. Raises ConfigError: they make no sense together."""
        return Stream(
            horizon=self.horizon,
            epsilon=self.epsilon,
            delta=self.delta,
            clip=1.0,
            entries=self.entries,
            separation=self.separation,
            window=self.window,
        )

    def reserve(self, like: EncodedCohort, noise: NoiseSource) -> None:
        """Put the stream on record; the same on every night.

        Raises:
            ConfigError: a transform looked at patients. BudgetError: the noise source has a ledger, and it refuses.
        """
        noise.reserve(self._question(like), self.stream.events)

    def increment(self, night: int, entrants: EncodedCohort, before: Sequence[Added], noise: NoiseSource) -> np.ndarray:
        """What tonight's entrants add, `(entry,)`. Raises as `increment_of_night`."""
        return increment_of_night(self.stream, night, entrants, before, noise)

    def night(
        self,
        night: int,
        like: EncodedCohort,
        added: Sequence[Added],
        noise: NoiseSource,
        *,
        n_per_class: int,
        seed: int,
    ) -> CondensedSet:
        """The set of a night. Raises as `night_of_stream`."""
        made = night_of_stream(self.stream, night, like, added, noise, n_per_class=n_per_class, seed=seed)
        config = {**made.provenance.config, **self.told()}
        return dataclasses.replace(made, provenance=dataclasses.replace(made.provenance, config=config))

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
        """A stream's first night, on which the first stay of everybody enters. Raises as `reserve` and `night`."""
        self.reserve(encoded, noise)
        firsts = np.unique(encoded.subject_index, return_index=True)[1]
        added = self.increment(1, encoded.take(np.sort(firsts)), (), noise)
        on_step(1, 2, math.nan)
        seen = [digest_array(part) for part in (added, encoded.features, encoded.labels, encoded.subject_index)]
        first = (Entered(1, added, digest_json(seen)),)
        condensed = self.night(1, encoded, first, noise, n_per_class=n_per_class, seed=seed)
        on_step(2, 2, math.nan)
        return condensed

    def _question(self, like: EncodedCohort) -> Json:
        return self.stream.question(about(like))
