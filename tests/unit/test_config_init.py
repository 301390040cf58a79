"""`decoct config init` and `schema`: what they write is checked, chooses no licence and knows the same keys."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.templates import SOURCES, brief_config, commented_config
from pipeline.core.config import Config, parse_config
from pipeline.core.config.load import schema
from pipeline.core.errors import UsageError
from pipeline.ingest.checked import check_mapping

OWN = Path(__file__).parents[2] / "docs" / "how-to" / "read-tables.md"
KINDS = (None, *SOURCES)


def printed(*words: str) -> str:
    answer = CliRunner().invoke(app, ["config", *words], catch_exceptions=False)
    assert answer.exit_code == 0
    return answer.stdout


def run_of(text: str, folder: Path) -> Config:
    raw = tomllib.loads(text)
    assert raw["release"]["licence"] == ""  # nobody but the site names its terms
    raw["release"]["licence"] = "CC0-1.0"
    return parse_config(raw, "the template", folder)


@pytest.mark.parametrize("source", KINDS)
def test_a_brief_configuration_is_checked_as_far_as_there_are_files(source: str | None, tmp_path: Path) -> None:
    text = printed("init", "--minimal") if source is None else printed("init", "--for", source)
    assert text == brief_config(source)
    assert len(text.splitlines()) <= 30
    config = run_of(text, tmp_path)
    folder = None
    if source == "own":  # the mapping that the how-to writes, and its files
        for name, block in re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", OWN.read_text(encoding="utf-8"), re.M | re.S):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(block, encoding="utf-8")
        folder = tmp_path / "exports"
    cohort, horizon = config.cohort, config.cohort.step_hours * config.cohort.n_steps
    horizon = 24.0 if source == "own" else horizon  # the how-to's own n_steps
    check_mapping(cohort.mapping, kind=config.source.kind, folder=folder, tasks=cohort.tasks, horizon_hours=horizon)


@pytest.mark.parametrize("text", [commented_config(), *map(brief_config, KINDS)])
def test_the_first_line_names_the_schema_that_is_written(text: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    named = re.fullmatch(r"#:schema (\S+)", text.splitlines()[0])
    assert named is not None
    printed("schema", "--to", Path(named[1]).name)
    assert json.loads(Path(named[1]).read_text(encoding="utf-8")) == schema()


def test_the_schema_knows_every_key_of_the_commented_configuration_and_no_other() -> None:
    known = schema()

    def keys(table: Any, rule: dict[str, Any], where: str) -> None:
        rule = known["$defs"][rule["$ref"].rpartition("/")[2]] if "$ref" in rule else rule
        options = rule.get("oneOf") or rule.get("anyOf")
        if options and isinstance(table, dict):
            kinds = [known["$defs"][one["$ref"].rpartition("/")[2]] for one in options if "$ref" in one]
            rule = next(one for one in kinds if table.get("kind") in (None, *_kinds(one)))
        for key, value in table.items() if isinstance(table, dict) else ():
            if "properties" in rule:
                assert key in rule["properties"], f"{where}.{key}"
                keys(value, rule["properties"][key], f"{where}.{key}")
            elif isinstance(rule.get("additionalProperties"), dict):
                keys(value, rule["additionalProperties"], f"{where}.{key}")

    keys(tomllib.loads(commented_config()), known, "")
    assert known["additionalProperties"] is False
    assert set(known["required"]) == {"name", "source", "encode", "condense", "release"}


def _kinds(rule: dict[str, Any]) -> tuple[str, ...]:
    kind = rule["properties"].get("kind", {})
    return (kind["const"],) if "const" in kind else tuple(kind.get("enum", ()))


def test_an_unknown_source_and_a_file_that_is_there_are_refused(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["config", "init", "--for", "eicU"])
    assert isinstance(answer.exception, UsageError)
    assert "known are eicu, mimic_iv, omop, own" in str(answer.exception)
    (tmp_path / "run.toml").write_text("mine")
    for verb in ("init", "schema"):
        answer = CliRunner().invoke(app, ["config", verb, "--to", str(tmp_path / "run.toml")])
        assert isinstance(answer.exception, UsageError)
        assert (tmp_path / "run.toml").read_text() == "mine"
