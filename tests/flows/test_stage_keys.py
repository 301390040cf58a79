"""A resumed run makes what its changed code reaches, and nothing else; where the site's folder lies changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, final

import pytest

from flows.environment import PACKAGES
from flows.workspace.job import REPORT_DATA, REPORT_PAGE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # whole runs, in processes of their own

RUN = """
name = "small"
workspace = "work"
source = { kind = "embedded", sets = ["a"], max_stays = 900 }
cohort = { mapping = "ours.toml", tasks = ["in_hospital_death", "los_gt_7d"] }
[encode]
raw = { kind = "identity" }
[condense]
private = { kind = "private_moments", n_per_class = 20 }
kernel = { kind = "kernel_matching", n_per_class = 5, iterations = 2, pool_size = 1, maps = ["summaries"] }
[utility]
models = ["logistic_regression"]
n_seeds = 1
n_random_draws = 1
[audit]
max_targets = 60
n_bootstrap = 100
[release]
artefact = "private"
policy = "trial.toml"
site = "test site"
licence = "ODbL-1.0"
"""
WALK = """
import json, sys
from pathlib import Path
from flows.environment import code_version, quiet
quiet()
from flows.run import walk_until
from flows.workspace.job import new_job
from pipeline.core.config import load_config
made = walk_until(new_job(load_config(Path(sys.argv[1])), resume=True), sys.argv[2])
found = {label: [list(item.digests), item.reused] for label, item in made.items()}
print(json.dumps({"made": found, "code": code_version()}))
"""


@final
@dataclass(frozen=True)
class Walked:
    digests: dict[str, list[str]]
    anew: set[str]
    code: str


@final
@dataclass(frozen=True)
class Site:
    """A site's folder, and a copy of our packages that a test may edit."""

    folder: Path
    code: Path

    def walk(self, verb: str = "release") -> Walked:
        words = [sys.executable, "-c", WALK, str(self.folder / "run.toml"), verb]
        around = os.environ | {"PYTHONPATH": str(self.code), "OMP_NUM_THREADS": "1"}
        answer = subprocess.run(words, cwd=self.folder, env=around, capture_output=True, text=True, timeout=900)
        assert answer.returncode == 0, answer.stderr
        found = json.loads(answer.stdout)
        made: dict[str, Any] = found["made"]
        anew = {label for label, (_, reused) in made.items() if not reused}
        return Walked({label: digests for label, (digests, _) in made.items()}, anew, found["code"])

    def edit(self, name: str, more: str) -> None:
        with (self.code / name).open("a", encoding="utf-8") as stream:
            stream.write(more)

    def copied(self, where: Path) -> Site:
        shutil.copytree(self.folder, where / "site")
        shutil.copytree(self.code, where / "code")
        return Site(where / "site", where / "code")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, fixed_keys: Callable[[Path], None]) -> tuple[Site, Walked]:
    base = tmp_path_factory.mktemp("base")
    site = Site(base / "site", base / "code")
    site.folder.mkdir()
    for package in PACKAGES:
        shutil.copytree(str(files(package)), site.code / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(site.code / "pipeline/ingest/mappings/physionet2012.toml", site.folder / "ours.toml")
    demo = (site.code / "pipeline/sharing/policies/demo.toml").read_text(encoding="utf-8")
    trial = demo.replace('name = "demo"', 'name = "trial"').replace("max_upper = 0.60", "max_upper = 0.75")
    (site.folder / "trial.toml").write_text(trial, encoding="utf-8")
    fixed_keys(site.folder / "work")
    (site.folder / "run.toml").write_text(RUN, encoding="utf-8")
    walked = site.walk()
    assert {"ingest", "encode raw", "condense private", "condense kernel", "audit", "release"} <= walked.anew
    return site, walked


def test_a_mended_template_makes_the_report_alone(first: tuple[Site, Walked], tmp_path: Path) -> None:
    site, before = first[0].copied(tmp_path), first[1]
    site.edit("pipeline/report/templates/report.html.j2", "<!-- mended -->\n")
    run = site.folder / "work" / "runs" / "small"
    after = site.walk()
    assert after.anew == set()
    assert after.digests == before.digests
    assert (run / REPORT_PAGE).read_text(encoding="utf-8").rstrip().endswith("<!-- mended -->")
    assert after.code != before.code
    assert json.loads((run / REPORT_DATA).read_text())["code_version"] == after.code


def test_a_changed_condenser_makes_its_sets_and_what_follows_them(first: tuple[Site, Walked], tmp_path: Path) -> None:
    site = first[0].copied(tmp_path)
    site.edit("condensation/kernel_matching.py", "# mended\n")
    after = site.walk("validate")
    assert after.anew == {"condense kernel", "validate kernel", "utility"}


def test_a_changed_reader_makes_everything(first: tuple[Site, Walked], tmp_path: Path) -> None:
    site = first[0].copied(tmp_path)
    site.edit("pipeline/ingest/cohort/grid.py", "# mended\n")
    assert {"ingest", "prepare", "encode raw"} <= site.walk("encode").anew


def test_a_moved_folder_is_the_same_run(first: tuple[Site, Walked], tmp_path: Path) -> None:
    """Mapping and policy are told by what they say; nothing that is made names the place."""
    moved = Site(first[0].copied(tmp_path).folder, first[0].code)
    with (moved.folder / "trial.toml").open("a", encoding="utf-8") as stream:
        stream.write("# another text, the same rules\n")
    after = moved.walk()
    assert after.anew == set()
    assert after.digests == first[1].digests
    for store in (moved.folder / "work" / "store" / "objects", moved.folder / "work" / "releases"):
        for path in store.rglob("*.json"):
            assert str(first[0].folder.parent) not in path.read_text(encoding="utf-8"), path.name
    with (moved.folder / "ours.toml").open("a", encoding="utf-8") as stream:
        stream.write("# another text\n")
    assert "ingest" in moved.walk("ingest").anew
