"""The table of who can do what at most: its rows are the attackers that were asked for, and its tests are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "guarantee.md").read_text(encoding="utf-8")
TABLE = PAGE.partition("## Who can do what at most")[2].partition("\n## ")[0]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")] for line in TABLE.splitlines() if line.startswith("| ")
][1:]
ATTACKERS = (
    "in transit",
    "a recipient",
    "an author alone",
    "an editor of the workspace",
    "the holder of an old",
    "an operator with everything",
)


def named_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=[row[0][:30] for row in ROWS])
def test_every_row_says_how_far_somebody_gets_and_names_tests_that_exist(row: list[str]) -> None:
    _, at_most, held_by = row
    assert at_most
    found: list[str] = []
    for part in held_by.split("; "):
        file, _, names = part.partition(": ")
        there = named_in(ROOT / file.strip("`"))
        found += (told := re.findall(r"`(test_\w+)`", names))
        assert told, part
        assert set(told) <= there, f"{file}: {sorted(set(told) - there)}"
    assert found


@pytest.mark.parametrize("who", ATTACKERS)
def test_nobody_is_left_out(who: str) -> None:
    assert sum(row[0].startswith(who) for row in ROWS) == 1
