"""Condensers of other distributions, installed as a user installs them: the example's three, and the how-to's own."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "more-condensers"
PAGE = ROOT / "docs" / "how-to" / "your-own-condenser.md"
THREE = ("characteristic_function", "gradient_matching", "trajectory_matching")
LOOPS = ("tests/unit/test_condensation_resume.py", "tests/unit/test_condensation_roles.py")
SURFACE = re.compile(
    r"condensation\.(loop|start|feature_pool|private\.feature_map)|pipeline\.(core|probes)\.[a-z_.]+"
    r"|numpy|torch[a-z_.]*|__future__|collections\.abc|dataclasses|pathlib|typing"
)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which pip installed the example's distribution, without a network."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "installed"))
    shutil.copytree(EXAMPLE, source / "it")
    words = ("install", "-q", "--no-build-isolation", "--no-deps", "--no-index", "--target", str(target))
    subprocess.run([sys.executable, "-m", "pip", *words, str(source / "it")], check=True, capture_output=True)
    return target


def passed(installed: Path, files: Sequence[str | Path], wanted: str) -> int:
    """How many tests of these files that match `wanted` pass where `installed` is on the path; none may fail."""
    paths = (str(installed), *sys.path[1:], str(ROOT))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    words = ["-q", "-n", "0", "-k", wanted, *map(str, files)]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout[-4000:]
    found = re.search(r"(\d+) passed", ran.stdout)
    return int(found[1]) if found else 0


@pytest.mark.slow
def test_the_example_s_condensers_pass_the_contract(example: Path) -> None:
    contract = "tests/contract/test_condenser_contract.py"
    assert passed(example, [contract, *LOOPS], " or ".join(THREE)) >= 3 * 10 + 2 * 3


@pytest.mark.slow
def test_the_example_s_condensers_do_what_their_papers_say(example: Path) -> None:
    assert passed(example, [EXAMPLE / "tests"], "test") >= 18


def test_the_example_imports_what_the_page_says_that_a_plug_in_may() -> None:
    for file in sorted((EXAMPLE / "more_condensers").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert all(SURFACE.fullmatch(module) for module in modules), (file.name, modules)


def test_the_page_s_condenser_of_20_lines_passes_the_contract(tmp_path: Path) -> None:
    blocks = dict(re.findall(r"```(python|toml)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[:2])
    body = blocks["python"].split("@dataclass")[1]
    assert len([line for line in body.splitlines() if line.strip()]) <= 20
    (tmp_path / "random_means.py").write_text(blocks["python"], encoding="utf-8")
    told = tmp_path / "random_means-0.1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: random-means\nVersion: 0.1.0\n", encoding="utf-8")
    points = blocks["toml"].replace('[project.entry-points."decoct.condensers"]', "[decoct.condensers]")
    (told / "entry_points.txt").write_text(points.replace('"', ""), encoding="utf-8")
    assert passed(tmp_path, ["tests/contract/test_condenser_contract.py"], "random_means") >= 10
