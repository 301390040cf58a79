"""The options of the condensers that ship with Decoct, by the names under which they are registered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pipeline.core.options.base import (
    Ge,
    Lt,
    MinLen,
    Names,
    NotNegative,
    NotNegativeInt,
    Options,
    Positive,
    PositiveInt,
)

Start = Literal["noise", "real", "centroids", "gaussian"]
Labels = Literal["hard", "teacher", "learned"]
Precision = Literal["float32", "tf32"]
TrainingSteps = Annotated[tuple[NotNegativeInt, ...], MinLen(1)]


@dataclass(frozen=True, kw_only=True)
class MatchingOptions(Options):
    """Of the methods that move samples down a loss and keep the best; none carries a guarantee."""

    initialisation: Start = "centroids"
    patience: PositiveInt | None = 3  # windows of 50 steps without a better mean loss; the best window is kept


@dataclass(frozen=True, kw_only=True)
class KernelMatchingOptions(MatchingOptions):
    """Kernel ridge regression on frozen feature maps, with labels that are learned, a teacher's, or hard."""

    labels: Labels = "learned"
    iterations: NotNegativeInt = 100  # at most; 0 = the start with its labels, unmatched: the control
    learning_rate: Positive | None = None  # of samples; none, here and below = the preset of the kind of labels
    label_rate: NotNegative = 0.02  # of learned labels' logits; both rates decay to 0
    ridge: Positive | None = None
    """In units of the real stays' total feature variance; more makes samples differ more, as a receiver that trains for
    a shorter time needs."""
    summary_ridge: Positive | None = None  # the summaries' own
    spread: NotNegative | None = None  # weight of the mean and spread of summaries; 0 = none
    maps: Names = ("tcn-b", "lstm-b", "summaries")  # networks, or "summaries"
    pool_size: PositiveInt = 9  # maps in the pool, taken in turn, each trained `training_steps` in turn
    training_steps: TrainingSteps | None = None
    pool_stays: PositiveInt | None = 2048  # stays of a class behind the moments, drawn once; none = all
    components: PositiveInt | None = None  # samples move along that many slow cosines over time; none = freely
    precision: Precision = "float32"  # of the networks; tf32: coarser, and for CUDA devices only


@dataclass(frozen=True, kw_only=True)
class GaussianOptions(Options):
    """Draws from one Gaussian per class, with the class as label or with a teacher's."""

    labels: Literal["hard", "teacher"] = "hard"


@dataclass(frozen=True, kw_only=True)
class DistributionMatchingOptions(Options):
    """[Cond]: distribution matching with mean-only MMD on random networks."""

    match: Literal["output", "embedding"] = "embedding"
    scale: Literal["z", "cohort"] = "z"
    """Where samples start and step: in standard deviations of each channel in the training part, as published, or in
    the cohort's own units."""
    initialisation: Start = "centroids"  # published: noise, which needs far more steps
    iterations: NotNegativeInt = 600  # [Cond] takes 24,000: hours on a CPU
    learning_rate: Positive = 1e-3  # in the units of `scale`
    anneal: bool = False  # the rate falls to 0 along a cosine; published: it stays
    batch_size: PositiveInt = 256
    networks: Names = ("published-tcn-a-quarter", "published-lstm-a-quarter", "published-vit-a-quarter")
    """One is drawn at random at every step. [Cond] has them four times as wide, at some five times the cost: the names
    without `-quarter`."""


@dataclass(frozen=True, kw_only=True)
class PrivateOptions(Options):
    """Of the methods with a guarantee: what one accounted release may cost."""

    epsilon: Positive = 1.0
    delta: Annotated[float, Ge(1e-12), Lt(1)] = 1e-6  # float64 noise has no tail to speak of below 1e-12


@dataclass(frozen=True, kw_only=True)
class PrivateTeacherOptions(PrivateOptions):
    """A logistic teacher and a process with few statistics, both private: one accounted release, then
    post-processing into samples."""


@dataclass(frozen=True, kw_only=True)
class PrivateMomentsOptions(PrivateOptions):
    """One accounted Gaussian release of moments, then post-processing into samples."""

    clip_norm: Positive | None = None  # none = the method's public default


@dataclass(frozen=True, kw_only=True)
class PrivateStreamOptions(PrivateOptions):
    """One accounted Gaussian query that is answered on every night of a stream."""

    epsilon: Positive = 2.0  # of all nights together, for one person
    begins: str = ""  # ISO date of night 1; a scheduled run needs it
    horizon: PositiveInt = 365  # nights
    entries: PositiveInt = 1  # stays of a person that enter, at most
    separation: PositiveInt = 1  # nights between two entries of a person, at least
    window: PositiveInt | None = None  # nights whose stays a set speaks of; none = all so far
    backlog_nights: PositiveInt = 30  # over which people enter who are there already when the stream begins


CONDENSERS: Final[Mapping[str, type[Options]]] = MappingProxyType(
    {
        "kernel_matching": KernelMatchingOptions,
        "distribution_matching": DistributionMatchingOptions,
        "centroids": Options,
        "gaussian": GaussianOptions,
        "herding": Options,
        "random_real": Options,
        "private_teacher": PrivateTeacherOptions,
        "private_moments": PrivateMomentsOptions,
        "private_stream": PrivateStreamOptions,
    }
)
PRIVATE: Final = frozenset(kind for kind, options in CONDENSERS.items() if issubclass(options, PrivateOptions))
"""Those with a guarantee."""
