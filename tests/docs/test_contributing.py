"""What contributors, reporters and citers read stays true: paths exist, tests are there, versions agree."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRIBUTING, SECURITY = ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"
PATH = re.compile(
    r"`((?:decoct|pipeline|encoders|condensation|flows|tests|docs|benchmarks)/[\w./-]+|[\w-]+\.(?:md|toml|cff|py))`"
)


def rows(page: Path) -> list[tuple[str, str]]:
    """The two cells of each row of the page's tables, without the heads."""
    found = re.findall(r"^\| (.+?) \| (.+?) \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [(left, right) for left, right in found if right.startswith("`")]


def test_at_least_twenty_questions_are_each_answered_by_a_path_that_is_there() -> None:
    questions = rows(CONTRIBUTING)
    assert len(questions) >= 20
    assert len({question for question, _ in questions}) == len({path for _, path in questions}) == len(questions)
    for question, answer in questions:
        assert question.endswith("?")
        assert (ROOT / answer.strip("`")).exists(), answer


@pytest.mark.parametrize("page", [CONTRIBUTING, SECURITY], ids=lambda page: page.name)
def test_every_path_that_is_named_is_there(page: Path) -> None:
    named = PATH.findall(page.read_text(encoding="utf-8"))
    assert len(named) > 10
    for path in named:
        assert (ROOT / path).exists(), path


def test_each_property_has_a_test_that_would_fail() -> None:
    properties = rows(SECURITY)
    assert len(properties) >= 10
    for _, path in properties:
        tree = ast.parse((ROOT / path.strip("`")).read_text(encoding="utf-8"))
        assert any(isinstance(node, ast.FunctionDef) and node.name.startswith("test_") for node in tree.body), path


def test_the_picture_of_the_floors_is_what_import_linter_keeps() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = (row["layers"] for row in project["tool"]["importlinter"]["contracts"] if row["name"][:6] == "Floors")
    picture = CONTRIBUTING.read_text(encoding="utf-8").partition("## The floors")[2].partition("Also kept")[0]
    place = -1
    for floor in layers:
        names = [name.strip() for name in floor.split("|")]
        starts = [
            picture.find(name if index == 0 else name.replace("pipeline", "")) for index, name in enumerate(names)
        ]
        shown = picture.find(names[0], place + 1)
        assert shown > place, floor
        assert all(start >= 0 for start in starts), floor
        place = shown


def test_the_citation_names_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    told = dict(re.findall(r"^([\w-]+): (.+)$", text, re.MULTILINE))
    assert (told["version"], told["license"], told["cff-version"]) == (project["version"], project["license"], "1.2.0")
    assert (
        re.findall(r"^  - ([\w ]+)$", text.partition("keywords:")[2].partition("references:")[0], re.MULTILINE)
        == (project["keywords"])
    )


def test_the_glossary_gives_each_term_once() -> None:
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    terms = [
        term.strip(" *")
        for cell in re.findall(r"^\| (.+?) \| .+ \|$", page, re.MULTILINE)
        for term in cell.split(",")
        if cell != "term"
    ]
    assert len(terms) > 60
    assert len(terms) == len(set(terms))
