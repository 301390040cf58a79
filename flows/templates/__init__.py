"""The configuration files that come with Decoct: the demo's, and a commented one to start from."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

from pipeline.core.config import Config, parse_config


def demo_config(workspace: Path) -> Config:
    """The demo's configuration with its workspace at `workspace`."""
    raw = tomllib.loads(_text("demo.toml"))
    return parse_config(raw | {"workspace": str(workspace.resolve())}, "the demo's configuration", Path.cwd())


def commented_config() -> str:
    """The text that `decoct config init` writes."""
    return _text("commented.toml")


def _text(name: str) -> str:
    return (files("flows.templates") / name).read_text(encoding="utf-8")
