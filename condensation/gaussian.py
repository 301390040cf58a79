"""One Gaussian per class: the non-private limit of `private_moments`, and what mean matching leaves out.

Distribution matching learns class means first, and covariances slowly; this draws from both at once, in one pass. It
carries no guarantee: the moments are exact, of all cells of a series.

Hard labels suit networks. Trees need to know how ill each sample is: a teacher's labels and some 1,280 samples
(docs/benchmarks/condensing.md).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float32
from torch import Tensor

from condensation.loop import LoopSettings, Samples
from condensation.start import condense_with
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.options.condensers import GaussianOptions
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import child_seed
from pipeline.core.threads import single_threaded
from pipeline.core.types import CondensedSet, EncodedCohort
from pipeline.probes.classical import fit_predict_boosting, fit_predict_logistic, summary_features

METHOD: Final = "gaussian"
LEAST_CHANCE: Final = 1e-3  # of a teacher: a class of a few stays must not make certainties of its odds


@final
@dataclass(frozen=True, kw_only=True)
class Gaussian(GaussianOptions):
    """Samples with each class's mean (exactly) and covariance (in expectation), in the cohort's units."""

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
        """2 * n_per_class draws of `class_gaussians`, statics and masks as everywhere; `noise` is not used.

        Raises:
            ConfigError: n_per_class below 1. DataError: a class has fewer than `class_gaussian.SMALLEST_CLASS` stays.
        """
        condensed = condense_with(
            encoded,
            lambda _: _no_loss,
            method=METHOD,
            start="gaussian",
            settings=LoopSettings(iterations=0, learning_rate=1.0),
            config=self.told(),
            n_per_class=n_per_class,
            seed=seed,
            device=device,
            on_step=on_step,
        )
        if self.labels == "teacher":
            taught = _teacher_labels(encoded, condensed.features, child_seed(seed, METHOD, "teacher"))
            condensed = dataclasses.replace(condensed, labels=taught)
        on_step(1, 1, math.nan)
        return condensed


@single_threaded
def _teacher_labels(
    encoded: EncodedCohort, features: Float32[np.ndarray, "sample step channel"], seed: int
) -> Float32[np.ndarray, "sample task"]:
    """What boosting and logistic regression of all stays say of `features`, their mean.

    The first task's odds are divided by its prevalence's, as its samples are balanced; the others keep theirs.
    """
    stays, samples = summary_features(encoded.features), summary_features(features)
    fits = (fit_predict_boosting, fit_predict_logistic)
    chances = np.mean([fit(stays, encoded.labels, samples, seed) for fit in fits], axis=0)
    if encoded.tasks[0].kind == "binary":
        share = float(np.nanmean(encoded.labels[:, 0]))
        chance = chances[:, 0].clip(LEAST_CHANCE, 1 - LEAST_CHANCE)
        odds = chance / (1 - chance) * (1 - share) / share
        chances[:, 0] = odds / (1 + odds)
    chances[:, ~np.isfinite(encoded.labels).any(axis=0)] = np.nan
    return np.asarray(chances, dtype=np.float32)


def _no_loss(step: int, samples: Samples) -> Tensor:
    """The loop takes no step here; it only keeps statics and masks what they are."""
    return samples.features.sum()
