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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, final

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
from condensation.start import STARTS, Start, condensed_set, initial_samples, rows_for_start, run_context
from condensation.teacher import Teacher
from pipeline.core.errors import ConfigError
from pipeline.core.keys.noise import NoiseSource
from pipeline.core.protocols import OnStep, ignore_step
from pipeline.core.threads import single_threaded
from pipeline.core.types import CondensedSet, EncodedCohort
from pipeline.probes.precision import Precision, arithmetic, check_precision

METHOD: Final = "kernel_matching"
Labels = Literal["hard", "teacher", "learned"]


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

    def __post_init__(self) -> None:
        if (
            not min(self.ridge, self.summary_ridge) > 0
            or not self.spread >= 0
            or min(self.training_steps, default=-1) < 0
        ):
            raise ConfigError("kernel matching needs ridges > 0, a spread >= 0 and training steps >= 0")


PRESETS: Mapping[Labels, Preset] = MappingProxyType(
    {
        "hard": Preset(2e-3, 3e-3, 3e-3, 0.3, (0, 30, 60)),
        "teacher": Preset(1e-3, 1e-3, 1e-2, 0.1, (0,)),
        "learned": Preset(2e-3, 3e-3, 3e-3, 0.3, (0, 30, 60)),
    }
)


@final
class KernelMatching:
    """Samples from centroids (or real stays, or noise), matched on a pool of frozen maps."""

    def __init__(
        self,
        *,
        labels: Labels = "learned",
        initialisation: Start = "centroids",
        iterations: int = 100,
        learning_rate: float | None = None,
        label_rate: float = 0.02,
        ridge: float | None = None,
        summary_ridge: float | None = None,
        spread: float | None = None,
        maps: Sequence[str] = ("tcn-b", "lstm-b", SUMMARIES),
        pool_size: int = 9,
        training_steps: Sequence[int] | None = None,
        pool_stays: int | None = 2048,
        components: int | None = None,
        patience: int | None = 3,
        precision: Precision = "float32",
        checkpoint: str | Path | None = None,
    ) -> None:
        """Options; None = what `PRESETS` holds for the kind of labels.

        Args:
            iterations: at most; the loop also stops after `patience` windows of 50 steps without a better mean loss.
            learning_rate: of the samples, `label_rate` of learned labels' logits; both decay to 0.
            ridge: r above, in units of the real stays' total feature variance; more makes samples differ more, as a
                receiver that trains for a shorter time needs. `summary_ridge` is the summaries' own.
            spread: weight of the mean and spread of summaries; 0 = none.
            maps: networks, or "summaries"; the pool holds `pool_size` of them, each trained `training_steps` in turn.
            pool_stays: stays of each class behind the moments, drawn once; None = all.
            components: samples move along that many slow cosines over time; None = freely.
            precision: of the networks; "tf32" is coarser and needs a CUDA device. The ridge regression is in float64.

        Raises:
            ConfigError: an unknown choice, or a number out of range.
        """
        if labels not in ("hard", "teacher", "learned") or initialisation not in STARTS:
            raise ConfigError("kernel matching knows labels hard, teacher, learned and starts noise, real, centroids")
        check_maps(maps)
        given = {
            "learning_rate": learning_rate,
            "ridge": ridge,
            "summary_ridge": summary_ridge,
            "spread": spread,
            "training_steps": None if training_steps is None else tuple(training_steps),
        }
        asked = {name: value for name, value in given.items() if value is not None}
        self.tuning = dataclasses.replace(PRESETS[labels], **asked)  # type: ignore[arg-type]  # names and values meet
        if pool_size < 1:
            raise ConfigError("kernel matching needs a pool of at least 1")
        self.labels: Labels = labels
        self.initialisation: Start = initialisation
        self.label_rate = label_rate if labels == "learned" else 0.0
        self.iterations, self.patience, self.components = iterations, patience, components
        self.precision: Precision = precision
        self.maps, self.pool_size, self.pool_stays = tuple(maps), pool_size, pool_stays
        self.checkpoint = Path(checkpoint) if checkpoint is not None else None

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
            starts_from_records=self.initialisation != "noise",
            config=config,
            seed=seed,
        )

    def _settings(self, encoded: EncodedCohort) -> LoopSettings:
        return LoopSettings(
            self.iterations,
            self.tuning.learning_rate,
            label_rate=self.label_rate,
            anneal=True,
            components=self.components,
            bounds=public_range(encoded.transforms),
            keep_best=True,
            patience=self.patience,
            checkpoint=self.checkpoint,
        )

    def _config(self, n_per_class: int) -> dict[str, object]:
        return {
            "labels": self.labels,
            "initialisation": self.initialisation,
            "iterations": self.iterations,
            "label_rate": self.label_rate,
            **dataclasses.asdict(self.tuning),
            "training_steps": list(self.tuning.training_steps),
            "maps": list(self.maps),
            "pool_size": self.pool_size,
            "pool_stays": self.pool_stays,
            "components": self.components,
            "precision": self.precision,
            "patience": self.patience,
            "n_per_class": n_per_class,
        }
