"""The house stays sorted: no crowded folder, a short top of flows/, a charter in every package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("decoct", "pipeline", "encoders", "condensation", "flows")
FOLDERS = sorted({path.parent for name in PRODUCT for path in (ROOT / name).rglob("*.py")})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_no_folder_has_more_than_sixteen_files(folder: Path) -> None:
    files = [path.name for path in folder.iterdir() if path.is_file() and path.suffix != ".pyc"]
    assert len(files) <= 16, sorted(files)


def test_the_top_of_flows_is_short() -> None:
    assert len(list((ROOT / "flows").glob("*.py"))) <= 8


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_every_package_says_what_it_is_for(folder: Path) -> None:
    init = folder / "__init__.py"
    assert init.is_file()
    assert ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))), init
