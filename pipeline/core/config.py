"""The one configuration file: TOML -> frozen models, unknown keys refused, values never echoed in an error.

Algorithms never see these models: the registry hands each plug-in its table as keyword arguments (`options`).
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.core.errors import ConfigError

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,40}$")]
PositiveInt = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class Model(BaseModel):
    """Base of all tables: frozen, closed, silent about values."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class Plugin(Model):
    """A table whose `kind` names the code and whose other keys are that code's options."""

    kind: str

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments for the plug-in's factory."""
        return self.model_dump(exclude={"kind", "input", "n_per_class", "tasks"})


class EmbeddedSource(Model):
    """The PhysioNet 2012 stays that ship with Decoct."""

    kind: Literal["embedded"] = "embedded"
    sets: tuple[Literal["a", "b"], ...] = ("a", "b")
    max_stays: PositiveInt | None = None  # the first so many, for demonstrations


class PhysioNet2012Source(Model):
    """A folder or tar.gz of one text file per stay, and the outcomes file."""

    kind: Literal["physionet2012"]
    records: tuple[Path, ...]
    outcomes: tuple[Path, ...]


class LongTableSource(Model):
    """A long event table (CSV or parquet) and, optionally, a table with one row per stay (labels, statics, split)."""

    kind: Literal["long_table"]
    events: Path
    stays: Path | None = None
    stay_column: str = "stay_id"
    subject_column: str | None = None  # none: every stay is its own subject, and guarantees are per stay
    time_column: str = "hours"
    time_unit: Literal["hours", "minutes"] = "hours"
    variable_column: str = "variable"
    value_column: str = "value"
    missing_codes: tuple[float, ...] = ()
    split_column: str | None = None


Source = Annotated[EmbeddedSource | PhysioNet2012Source | LongTableSource, Field(discriminator="kind")]


class SplitConfig(Model):
    """`keyed_hash`: of the subject, so that removing a person moves nobody else; `given`: a column says."""

    kind: Literal["keyed_hash", "given"] = "keyed_hash"
    tuning: Annotated[float, Field(gt=0, lt=1)] = 0.16
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.20

    @model_validator(mode="after")
    def _train_remains(self) -> SplitConfig:
        if self.tuning + self.held_out >= 1:
            raise ValueError("tuning + held_out must leave something to train on")
        return self


class CohortConfig(Model):
    """Grid, meaning of the columns, and splits."""

    mapping: str = "physionet2012"  # a shipped mapping's name, or the path of a mapping TOML
    step_hours: Positive = 1.0
    n_steps: PositiveInt = 48
    tasks: tuple[str, ...] = ()  # of the mapping's tasks, in order; the first defines the classes; () = all
    split: SplitConfig = SplitConfig()


class PrepareConfig(Model):
    """The transforms from raw units to [0, 1]; `scaling = "train_quantiles"` looks at patients and bars a guarantee."""

    imputation: Literal["carry_forward"] = "carry_forward"
    scaling: Literal["public_ranges", "train_quantiles"] = "public_ranges"
    observed: Literal["drop", "encode", "release"] = "drop"  # what was measured when: a leak of its own


class EncodeTable(Plugin):
    """What all encodings share."""

    data: Literal["series", "summaries"] = "series"  # summaries = a dense vector per stay instead of its series

    @property
    def options(self) -> dict[str, Any]:
        """Without what says on which data, and how much noise to look for."""
        return {name: value for name, value in super().options.items() if name not in ("data", "target_rmse")}

    @property
    def is_random(self) -> bool:
        """Whether the result depends on the site's noise key; of a plug-in that is not known, so it may."""
        asked = self.model_dump()
        return self.kind == "plugin" or any(asked.get(name) for name in ("noise_sd", "shots", "target_rmse"))


class IdentityEncode(EncodeTable):
    """No encoding: the control."""

    kind: Literal["identity"]


