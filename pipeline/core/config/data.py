"""The tables on data: where the stays come from, grid and splits, and what is prepared for the encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from pipeline.core.config.tables import Model, Name, Positive, PositiveInt

KINDS: Final = ("embedded", "physionet2012", "long_table", "tables")
"""Of the readers that have a table of their own."""


_CHALLENGE_2012: Final = (
    "Derived from the PhysioNet/Computing in Cardiology Challenge 2012, version 1.0.0 "
    "(physionet.org/content/challenge-2012/1.0.0), under the Open Data Commons Attribution License v1.0. "
    "Silva I, Moody G, Scott DJ, Celi LA, Mark RG. Predicting in-hospital mortality of ICU patients: the "
    "PhysioNet/Computing in Cardiology Challenge 2012. Computing in Cardiology 2012;39:245-248. "
    "Goldberger AL, Amaral LAN, Glass L, et al. PhysioBank, PhysioToolkit, and PhysioNet. Circulation "
    "2000;101(23):e215-e220."
)


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


class TablesSource(Model):
    """A folder of tables that the mapping's [layout] describes: MEDS, OMOP, MIMIC-IV, eICU, hourly tables, your own."""

    kind: Literal["tables"]
    folder: Path


class OtherSource(Model):
    """A reader from another distribution, by its name in the group `decoct.readers`: its files, and its other options.

    The content of `files`, each a file or a folder, decides whether it is read anew.
    """

    kind: Name
    files: dict[Name, Path] = Field(default_factory=dict)
    options: dict[Name, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _closed(cls, table: Any) -> Any:
        if isinstance(table, dict) and set(table) - {"kind", "files", "options"}:
            raise ValueError(f"kind is none of {', '.join(KINDS)}; any other takes nothing but files and options")
        return table

    @model_validator(mode="after")
    def _said_once(self) -> OtherSource:
        if set(self.files) & set(self.options):
            raise ValueError("files and options must not share a name")
        return self


def attribution_of(source: Model) -> str:
    """The attribution that the terms of openly published stays ask for in all that derives from them; or nothing."""
    return _CHALLENGE_2012 if isinstance(source, EmbeddedSource | PhysioNet2012Source) else ""


def reader_options(source: Model) -> dict[str, Any]:
    """The keyword arguments of the source's reader."""
    if isinstance(source, OtherSource):
        return {**source.files, **source.options}
    return source.model_dump(exclude={"kind"})


def _kind(table: Any) -> str:
    kind = table.get("kind") if isinstance(table, dict) else getattr(table, "kind", "")
    return kind if kind in KINDS else "other"


Source = Annotated[
    Annotated[EmbeddedSource, Tag("embedded")]
    | Annotated[PhysioNet2012Source, Tag("physionet2012")]
    | Annotated[LongTableSource, Tag("long_table")]
    | Annotated[TablesSource, Tag("tables")]
    | Annotated[OtherSource, Tag("other")],
    Discriminator(_kind),
]


class SplitConfig(Model):
    """Always by subject. `keyed_hash`: removing a person moves nobody else; `given`: a column says; `site`, `time`.

    `site`: the sites named here are held out, or tuning; a subject with stays in both goes where fewer models look.
    Without `tuning_sites` the share `tuning` of the other sites' subjects is taken by keyed hash.
    `time`: the subjects whose latest stay began last are held out; `tuning` and `held_out` are shares of them.
    """

    kind: Literal["keyed_hash", "given", "site", "time"] = "keyed_hash"
    tuning: Annotated[float, Field(gt=0, lt=1)] = 0.16
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.20
    tuning_sites: tuple[str, ...] = ()
    held_out_sites: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _train_remains(self) -> SplitConfig:
        if self.tuning + self.held_out >= 1:
            raise ValueError("tuning + held_out must leave something to train on")
        if (self.kind == "site") != bool(self.held_out_sites):
            raise ValueError("held_out_sites and kind = 'site' need each other")
        return self


class CohortConfig(Model):
    """Grid, meaning of the columns, and splits."""

    mapping: str = "physionet2012"  # a shipped mapping's name, or the path of a mapping TOML
    step_hours: Positive = 1.0
    n_steps: PositiveInt = 48
    contract: Path | None = None  # a contract of the site's own that the cohort is held to
    tasks: tuple[str, ...] = ()  # of the mapping's tasks, in order; the first defines the classes; () = all
    split: SplitConfig = SplitConfig()


class PrepareConfig(Model):
    """The transforms from raw units to [0, 1]; `scaling = "train_quantiles"` looks at patients and bars a guarantee."""

    imputation: Literal["carry_forward"] = "carry_forward"
    scaling: Literal["public_ranges", "train_quantiles"] = "public_ranges"
    observed: Literal["drop", "encode", "release"] = "drop"  # what was measured when: a leak of its own
    lengths: Literal["fill", "mask"] = "fill"  # mask = a channel that ends with a stay's last measurement: likewise
