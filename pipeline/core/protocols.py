"""What a plug-in looks like. Structural: a third party needs no import of ours to provide one, only an entry point.

Factories: the registry calls `factory(**options)` with the options of the configuration's table of that `kind`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from pipeline.core.keys.noise import NoiseSource
from pipeline.core.keys.secrets import Secret
from pipeline.core.types import CondensedSet, EncodedCohort, Json

OnStep = Callable[[int, int, float], None]
"""Called as (step done, steps in all, loss); progress bars and loss curves live behind it."""


def ignore_step(step: int, steps: int, loss: float) -> None:
    """The `OnStep` of a caller who does not look."""


@runtime_checkable
class FittedEncoder(Protocol):
    """An encoder with its key applied."""

    def encode(self, cohort: EncodedCohort, noise: NoiseSource | None = None, device: str = "cpu") -> EncodedCohort:
        """Encode a prepared cohort; appends its `public_spec` to `transforms`.

        `noise` is used by randomised encoders alone, which raise a `ConfigError` without it.
        """
        ...

    def encode_array(self, features: np.ndarray) -> np.ndarray:
        """Encode bare `(stay, step, channel)` features without noise; what the audit's known-key attacker calls."""
        ...

    def public_spec(self) -> Json:
        """Everything about the encoder but its secret: `kind`, `public`, `window`, `axis`, `key_fingerprint`, ...

        `window` neighbours along `axis` are encoded together, by one map for all windows, a window every `stride`
        (default: `window`) positions. Axis "time": consecutive steps of a channel; "variables": consecutive channels of
        a step; "record": all of a stay, step after step. `key_scope` "per_channel": a map for every channel. `noise`
        says what is added, `leakage_bound` what that bounds.
        """
        ...


@runtime_checkable
class Encoder(Protocol):
    """A keyed encoding of prepared series (features in [0, 1])."""

    def fit(self, cohort: EncodedCohort, key: Secret) -> FittedEncoder:
        """A new object bound to the key; `cohort` gives shapes and, for non-public encoders, statistics."""
        ...


@runtime_checkable
class Condenser(Protocol):
    """Turns the training stays of an encoded cohort into a few synthetic samples."""

    def condense(
        self, encoded: EncodedCohort, *, n_per_class: int, seed: int, noise: NoiseSource, device: str, on_step: OnStep
    ) -> CondensedSet:
        """`encoded` holds training stays only; task 0 defines the classes; `noise` is used by private methods alone."""
        ...
