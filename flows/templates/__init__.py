"""The configuration files that come with Decoct: the demo's, and a commented one to start from."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Final

from pipeline.core.config import Config, parse_config

_TABLES: Final = """[source]
kind = "tables"
folder = "{folder}"

[cohort]
mapping = "{mapping}"
tasks = ["{task}"]
"""
_EMBEDDED: Final = """[source]
kind = "embedded"           # the PhysioNet 2012 stays that ship with Decoct
"""
SOURCES: Final = {
    "eicu": _TABLES.format(folder="eicu-crd/2.0", mapping="eicu", task="in_hospital_death"),
    "mimic_iv": _TABLES.format(folder="mimiciv/3.1", mapping="mimic_iv", task="in_hospital_death"),
    "omop": _TABLES.format(folder="omop", mapping="omop", task="death_30d"),
    "own": "# Draft the mapping from your files: decoct ingest --suggest exports > ward.toml\n"
    + _TABLES.format(folder="exports", mapping="ward.toml", task="died"),
}
"""What `decoct config init --for` knows: the tables that name a source."""


def demo_config(workspace: Path) -> Config:
    """The demo's configuration with its workspace at `workspace`."""
    raw = tomllib.loads(_text("demo.toml"))
    return parse_config(raw | {"workspace": str(workspace.resolve())}, "the demo's configuration", Path.cwd())


def commented_config() -> str:
    """The text that `decoct config init` writes."""
    return _text("commented.toml")


def brief_config(source: str | None = None) -> str:
    """The fewest tables, for the embedded stays or for one of `SOURCES`."""
    return _text("minimal.toml").replace("SOURCE\n", (_EMBEDDED if source is None else SOURCES[source]) + "\n")


def _text(name: str) -> str:
    return (files("flows.templates") / name).read_text(encoding="utf-8")
