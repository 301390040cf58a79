"""What installs Decoct elsewhere: the wheel, a receiver's small environment, the container file and its rules."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints-py311.txt"
CONTAINER = ROOT / "docs" / "how-to" / "container" / "Containerfile"
GOLDEN = ROOT / "tests" / "golden" / "bundle-2"
PACKAGES = ("decoct", "pipeline", "encoders", "condensation", "flows")
BASE_BYTES = 120 * 10**6  # files of all distributions, without bytecode, pip and setuptools
NEEDS_SITE = "this needs the site installation: pip install 'decoct[site]'"


@pytest.fixture(scope="module")
def wheel_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources, without a network."""
    source, out = tmp_path_factory.mktemp("source") / "decoct", tmp_path_factory.mktemp("wheel")
    source.mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "constraints-py311.txt"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(out), str(source)], check=True, timeout=300)
    (path,) = out.glob("decoct-*.whl")
    return path


@pytest.fixture(scope="module")
def wheel(wheel_file: Path) -> dict[str, int]:
    """The names and sizes in it."""
    with zipfile.ZipFile(wheel_file) as archive:
        return {item.filename: item.file_size for item in archive.infolist()}


@pytest.mark.parametrize(
    "name",
    [
        "decoct/__main__.py",
        "flows/cli/main.py",
        "flows/templates/commented.toml",
        "flows/templates/constraints-py311.txt",
        "pipeline/ingest/data/physionet2012/set-a.parquet",
        "pipeline/ingest/mappings/mimic_iv.toml",
        "pipeline/report/templates/report.html.j2",
        "pipeline/report/templates/watch.html.j2",
        "pipeline/report/templates/watch.css",
        "pipeline/sharing/policies/strict.toml",
        "pipeline/sharing/bundle/templates/card.html.j2",
    ],
)
def test_the_wheel_holds_what_running_needs(wheel: dict[str, int], name: str) -> None:
    assert wheel.get(name, 0) > 0


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: dict[str, int]) -> None:
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix in {".py", ".toml", ".j2", ".css", ".parquet", ".md", ".txt", ".yaml"}
    } | {f"{package}/py.typed" for package in PACKAGES}
    ours = {name for name in wheel if not name.startswith("decoct-")}
    assert {name.split("/")[0] for name in ours} == set(PACKAGES)
    assert ours - {"flows/templates/constraints-py311.txt"} >= wanted
    assert not [
        name for name in ours if re.search(r"(^|/)(tests?|benchmarks|docs|__pycache__)(/|$)|\.pyc$|\.key$", name)
    ]


RECEIVE = """
import datetime, json, sys
from importlib.metadata import distributions
from pathlib import Path
from decoct import load, read_bundle, verify
bundle, root, day = sys.argv[1], sys.argv[2], datetime.date(2026, 3, 10)
X, y, weight = load(bundle, root, today=day).X_y("death")
told = {"X": X.shape, "by": verify(bundle, root, today=day).signed_by.name}
told["type"] = type(read_bundle(bundle, root, today=day)).__name__
try:
    from decoct import condense
    condense(None)
except ImportError as error:
    told["condense"] = str(error)
ours = [dist for dist in distributions() if dist.name not in ("pip", "setuptools")]
files = [Path(dist.locate_file(file)) for dist in ours for file in dist.files or ()]
told["bytes"] = sum(file.stat().st_size for file in files if file.suffix != ".pyc" and file.is_file())
told["installed"] = sorted(dist.name.lower() for dist in ours)
print(json.dumps(told))
"""


@pytest.mark.slow
def test_the_base_installation_verifies_and_loads_a_bundle_and_is_small(wheel_file: Path, tmp_path: Path) -> None:
    """In an environment of its own, with what the wheel itself asks for and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True, timeout=120)
    python, script = str(tmp_path / "env" / "bin" / "python"), str(tmp_path / "env" / "bin" / "decoct")
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints-py311.txt")]
    subprocess.run([*install, str(wheel_file)], check=True, timeout=500)
    root, bundle = tmp_path / "root.json", GOLDEN / "st-elsewhere-plain-v1"
    shutil.copy(GOLDEN / "root.json", root)

    def ran(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)

    answer = ran(python, "-c", RECEIVE, str(bundle), str(root))
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert (told["X"], told["by"], told["type"]) == ([40, 6], "Otto", "CondensedSet")
    assert told["condense"] == NEEDS_SITE
    assert not set(told["installed"]) & {"torch", "prefect", "pandas", "scipy", "scikit-learn", "polars"}
    assert told["bytes"] <= BASE_BYTES
    for words in (
        ("verify", str(bundle)),
        ("receive", str(bundle), "--out", "got"),
        ("fetch", str(bundle), "--out", "here"),
    ):
        answer = ran(script, *words, "--root", str(root))
        assert answer.returncode == 0, answer.stderr
    assert sorted(path.name for path in (tmp_path / "got").iterdir()) == ["features.npy", "labels.npy", "manifest.json"]
    answer = ran(script, "demo")
    assert (answer.returncode, answer.stderr) == (15, f"decoct: {NEEDS_SITE}\n")
    assert not (tmp_path / "decoct-demo").exists()


def test_the_wheel_is_small_enough_to_carry(wheel: dict[str, int]) -> None:
    assert sum(wheel.values()) < 40 * 2**20


def instructions(text: str) -> list[tuple[str, str]]:
    """(word, rest) of each instruction, continued lines joined, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    pairs = [line.strip().split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(pair[0], pair[1] if len(pair) > 1 else "") for pair in pairs]


