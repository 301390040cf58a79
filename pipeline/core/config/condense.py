"""The [condense.NAME] tables: one model per condenser, and one for condensers of other distributions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from pipeline.core.config.tables import Name, Plugin, Positive, PositiveInt


class Condense(Plugin):
    """Base of the condensers' tables."""

    input: Name = "raw"  # the name of an [encode.NAME] table
    n_per_class: PositiveInt = 40
    tasks: Literal["first", "all", "group", "each_group", "each_task"] | tuple[str, ...] = "first"
    """`group`: the tasks that grouping puts with the first one. `each_group`, `each_task`: a set for each, to be
    compared; names: a set for these."""

    @property
    def by_group(self) -> bool:
        """Whether the grouping says which tasks a set holds."""
        return self.tasks in ("group", "each_group")

    @property
    def makes_several(self) -> bool:
        """Whether the table stands for a set for each group or task."""
        return self.tasks in ("each_group", "each_task")


class Matching(Condense):
    """Base of the methods that move samples down a loss; none carries a guarantee."""

    initialisation: Literal["noise", "real", "centroids"] = "centroids"
    patience: PositiveInt | None = 3  # windows of 50 steps without a better mean loss; the best window is kept


class KernelMatching(Matching):
    """Kernel ridge regression on frozen feature maps, with labels that are learned, a teacher's, or hard."""

    kind: Literal["kernel_matching"]
    labels: Literal["hard", "teacher", "learned"] = "learned"
    iterations: Annotated[int, Field(ge=0)] = 100  # 0 = the start with its labels, unmatched: the control
    learning_rate: Positive | None = None  # none, here and below = the preset of the kind of labels
    label_rate: Positive = 0.02
    ridge: Positive | None = None
    summary_ridge: Positive | None = None
    spread: Annotated[float, Field(ge=0)] | None = None
    maps: tuple[str, ...] = ("tcn-b", "lstm-b", "summaries")
    pool_size: PositiveInt = 9
    training_steps: tuple[int, ...] | None = None
    pool_stays: PositiveInt | None = 2048  # stays of a class behind the moments; none = all
    components: PositiveInt | None = None
    precision: Literal["float32", "tf32"] = "float32"  # tf32: coarser, and for CUDA devices only


class CharacteristicFunction(Matching):
    """Characteristic functions of the classes on random features."""

    kind: Literal["characteristic_function"]
    iterations: PositiveInt = 200
    learning_rate: Positive = 1e-3
    maps: tuple[str, ...] = ("tcn-b", "lstm-b")
    pool_size: PositiveInt = 12
    training_steps: tuple[int, ...] = (0,)
    pool_stays: PositiveInt | None = 2048
    frequencies: PositiveInt = 512
    amplitude_weight: Annotated[float, Field(ge=0, le=1)] = 0.5


class GradientMatching(Matching):
    """Gradients of networks on the samples and on real stays."""

    kind: Literal["gradient_matching"]
    iterations: PositiveInt = 150
    learning_rate: Positive = 1e-3
    networks: tuple[str, ...] = ("tcn-b", "lstm-b")
    pool_size: PositiveInt = 8
    training_steps: tuple[int, ...] = (0, 20)
    pool_stays: PositiveInt | None = 1024


class TrajectoryMatching(Matching):
    """Parameters that networks reach on the samples and on real stays."""

    kind: Literal["trajectory_matching"]
    iterations: PositiveInt = 100
    learning_rate: Positive = 1e-3
    network: str = "tcn-b"
    experts: PositiveInt = 8
    mark_every: PositiveInt = 10
    marks: PositiveInt = 6
    span: PositiveInt = 2
    student_steps: PositiveInt = 4
    patience: PositiveInt | None = None


class DistributionMatching(Condense):
    """[Cond]: distribution matching with mean-only MMD on random networks."""

    kind: Literal["distribution_matching"]
    match: Literal["output", "embedding"] = "embedding"
    initialisation: Literal["noise", "real", "centroids"] = "real"  # published: noise, which needs far more steps
    iterations: PositiveInt = 600  # [Cond] takes 24,000: hours on a CPU
    learning_rate: Positive = 1e-3
    batch_size: PositiveInt = 256
    networks: tuple[str, ...] = ("tcn-a", "lstm-a", "vit-a")


class Centroids(Condense):
    """k-means centroids per class: the baseline that the literature seldom shows."""

    kind: Literal["centroids"]


class Herding(Condense):
    """Real stays whose running mean stays nearest to the class's mean: a leak, for comparison only."""

    kind: Literal["herding"]


class RandomReal(Condense):
    """Random real stays: a leak, for comparison only; no policy releases it."""

    kind: Literal["random_real"]


class PrivateMoments(Condense):
    """One accounted Gaussian release of moments, then post-processing into samples."""

    kind: Literal["private_moments"]
    epsilon: Positive = 1.0
    delta: Annotated[float, Field(ge=1e-12, lt=1)] = 1e-6  # float64 noise has no tail to speak of below 1e-12
    clip_norm: Positive | None = None  # none = the method's public default


class PluginCondense(Condense):
    """A condenser from another distribution, by its entry-point name in the group `decoct.condensers`."""

    kind: Literal["plugin"]
    name: str
    settings: dict[str, Any] = Field(default_factory=dict)


CondenseTable = Annotated[
    KernelMatching
    | CharacteristicFunction
    | GradientMatching
    | TrajectoryMatching
    | DistributionMatching
    | Centroids
    | Herding
    | RandomReal
    | PrivateMoments
    | PluginCondense,
    Field(discriminator="kind"),
]


def default_table(method: str, *, input_name: str, n_per_class: int, tasks: str | tuple[str, ...]) -> Condense:
    """The table of a registered condenser with nothing but what all tables share set; another's own is a plug-in's."""
    shared = {"input": input_name, "n_per_class": n_per_class, "tasks": tasks}
    try:
        table: Condense = TypeAdapter(CondenseTable).validate_python({"kind": method, **shared})
    except ValidationError:
        table = PluginCondense.model_validate({"kind": "plugin", "name": method, **shared})
    return table
