"""A receiver's installation: what it does without the libraries of the extras, and how it says that it lacks them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from flows.cli.main import app
from pipeline.core.errors import DecoctError, EnvironmentProblem, NotInstalled
from pipeline.core.extras import EXTRA_OF, OPTIONAL, SITE, explained, not_installed, require_site
from pipeline.core.redaction import scrubbed

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "bundle-2"
PLAIN = str(GOLDEN / "st-elsewhere-plain-v1")
NEEDS_SITE = "decoct: this needs the site installation: pip install 'decoct[site]'"

HIDDEN = f"""
import sys
class Hides:
    def find_spec(self, name, path=None, target=None):
        if name == "pipeline.core.config":  # the one place that may use pydantic, which newer versions of typer bring
            raise ModuleNotFoundError("No module named 'pydantic'", name="pydantic")
        if name.partition(".")[0] in {sorted(set(EXTRA_OF) - {"pydantic"})!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hides())
from decoct.__main__ import main
main()
"""


def hidden(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line where no library of an extra can be imported."""
    command = [sys.executable, "-c", HIDDEN, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(GOLDEN / "root.json", tmp_path)
    (tmp_path / "run.toml").write_text("name = 'a'\n")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ("verify", PLAIN, "--root", "root.json"),
        ("receive", PLAIN, "--root", "root.json", "--to", "got"),
        ("fetch", PLAIN, "--root", "root.json", "--to", "here"),
        ("send", PLAIN, "there"),
        ("keys", "identity", "--out", "work"),
        ("trust", "init", "--site", "A", "--trial", "--out", "work"),
        ("trust", "show", "root.json"),
        ("log", "show", "--out", "."),
        ("--help",),
    ],
    ids=lambda words: words[0],
)
def test_what_a_receiver_does_needs_no_extra(words: tuple[str, ...], folder: Path) -> None:
    answer = hidden(folder, *words)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("demo",),
        ("run", "run.toml"),
        *((verb, "run.toml") for verb in ("ingest", "encode", "group", "condense", "validate", "audit", "night")),
        ("audit-tables", "--real", "a.csv", "--shared", "b.csv", "--holdout", "c.csv"),
        ("audit-history", "--history", "sqlite:///h.sqlite"),
        ("release", "propose", "run.toml"),
        ("config", "check", "run.toml"),
        ("pool", PLAIN, "--root", "root.json", "--to", "pooled"),
        ("evaluate", "run.toml", "--bundle", PLAIN, "--root", "root.json"),
        ("forget", "run.toml", "--ids", "ids.txt"),
        ("schedule", "--config", "run.toml"),
        ("watch", "--out", "."),
        ("status", "--out", "."),
        ("fleet", ".", "--root", "root.json"),
        ("doctor",),
    ],
    ids=" ".join,
)
def test_a_sites_verb_says_in_one_sentence_what_it_lacks_and_writes_nothing(
    words: tuple[str, ...], folder: Path
) -> None:
    before = sorted(folder.rglob("*"))
    answer = hidden(folder, *words)
    assert (answer.returncode, answer.stderr.strip()) == (15, NEEDS_SITE)
    assert sorted(folder.rglob("*")) == before


def test_every_command_is_looked_at_here() -> None:
    """A new verb has to be put among those that need an extra, or among those that do not."""
    seen = "verify receive fetch send keys trust log demo run ingest encode group condense validate audit night release"
    also = "config pool evaluate forget schedule status fleet watch doctor audit-tables audit-history audit-diff"
    elsewhere = {"show", "store", "ledger"}  # they look into a workspace, which a site's verbs make
    verbs = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    assert verbs | {str(group.name) for group in app.registered_groups} <= {*seen.split(), *also.split(), *elsewhere}


def test_the_table_of_extras_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {
        name: {Requirement(text).name for text in needs} for name, needs in project["optional-dependencies"].items()
    }
    builders = {"dev", "docs"}  # of whoever works on Decoct
    assert set(extras) == {SITE, *OPTIONAL, *builders}
    owners = packages_distributions()
    found: dict[str, set[str]] = {name: set() for name in extras if name not in builders}
    for module, extra in EXTRA_OF.items():
        (owner,) = {name.lower().replace("_", "-") for name in owners[module]}
        found[extra].add(owner)
    assert found == {name: needs for name, needs in extras.items() if name not in builders}
    base = {Requirement(text).name for text in project["dependencies"]}
    assert not base & set().union(*found.values())


def test_a_missing_library_of_ours_is_explained_and_nobody_elses() -> None:
    found = explained(ModuleNotFoundError("No module named 'dask'", name="dask.distributed"))
    assert isinstance(found, NotInstalled)
    assert isinstance(found, EnvironmentProblem)
    assert (str(found), found.exit_code) == ("this needs the extra cluster: pip install 'decoct[cluster]'", 15)
    for other in (ModuleNotFoundError("plugin", name="their_plugin"), ImportError("no name"), not_installed(SITE)):
        assert explained(other) is other
    with pytest.raises(NotInstalled, match="site installation"), scrubbed("condense"):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    with pytest.raises(DecoctError, match="stage condense failed with ModuleNotFoundError"), scrubbed("condense"):
        raise ModuleNotFoundError("No module named 'their_plugin'", name="their_plugin")
    require_site()