def faults(text: str) -> list[str]:
    """Which rules a container file breaks."""
    found = instructions(text)
    by_word = {word: [rest for name, rest in found if name == word] for word, _ in found}
    user = by_word.get("USER", ["root"])[-1]
    last_from = max(place for place, (word, _) in enumerate(found) if word == "FROM")
    rules = {
        "runs as a user of its own": bool(re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", user)),
        "sets the user in the last stage": ("USER", user) in found[last_from:],
        "adds nothing from elsewhere": "ADD" not in by_word,
        "names no tag": not any(":" in rest and "@" not in rest for rest in by_word["FROM"]),
        "has no default base": by_word.get("ARG") == ["BASE"],
        "installs without an index": all("--no-index" in rest for rest in by_word["RUN"] if "pip install" in rest),
        "checks the digests first": any("sha256sum --check" in rest for rest in by_word["RUN"]),
        "asks no network": not any(re.search(r"https?://|curl|wget|apt|apk", rest) for _, rest in found),
        "holds no secret": not any(re.search(r"(?i)password|token|secret|\.key\b", rest) for _, rest in found),
        "keeps what is written in a volume": by_word.get("VOLUME") == ['["/work"]'],
        "starts without a shell": all(rest.startswith("[") for rest in by_word.get("ENTRYPOINT", [""])),
        "takes telemetry out": "DO_NOT_TRACK=1" in " ".join(by_word.get("ENV", [])),
    }
    return [rule for rule, held in rules.items() if not held]


def test_the_container_file_keeps_its_rules() -> None:
    assert faults(CONTAINER.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("USER 10001:10001", "USER root", "runs as a user of its own"),
        ("USER 10001:10001", "", "runs as a user of its own"),
        ("COPY wheelhouse .", "ADD https://example.org/x .", "adds nothing from elsewhere"),
        ("FROM ${BASE} AS build", "FROM python:latest AS build", "names no tag"),
        ("ARG BASE\n", "ARG BASE=python\n", "has no default base"),
        ("--no-index", "", "installs without an index"),
        ("RUN sha256sum --check --quiet SHA256SUMS", "RUN true", "checks the digests first"),
        ("HOME=/work", "TOKEN=abc", "holds no secret"),
        ('VOLUME ["/work"]', "", "keeps what is written in a volume"),
        ('ENTRYPOINT ["decoct"]', "ENTRYPOINT decoct", "starts without a shell"),
    ],
)
def test_each_rule_would_be_missed(old: str, new: str, rule: str) -> None:
    text = CONTAINER.read_text(encoding="utf-8")
    assert old in text
    assert rule in faults(text.replace(old, new))


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed")
def test_hadolint_has_nothing_to_say() -> None:
    answer = subprocess.run(["hadolint", str(CONTAINER)], capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stdout


def test_the_makefile_and_the_page_collect_and_install_alike() -> None:
    page = (ROOT / "docs" / "how-to" / "offline-install.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in ("pip wheel", "--constraint constraints-py311.txt", "sha256sum -- *.whl constraints-py311.txt"):
        assert words in page
        assert words in makefile
    assert "--no-index --find-links" in page


@pytest.mark.parametrize("python", ["3.11.0", "3.11.13", "3.12.0", "3.13.0"])
def test_the_tested_set_pins_what_any_python_that_we_name_would_ask_for(python: str) -> None:
    pins = {canonicalize_name(line.split("==")[0]) for line in CONSTRAINTS.read_text().splitlines() if "==" in line}
    here = {canonicalize_name(each.metadata["Name"]): each for each in distributions()}
    environment = {"python_version": python.rpartition(".")[0], "python_full_version": python}
    asked, left = {("decoct", "")}, [("decoct", extra) for extra in ("", "site", "quantum", "objects", "cluster")]
    while left:
        name, extra = left.pop()
        for need in map(Requirement, here[name].requires or () if name in here else ()):
            if need.marker is None or need.marker.evaluate({**environment, "extra": extra}):
                found = {(canonicalize_name(need.name), each) for each in ("", *need.extras)}
                left += found - asked
                asked |= found
    assert len(asked) > 100
    assert {name for name, _ in asked} - pins <= {"decoct", "setuptools"}  # torch builds nothing by the latter here
