"""Kernel-ridge matching on frozen feature pools: the set whose ridge regression predicts the real stays best.

After Nguyen et al. (KIP, arXiv 2011.00050) and Zhou, Nezhadarya and Ba (FRePo, arXiv 2206.00719): fit kernel ridge
regression on the samples, score it on the real stays, move the samples down that loss,

    w = Z' (Z Z' + m r I)^-1 y,      loss = sum over real stays of weight (w' z - t)^2 / sum of weight t^2,

Z the samples' features and y their centred labels. To that comes `spread` times the distance of the mean and standard
deviation of the samples' summaries from the real stays': trees split at thresholds, and averages of stays vary too
little to show them where. FRePo's features come from networks that evolve on the samples and meet fresh real stays at
every step. Here they are frozen (`condensation.feature_pool`), so the outer sum needs the real stays only through
moments computed once, is exact over all of them, and a step touches m samples and nothing else.

Labels: "hard" leaves the classes as they are; "teacher" labels each sample, wherever it moves, by the ridge regression
of all real stays (`condensation.teacher`: on the summaries while the samples move, on the pool at the end); "learned"
starts from the teacher's labels and lets each move by itself. The control beside a set with soft labels is its start
under the same teacher, unmatched: `iterations = 0, labels = "teacher"`. No privacy guarantee can be given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, final

from condensation.feature_pool import (
    SUMMARIES,
    balanced_targets,
    build_pool,
    check_maps,
    chosen_stays,
)
from condensation.kernel_loss import kernel_ridge_loss, spread_loss, sum_of
from condensation.loop import LoopSettings, optimise_samples
from condensation.private.feature_map import public_range
from condensation.roles import with_roles
from condensation.start import condensed_set, initial_samples, made_of_records, rows_for_start, run_context
from condensation.teacher import Teacher
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.options.base import BESIDE
from pipeline.core.options.condensers import KernelMatchingOptions, Labels
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.threads import single_threaded
from pipeline.core.types import CondensedSet, EncodedCohort
from pipeline.probes.precision import arithmetic, check_precision

METHOD: Final = "kernel_matching"


@final
@dataclass(frozen=True)
class Preset:
    """What a kind of label does best with, on the tuning stays of PhysioNet 2012 with 80 samples.

    Hard labels need samples that differ more than stays do, which a larger ridge on trained networks gives; a teacher's
    labels carry the order, and samples that stay near where stays lie serve networks better.
    """

    learning_rate: float
    ridge: float
    summary_ridge: float
    spread: float
    training_steps: tuple[int, ...]


PRESETS: Mapping[Labels, Preset] = MappingProxyType(
    {
        "hard": Preset(2e-3, 3e-3, 3e-3, 0.3, (0, 30, 60)),
        "teacher": Preset(1e-3, 1e-3, 1e-2, 0.1, (0,)),
        "learned": Preset(2e-3, 3e-3, 3e-3, 0.3, (0, 30, 60)),
    }
)


@final
@dataclass(frozen=True, kw_only=True)
class KernelMatching(KernelMatchingOptions):
    """Samples from centroids (or real stays, or noise), matched on a pool of frozen maps."""

    checkpoint: str | Path | None = field(default=None, metadata=BESIDE)

    def __post_init__(self) -> None:
        """Raises ConfigError on an unknown choice or map, or a number out of range."""
        super().__post_init__()
        check_maps(self.maps)

    @property
    def tuning(self) -> Preset:
        """The preset of the kind of labels, with what was asked for instead."""
        preset = PRESETS[self.labels]
        asked = {name: value for name in vars(preset) if (value := getattr(self, name)) is not None}
        return dataclasses.replace(preset, **asked)

    @property
    def moved_label_rate(self) -> float:
        """Of labels that do not move it is 0."""
        return self.label_rate if self.labels == "learned" else 0.0

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
        """2 * n_per_class samples, half started from each class of task 0, in the public range; `noise` is not used.

        Raises:
            ConfigError: n_per_class below 1, or a precision that the device has not.
            DataError: a class has no stay, or fewer than the start needs.
        """
        check_precision(self.precision, device)
        with arithmetic(self.precision):
            return self._condensed(encoded, n_per_class, seed, device, on_step)

    def _condensed(
        self, encoded: EncodedCohort, n_per_class: int, seed: int, device: str, on_step: OnStep
    ) -> CondensedSet:
        rows = rows_for_start(encoded, self.initialisation, n_per_class, METHOD)
        features, labels = initial_samples(encoded, rows, self.initialisation, n_per_class, seed)
        stays = chosen_stays(encoded, rows, self.pool_stays, seed)
        targets = balanced_targets(stays.labels)
        pool = build_pool(
            stays, self.maps, self.pool_size, training_steps=self.tuning.training_steps, seed=seed, device=device
        )
        (shape,) = build_pool(stays, (SUMMARIES,), 1, seed=seed, device=device)
        teacher = Teacher(pool, targets)
        quick = Teacher([shape], targets) if self.labels == "teacher" else None
        settings = with_roles(self._settings(encoded), encoded)
        features = features.clip(*settings.bounds) if settings.bounds else features
        if self.labels == "learned":
            labels = teacher.label(features, device)
        config = self._config(n_per_class)
        features, labels = optimise_samples(
            (features, labels),
            sum_of(
                kernel_ridge_loss(pool, targets, (self.tuning.ridge, self.tuning.summary_ridge), seed, quick),
                spread_loss(shape, self.tuning.spread),
            ),
            settings,
            context=run_context(METHOD, config, seed, encoded, settings),
            device=device,
            on_step=on_step,
        )
        if self.labels == "teacher":
            labels = teacher.label(features, device)
        return condensed_set(
            encoded,
            features,
            labels,
            METHOD,
            starts_from_records=made_of_records(self.initialisation, rows),
            config=config,
            seed=seed,
        )

    def _settings(self, encoded: EncodedCohort) -> LoopSettings:
        return LoopSettings(
            self.iterations,
            self.tuning.learning_rate,
            label_rate=self.moved_label_rate,
            anneal=True,
            components=self.components,
            bounds=public_range(encoded.transforms),
            keep_best=True,
            patience=self.patience,
            checkpoint=self.checkpoint,
        )

    def _config(self, n_per_class: int) -> dict[str, object]:
        tuning = {**dataclasses.asdict(self.tuning), "training_steps": list(self.tuning.training_steps)}
        return {**self.told(), **tuning, "label_rate": self.moved_label_rate, "n_per_class": n_per_class}