class KeyedEncode(EncodeTable):
    """What the keyed encodings share."""

    stride: PositiveInt | None = None  # none = the window's width: no overlap
    key_scope: Literal["shared", "per_channel"] = "shared"  # per_channel = every channel has parameters of its own
    noise_sd: Annotated[float, Field(ge=0)] = 0.0  # Gaussian noise on every output, from the site's noise key
    target_rmse: Annotated[float, Field(gt=0)] | None = None  # instead: the noise that leaves every attacker this error

    @model_validator(mode="after")
    def _noise_is_given_or_found(self) -> KeyedEncode:
        if self.target_rmse is not None and self.noise_sd > 0:
            raise ValueError("give noise_sd or target_rmse, not both")
        return self


class QuantumEncode(KeyedEncode):
    """Random quantum encoding [Enc]: angle embedding, random entangling layers, <Z> per wire."""

    kind: Literal["quantum"]
    n_qubits: Annotated[int, Field(ge=1, le=10)] = 4  # also the window's width
    n_layers: PositiveInt = 2
    template: Literal["BasicEntanglerLayers", "StronglyEntanglingLayers", "RandomLayers"] = "BasicEntanglerLayers"
    embedding: Literal["RX", "RY", "RZ"] = "RY"
    embedding_range: tuple[float, float] = (0.0, 0.5)  # where [0, 1] is put, in units of pi; published: 0 to 1
    axis: Literal["time", "variables"] = "time"
    correlations: bool = False  # <Z_j Z_k> beside <Z_j>
    shots: PositiveInt | None = None  # none = exact expectations
    backend: Literal["closed_form", "pennylane"] = "closed_form"
    pennylane_device: str = "default.qubit"


class ProjectionEncode(KeyedEncode):
    """Random projection [Enc]: one keyed matrix on windows."""

    kind: Literal["random_projection"]
    window: PositiveInt = 4  # not looked at when the axis is "record"
    axis: Literal["time", "variables", "record"] = "time"
    distribution: Literal["gaussian", "orthogonal", "rademacher", "sparse"] = "gaussian"
    density: Annotated[float, Field(gt=0, le=1)] | None = None  # of a sparse matrix; none = 1 / sqrt(window)
    n_components: PositiveInt | None = None  # none = window, a square matrix
    fresh: bool = False  # the published notebook's redraw for every window: for comparison only, refused by the gate


class PluginEncode(EncodeTable):
    """An encoder from another distribution, by its entry-point name in the group `decoct.encoders`."""

    kind: Literal["plugin"]
    name: str
    settings: dict[str, Any] = {}


Encode = Annotated[IdentityEncode | QuantumEncode | ProjectionEncode | PluginEncode, Field(discriminator="kind")]


class Condense(Plugin):
    """Base of the condensers' tables."""

    input: Name = "raw"  # the name of an [encode.NAME] table
    n_per_class: PositiveInt = 40
    tasks: Literal["first", "all", "group"] = "first"  # group = the tasks that grouping puts with the first one


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
    pool_stays: PositiveInt | None = 2048  # stays that train the maps; their moments are over all stays
    components: PositiveInt | None = None


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
    settings: dict[str, Any] = {}


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


class UtilityConfig(Model):
    """Train on condensed, test on real."""

    models: tuple[str, ...] = ("tcn", "lstm", "gru", "gradient_boosting", "logistic_regression")
    n_seeds: PositiveInt = 3
    epochs: PositiveInt = 30  # of networks, within the limits on steps of `pipeline.probes.training`
    n_random_draws: PositiveInt = 3
    floor_auroc: Annotated[float, Field(ge=0, le=1)] | None = None
    floor_model: str = "logistic_regression"


class GroupConfig(Model):
    """Task grouping by sample-wise convergence affinity; absent = not run."""

    affinity: Literal["samplewise_multihead", "label_hamming"] = "samplewise_multihead"
    max_groups: PositiveInt = 3
    n_inits: PositiveInt = 3


class AuditConfig(Model):
    """How hard to attack."""

    max_targets: PositiveInt = 400
    n_bootstrap: PositiveInt = 500


