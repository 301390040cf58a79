"""Characteristic-function matching: not the means of embeddings but their whole distribution, per class.

After Wang et al., *Dataset distillation with neural characteristic function* (NCFM, CVPR 2025, arXiv 2502.20653). With
C(u) = mean exp(i u'z) over a class's embeddings z, the loss is the mean over classes and frequencies u of

    a (|C_real| - |C|)^2 + (1 - a) 2 |C_real| |C| (1 - cos(phase difference)).

Amplitude says how spread out a class is, phase where it lies; a = 1/2 is half the squared distance. NCFM learns which
frequencies to look at; here they are drawn once, Gaussian, over several widths. The maps are frozen, so that the real
stays' C is computed once over all of them. No privacy guarantee can be given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, final

import numpy as np
import torch
from torch import Tensor

from condensation.feature_pool import Embed, check_maps, chosen_stays, class_chunks, frozen_maps
from condensation.loop import LoopSettings, Loss, Samples
from condensation.private.feature_map import public_range
from condensation.start import condense_with
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.options.base import BESIDE, Ge, Le, Names, Positive, PositiveInt
from pipeline.core.options.condensers import MatchingOptions, TrainingSteps
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.seeds import generator
from pipeline.core.threads import single_threaded
from pipeline.core.types import CondensedSet, EncodedCohort

METHOD: Final = "characteristic_function"
WIDTHS: Final = (0.5, 1.0, 2.0)
"""Standard deviation of u'z over real stays: small sees means and variances, large sees shape."""


@final
@dataclass(frozen=True, eq=False)
class ClassSpectrum:
    """One map, its frequencies and the characteristic functions of the real stays of each class."""

    embed: Embed
    frequencies: Tensor  # (feature, frequency)
    real: tuple[Tensor, ...]  # per class, complex (frequency,)


@final
@dataclass(frozen=True, kw_only=True)
class CharacteristicFunction(MatchingOptions):
    """Samples from centroids (or real stays, or noise), hard labels."""

    iterations: PositiveInt = 200
    learning_rate: Positive = 1e-3
    maps: Names = ("tcn-b", "lstm-b")
    pool_size: PositiveInt = 12
    training_steps: TrainingSteps = (0,)
    pool_stays: PositiveInt | None = 2048
    frequencies: PositiveInt = 512
    amplitude_weight: Annotated[float, Ge(0), Le(1)] = 0.5
    checkpoint: str | Path | None = field(default=None, metadata=BESIDE)

    def __post_init__(self) -> None:
        """Raises ConfigError on a bad choice; options shared with kernel matching mean the same there."""
        super().__post_init__()
        check_maps(self.maps)

    @single_threaded
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
        """2 * n_per_class samples in the public range, half of each class; `noise` is not used.

        Raises:
            ConfigError: n_per_class below 1. DataError: a class has no stay, or fewer than the start needs.
        """

        def make_loss(rows: Sequence[np.ndarray]) -> Loss:
            stays = chosen_stays(encoded, rows, self.pool_stays, seed)
            frozen = frozen_maps(
                stays, self.maps, self.pool_size, training_steps=self.training_steps, seed=seed, device=device
            )
            pool = [
                class_spectrum(stays, embed, self.frequencies, generator(seed, "frequencies", number), device)
                for number, (_, _, embed) in enumerate(frozen)
            ]
            return spectrum_loss(pool, self.amplitude_weight, seed)

        return condense_with(
            encoded,
            make_loss,
            method=METHOD,
            start=self.initialisation,
            settings=LoopSettings(
                self.iterations,
                self.learning_rate,
                anneal=True,
                bounds=public_range(encoded.transforms),
                keep_best=True,
                patience=self.patience,
                checkpoint=self.checkpoint,
            ),
            config=self.told(),
            n_per_class=n_per_class,
            seed=seed,
            device=device,
            on_step=on_step,
        )


@torch.no_grad()
def class_spectrum(
    stays: EncodedCohort, embed: Embed, n_frequencies: int, draws: np.random.Generator, device: str
) -> ClassSpectrum:
    """Frequencies for one map, scaled by its total variance over the stays, and both classes' functions."""
    parts = [torch.cat([embed(chunk) for chunk in class_chunks(stays, label, device)]) for label in (0.0, 1.0)]
    spread = float(torch.cat(parts).var(dim=0, unbiased=False).mean().sqrt()) or 1.0
    n_features = parts[0].shape[1]
    normal = draws.normal(size=(n_features, n_frequencies)) / (np.sqrt(n_features) * spread)
    widths = np.resize(WIDTHS, n_frequencies)
    frequencies = torch.from_numpy((normal * widths).astype(np.float32)).to(device)
    return ClassSpectrum(embed, frequencies, tuple(characteristic(part @ frequencies) for part in parts))


def characteristic(projected: Tensor) -> Tensor:
    """Mean of exp(i x) over the rows of `(sample, frequency)`: complex `(frequency,)`."""
    return torch.complex(projected.cos().mean(dim=0), projected.sin().mean(dim=0))


def spectrum_distance(real: Tensor, found: Tensor, amplitude_weight: float) -> Tensor:
    """The loss above for one class, mean over frequencies; both complex `(frequency,)`."""
    squares = real.abs().square() + found.real.square() + found.imag.square()
    size = real.abs() * (found.real.square() + found.imag.square() + 1e-12).sqrt()
    aligned = (real.conj() * found).real  # |C_real| |C| cos(phase difference)
    amplitude, phase = squares - 2 * size, 2 * (size - aligned)
    return (amplitude_weight * amplitude + (1 - amplitude_weight) * phase).mean()


def spectrum_loss(pool: Sequence[ClassSpectrum], amplitude_weight: float, seed: int) -> Loss:
    """One map of the pool per step, sum over classes."""

    def loss(step: int, samples: Samples) -> Tensor:
        one = pool[int(generator(seed, "condense", "map", step).integers(len(pool)))]
        projected = [one.embed(part) @ one.frequencies for part in samples.per_class(len(one.real))]
        terms = [
            spectrum_distance(real, characteristic(part), amplitude_weight)
            for real, part in zip(one.real, projected, strict=True)
        ]
        return torch.stack(terms).sum()

    return loss
