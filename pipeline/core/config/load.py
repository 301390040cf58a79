"""The tables of utility, audit and release, and a whole configuration: TOML -> frozen models, or one clear error.

Unknown keys are refused and values never echoed. Algorithms never see these models: the registry hands each plug-in its
table as keyword arguments (`options`).
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from pipeline.core.config.compute import ComputeConfig
from pipeline.core.config.condense import CondenseTable
from pipeline.core.config.data import CohortConfig, PrepareConfig, Source
from pipeline.core.config.encode import Encode
from pipeline.core.config.faults import told
from pipeline.core.config.group import GroupConfig
from pipeline.core.config.night import DriftConfig, NightConfig
from pipeline.core.config.tables import Model, Name, PositiveInt
from pipeline.core.data_use import data_use_problem
from pipeline.core.errors import ConfigError
from pipeline.core.extras import require_site
from pipeline.core.options.condensers import PRIVATE


class UtilityConfig(Model):
    """Train on condensed, test on real."""

    models: tuple[str, ...] = ("tcn", "lstm", "gru", "gradient_boosting", "logistic_regression")
    n_seeds: PositiveInt = 3
    epochs: PositiveInt = 30  # of networks, within the limits on steps of `pipeline.probes.training`
    n_random_draws: PositiveInt = 3
    floor_auroc: Annotated[float, Field(ge=0, le=1)] | None = None
    floor_model: str = "logistic_regression"


class AuditConfig(Model):
    """How hard to attack: `screen` takes minutes, `full` condenses again many times and takes hours."""

    level: Literal["screen", "full"] = "screen"
    max_targets: PositiveInt = 400
    n_bootstrap: PositiveInt = 500


class ReleaseConfig(Model):
    """What leaves, and under which policy."""

    kind: Literal["condensed", "encoded", "moments"] = "condensed"
    artefact: Name  # name of an [encode.NAME] or [condense.NAME] table
    policy: str = "strict"  # a shipped policy's name, or the path of a policy TOML
    licence: str  # an SPDX identifier or the name of the terms; nobody else can choose it
    attribution: str = ""  # what the terms of the source ask its users to say; open sources that ship have their own
    site: str = "unnamed site"
    contact: str = ""
    intended_use: str = "Developing and comparing models; a model meant for care is to be validated on real data first."
    recipients: tuple[str, ...] = ()  # named in the signed statement; some policies ask for them
    recipient_keys: dict[str, str] = Field(default_factory=dict)  # recipient -> age public key; encrypts the payload
    agreement: str = ""  # the data-use agreement's title or reference; likewise
    duo: tuple[str, ...] = ()  # what receivers may do with it: terms of the Data Use Ontology
    other_people: str = ""  # the code of a cohort without an id that the ledger knows: no ids were changed in it
    countersigned: str = ""  # the code of what recipients recover, given by the gate and set once somebody has read it

    @model_validator(mode="after")
    def _terms(self) -> ReleaseConfig:
        if not self.licence.strip():
            raise ValueError("licence is empty: name the terms under which the set leaves, such as an SPDX identifier")
        if problem := data_use_problem(self.duo, self.agreement):
            raise ValueError(problem)
        if self.recipient_keys and set(self.recipient_keys) != set(self.recipients):
            raise ValueError("recipient_keys names each of the recipients, and nobody else")
        return self


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
    compute: ComputeConfig = ComputeConfig()
    drift: DriftConfig = DriftConfig()
    night: NightConfig = NightConfig()
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
            if table.by_group and self.group is None:
                raise ValueError(f"condense.{name}.tasks = '{table.tasks}' needs a [group] table")
            if table.by_group and self.group and self.group.looks_at_stays and table.kind in PRIVATE:
                raise ValueError(f"condense.{name}.tasks: a group chosen on real data is outside the privacy account")
        known = self.encode if self.release.kind == "encoded" else self.condense
        if self.release.artefact not in known:
            raise ValueError("release.artefact names no table of the kind that release.kind asks for")
        if self.release.kind == "condensed" and self.condense[self.release.artefact].makes_several:
            raise ValueError("release.artefact makes a set for each group; name the tasks of the one that is to leave")
        if self.release.kind == "moments" and self.condense[self.release.artefact].tasks == "group":
            raise ValueError("release.kind = 'moments' takes the tasks that its table names by itself, not a group's")
        if self.group and self.group.moments is not None:
            source = self.condense.get(self.group.moments)
            if source is None or source.kind != "private_moments" or source.tasks in ("first", "group"):
                raise ValueError("group.moments names a private_moments table that holds several tasks by itself")
        return self


@cache
def schema() -> dict[str, Any]:
    """The JSON schema of a configuration file, for editors; rules between tables are in the models alone."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


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
        ConfigError: as `load_config`. NotInstalled: this installation could not run it, so no verb begins.
    """
    require_site()
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{where}: {told(error, raw, schema())}") from None
    return _resolve_paths(config, base)


def _resolve_paths(config: Config, base: Path) -> Config:
    def resolved(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: resolved(item) for name, item in value.items()}
        if isinstance(value, tuple):
            return tuple(resolved(item) for item in value)
        return base / value if isinstance(value, Path) else value

    source = config.source.model_copy(update={name: resolved(value) for name, value in config.source})
    update: dict[str, Any] = {"source": source, "workspace": base / config.workspace}
    cohort: dict[str, Any] = {}
    if config.cohort.mapping.endswith(".toml"):
        cohort["mapping"] = str(base / config.cohort.mapping)
    if config.cohort.contract is not None:
        cohort["contract"] = base / config.cohort.contract
    update["cohort"] = config.cohort.model_copy(update=cohort)
    if config.night.metrics is not None:
        update["night"] = config.night.model_copy(update={"metrics": base / config.night.metrics})
    if config.release.policy.endswith(".toml"):
        update["release"] = config.release.model_copy(update={"policy": str(base / config.release.policy)})
    return config.model_copy(update=update)
