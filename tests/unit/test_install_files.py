"""What installs Decoct elsewhere: the wheel holds what running needs, no more; the container file keeps its rules."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "docs" / "how-to" / "container" / "Containerfile"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """The names and sizes in a wheel built from a copy of the sources, without a network."""
    source, out = tmp_path_factory.mktemp("source") / "decoct", tmp_path_factory.mktemp("wheel")
    source.mkdir()
    for name in ("pipeline", "encoders", "condensation", "flows"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "constraints-py311.txt"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(out), str(source)], check=True, timeout=300)
    (path,) = out.glob("decoct-*.whl")
    with zipfile.ZipFile(path) as archive:
        return {item.filename: item.file_size for item in archive.infolist()}


@pytest.mark.parametrize(
    "name",
    [
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
    packages = ("pipeline", "encoders", "condensation", "flows")
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in packages
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix in {".py", ".toml", ".j2", ".css", ".parquet", ".md", ".txt", ".yaml"}
    }
    ours = {name for name in wheel if not name.startswith("decoct-")}
    assert {name.split("/")[0] for name in ours} == set(packages)
    assert ours - {"flows/templates/constraints-py311.txt"} >= wanted
    assert not [
        name for name in ours if re.search(r"(^|/)(tests?|benchmarks|docs|__pycache__)(/|$)|\.pyc$|\.key$", name)
    ]


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