class ReleaseConfig(Model):
    """What leaves, and under which policy."""

    kind: Literal["condensed", "encoded", "moments"] = "condensed"
    artefact: Name  # name of an [encode.NAME] or [condense.NAME] table
    policy: str = "strict"  # a shipped policy's name, or the path of a policy TOML
    licence: str  # an SPDX identifier or the name of the terms; nobody else can choose it
    site: str = "unnamed site"
    contact: str = ""
    intended_use: str = "Developing and comparing models; a model meant for care is to be validated on real data first."
    recipients: tuple[str, ...] = ()  # named in the signed statement; some policies ask for them
    agreement: str = ""  # the data-use agreement's title or reference; likewise


class Config(Model):
    """The whole file."""

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 0  # canonical JSON carries integers up to 2^53
    workspace: Path = Path("decoct-work")
    device: str = "auto"
    source: Source
    cohort: CohortConfig = CohortConfig()
    prepare: PrepareConfig = PrepareConfig()
    encode: Annotated[dict[Name, Encode], Field(min_length=1)]
    condense: Annotated[dict[Name, CondenseTable], Field(min_length=1)]
    utility: UtilityConfig = UtilityConfig()
    group: GroupConfig | None = None
    audit: AuditConfig = AuditConfig()
    release: ReleaseConfig

    @field_validator("condense")
    @classmethod
    def _own_names(cls, condense: dict[str, Any]) -> dict[str, Any]:
        reserved = {"full_data", "random_real_stays"} & set(condense)
        if reserved:
            raise ValueError(f"the name {sorted(reserved)[0]} is used by the utility table's own rows")
        return condense

    @model_validator(mode="after")
    def _names_meet(self) -> Config:
        for name, table in self.condense.items():
            if table.input not in self.encode:
                raise ValueError(f"condense.{name}.input names no [encode.*] table")
            if table.tasks == "group" and self.group is None:
                raise ValueError(f"condense.{name}.tasks = 'group' needs a [group] table")
            if table.tasks == "group" and isinstance(table, PrivateMoments):
                raise ValueError(f"condense.{name}.tasks: a group chosen on real data is outside the privacy account")
        known = self.encode if self.release.kind == "encoded" else self.condense
        if self.release.artefact not in known:
            raise ValueError("release.artefact names no table of the kind that release.kind asks for")
        return self


def load_config(path: Path) -> Config:
    """Read and check a configuration file; relative paths in it are relative to the file.

    Raises:
        ConfigError: unreadable, not TOML, or a rule is broken; every fault is named by its key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"configuration file {path} not found; make one with: decoct config init") from None
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"configuration file {path} cannot be read as UTF-8 text") from None
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration file {path} is not valid TOML: {error}") from None
    return parse_config(raw, str(path), path.resolve().parent)


def parse_config(raw: dict[str, Any], where: str, base: Path) -> Config:
    """Check a parsed configuration and resolve its paths against `base`.

    Raises:
        ConfigError: as `load_config`.
    """
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'top level'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise ConfigError(f"{where}: {faults}") from None
    return _resolve_paths(config, base)


def _resolve_paths(config: Config, base: Path) -> Config:
    source = config.source
    if isinstance(source, PhysioNet2012Source):
        records = tuple(base / path for path in source.records)
        source = source.model_copy(
            update={"records": records, "outcomes": tuple(base / path for path in source.outcomes)}
        )
    elif isinstance(source, LongTableSource):
        stays = None if source.stays is None else base / source.stays
        source = source.model_copy(update={"events": base / source.events, "stays": stays})
    update: dict[str, Any] = {"source": source, "workspace": base / config.workspace}
    if config.cohort.mapping.endswith(".toml"):
        update["cohort"] = config.cohort.model_copy(update={"mapping": str(base / config.cohort.mapping)})
    if config.release.policy.endswith(".toml"):
        update["release"] = config.release.model_copy(update={"policy": str(base / config.release.policy)})
    return config.model_copy(update=update)
