"""The documents stay true: commands exist, links lead somewhere, examples are valid, words that promise are absent."""

from __future__ import annotations

import datetime
import functools
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import decoct
from flows.cli.main import app, config_app, keys_app, log_app, release_app, store_app, trust_app
from flows.templates import commented_config, demo_config
from pipeline.core.config import Config, attribution_of, parse_config

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROMISES = re.compile(r"\b(anonymous|anonymi[sz]ed|irreversible|compliant)\b", re.IGNORECASE)


def verbs() -> set[str]:
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    return names | {"config", "keys", "log", "release", "store", "trust"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_pages_exist(page: Path) -> None:
    for verb in re.findall(r"(?:^|`|\$ |    )decoct ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
        assert verb in verbs(), verb


def code(page: Path) -> list[str]:
    """The fenced blocks of a page or of a card's template, whatever their language, and its indented ones."""
    text = page.read_text(encoding="utf-8")
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [*fenced, *re.findall(r"(?:^(?: {4}|\t).*\n)+", text, re.MULTILINE)]


ROOMS = re.compile(r"^\W*(?:from|import) +(?:pipeline|encoders|condensation|flows)\b", re.MULTILINE)
PLUG_INS = "your-own-condenser.md"  # what it may import is named in tests/contract/test_plug_in_condensers.py
FROM_THE_FACE = re.compile(r"from decoct import ([\w, ]+)")
CARDS = sorted((ROOT / "pipeline").rglob("card.*.j2"))


@pytest.mark.parametrize("page", [*PAGES, *CARDS], ids=lambda page: page.name)
def test_examples_import_from_the_face_alone(page: Path) -> None:
    for block in code(page) if page.name != PLUG_INS else ():
        assert not ROOMS.search(block), block
    for names in FROM_THE_FACE.findall(page.read_text(encoding="utf-8")):
        assert set(names.replace(" ", "").split(",")) <= set(dir(decoct)), names


def test_an_import_from_a_room_would_be_missed_nowhere(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for line in ("from pipeline.core.types import Split", ">>> import flows", "import encoders.dense as dense"):
        for block in (f"```python\n{line}\n```\n", f"```\nx = 1\n{line}\n```\n", f"text\n\n    {line}\n"):
            page.write_text(block, encoding="utf-8")
            assert any(ROOMS.search(found) for found in code(page)), block
    page.write_text("```python\nfrom decoct import load  # not from pipeline\npipeline = 1\n```\n", encoding="utf-8")
    assert not any(ROOMS.search(found) for found in code(page))


def test_the_readme_names_every_verb() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for verb in verbs():
        assert re.search(rf"\b{verb}\b", text), verb
    assert {command.name for command in config_app.registered_commands} == {"init", "check", "schema"}
    page = (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")
    for command in keys_app.registered_commands:
        assert f"keys {command.name}" in page, command.name
    page = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")
    for label, group in {"log": log_app, "release": release_app, "trust": trust_app}.items():
        for command in group.registered_commands:
            assert f"decoct {label} {command.name}" in page, command.name
    page = (ROOT / "docs" / "how-to" / "forget-and-clean.md").read_text(encoding="utf-8")
    for command in store_app.registered_commands:
        assert f"decoct store {command.name}" in page, command.name


def test_no_word_promises_what_is_not_so() -> None:
    pages = [
        *PAGES,
        *(ROOT / "flows").rglob("*.toml"),
        *(ROOT / "pipeline").rglob("*.j2"),
        *(ROOT / "pipeline").rglob("*.toml"),
    ]
    for page in pages:
        assert not PROMISES.search(page.read_text(encoding="utf-8")), page.name


def test_the_first_screen_of_the_readme_is_a_screen() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first, rest = text.split("\n## What leaves the site\n")
    assert len(first.splitlines()) <= 60
    assert len(text.splitlines()) <= 130
    for said in (
        "```text\nDone: ",
        "```python\n",
        "make demo",
        "make test",
        "decoct run run.toml",
        "docs/how-to/own-data.md",
    ):
        assert said in first
        assert said not in rest or said.startswith(("decoct", "docs", "make"))


def test_every_python_block_of_the_readme_runs_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    golden = ROOT / "tests" / "golden" / "bundle-2"
    read = functools.partial(decoct.load, today=datetime.date(2026, 3, 10))
    monkeypatch.setitem(vars(decoct), "load", read)  # the vectors' own day
    places = {
        "BUNDLE": golden / "st-elsewhere-plain-v1",
        "TRUST_ROOT": golden / "root.json",
        "in_hospital_death": "death",
    }
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert blocks
    for block in blocks:
        for name, place in places.items():
            assert f'"{name}"' in block
            block = block.replace(f'"{name}"', repr(str(place)))
        names: dict[str, Any] = {}
        exec(block, names)
        assert names["model"].predict_proba(names["X"]).shape == (len(names["X"]), 2)


def test_no_template_chooses_a_licence_for_a_site() -> None:
    assert tomllib.loads(commented_config())["release"]["licence"] == ""
    assert demo_config(Path("decoct-demo")).release.licence == "ODC-By-1.0"  # the embedded stays' own
    assert "Open Data Commons Attribution License v1.0" in attribution_of(demo_config(Path("decoct-demo")).source)
    source = (ROOT / "pipeline" / "ingest" / "data" / "physionet2012" / "README.md").read_text(encoding="utf-8")
    words = " ".join(source.replace("*", "").split())
    for citation in ("Computing in Cardiology 2012;39:245-248", "2000;101(23):e215-e220", "challenge-2012/1.0.0"):
        assert citation in words
        assert citation in attribution_of(demo_config(Path("decoct-demo")).source)


def test_the_demo_runs_under_a_policy_that_is_not_for_production() -> None:
    config = demo_config(Path("decoct-demo"))
    policy = tomllib.loads((files("pipeline.sharing") / f"policies/{config.release.policy}.toml").read_text())
    assert policy["production"] is False


def test_the_commented_configuration_shows_the_true_defaults(tmp_path: Path) -> None:
    raw = tomllib.loads(commented_config())
    raw["release"]["licence"] = "CC0-1.0"
    shown = parse_config(raw, "commented", tmp_path)
    tables = {key: raw[key] for key in ("name", "source", "encode", "condense", "release", "group")}
    for name, table in tables["condense"].items():
        tables["condense"][name] = {key: table[key] for key in ("kind", "input")}
    bare = parse_config(tables, "bare", tmp_path)
    told = shown.cohort.tasks
    assert shown.model_copy(update={"cohort": bare.cohort}) == bare.model_copy(
        update={"condense": {name: bare.condense[name] for name in shown.condense}}
    )
    assert told == tuple(dict.fromkeys(told))
    assert isinstance(shown, Config)
