"""The site builds strictly, without a network, and holds what its navigation and its summary promise."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer
from mkdocs.commands.build import build
from mkdocs.config import load_config

import decoct
from flows.cli.main import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
MOST_WORDS = 3000
REFERENCE = {"keys.md", "bundle-format.md"}
LOADED = re.compile(r"""<(?:script|img|iframe|source|link)[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
SUMMARY = (DOCS / "benchmarks" / "index.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built while no connection can be made; a warning of mkdocs ends it."""

    def refused(*_: Any) -> NoReturn:
        raise AssertionError("the build of the site asked for the network")

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        patch.chdir(ROOT)
        patch.setattr(socket.socket, "connect", refused)
        patch.setattr(socket, "getaddrinfo", refused)
        patch.setattr(sys, "path", [*sys.path])
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


def test_no_page_of_the_site_loads_anything_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 90
    for page in pages:
        assert not LOADED.search(page.read_text(encoding="utf-8")), page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_every_command_every_decision_every_result_and_the_samples_are_there(site: Path) -> None:
    def leaves(command: Any, name: str) -> Iterator[str]:
        children = getattr(command, "commands", {})
        for child, one in children.items():
            yield from leaves(one, f"{name} {child}")
        if not children and not command.hidden:
            yield name

    page = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    shown = set(re.findall(r"<h3 id=[^>]*>([^<]+)", page))
    assert set(leaves(typer.main.get_group(app), "decoct")) <= shown
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        assert (site / "benchmarks" / "results" / f"{path.stem}.html").exists()
    for path in (DOCS / "adr").glob("*.md"):
        assert f'href="{path.stem}.html"' in (site / "adr" / "index.html").read_text(encoding="utf-8")
    for sample in ("report.html", "card.html", "watch/index.html"):
        assert "<html" in (site / "sample" / sample).read_text(encoding="utf-8")


def test_every_column_of_a_table_has_a_name_and_wide_tables_are_reached_by_keyboard(site: Path) -> None:
    pages = [path.read_text(encoding="utf-8") for path in (site / "benchmarks").rglob("*.html")]
    assert len(pages) > 30
    for text in pages:
        assert "<th></th>" not in text
        assert "reachable.js" in text


def test_every_block_is_a_block(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert "```" not in page.read_text(encoding="utf-8"), page.name
    tutorial = (site / "tutorial.html").read_text(encoding="utf-8")
    assert '<span class="filename">north.toml</span>' in tutorial


def test_every_public_name_has_its_entry(site: Path) -> None:
    named = set(re.findall(r"^::: decoct\.(\w+)$", (DOCS / "reference" / "api.md").read_text(), re.MULTILINE))
    assert named == set(dir(decoct)) - {"__version__"}
    page = (site / "reference" / "api.html").read_text(encoding="utf-8")
    for name in named:
        assert f'id="decoct.{name}"' in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_a_page_is_not_too_long(page: Path) -> None:
    if page.name not in REFERENCE and page.parent.name != "reference":
        assert len(page.read_text(encoding="utf-8").split()) <= MOST_WORDS


def figure(name: str, *path: Any) -> Any:
    """A value of a kept result."""
    value = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    for key in path:
        value = value[key]
    return value


def test_the_summarys_figures_are_those_of_the_results() -> None:
    small = figure("pool_institutions", "two alike", "B", "logistic_regression", "small_site")
    teacher = figure("private_teacher", "rows", "epsilon 1", "private_teacher, 320")
    told = {
        "private_teacher": (
            f"{teacher['tcn-b']['auroc']:.3f}",
            f"{figure('private_teacher', 'rows', 'epsilon 4', 'private_teacher, 320')['tcn-b']['auroc']:.3f}",
            f"{teacher['tcn-b']['calibration_error_before']:.2f}",
            f"{teacher['tcn-b']['calibration_error']:.3f}",
            f"{figure('private_teacher', 'rows', 'epsilon 1', 'teacher')['score']['calibration_error']:.3f}",
        ),
        "pool_institutions": (
            f"{small['100 own real stays']['auroc']:.3f}",
            f"{small['private: 100 own real stays + sets of the others']['auroc']:.3f}",
        ),
        "audit_null": (f"{figure('audit_null', 'real_stays', 'the gate says FAIL', 'alarms')} of 400",),
        "encoding": (
            f"{figure('encoding', 'windows_per_second', 'quantum float32', 'median') / 1e6:.1f} million",
            f"{figure('encoding', 'ratios', 'quantum float32 / best batched QNode', 'median'):.0f} times",
        ),
        "ingest": (f"{figure('ingest', 'decoct', 'stays_per_wall_s'):,.0f} stays a second",),
        "growth": (f"{max(figure('growth', 'growth', 'peak_own_mib')):,} MiB",),
        "night_costs": (f"{figure('night_costs', 'nights', 'unchanged', 'share_of_cpu'):.0%}".replace("%", " %"),),
        "kill_night": (f"{figure('kill_night', 'same_digests')} kills of a night",),
        "stop_night": (
            f"{figure('stop_night', 'stops')} stops of a night, ",
            f"{figure('stop_night', 'slowest_seconds'):.1f} s",
        ),
        "fuzz_bundle": (f"{figure('fuzz_bundle', 'altered', 'refused'):,} of 10,000 refused",),
        "stream_year": (
            f"{figure('stream_year', 'auroc', 'epsilon 4, night 365', 'logistic regression on the set, test'):.3f}",
        ),
    }
    rows = {script: line for line in SUMMARY.splitlines() for script in told if f"`{script}`" in line}
    for script, figures in told.items():
        everything = " ".join(line for line in SUMMARY.splitlines() if f"`{script}`" in line)
        for shown in figures:
            assert shown.removeprefix("0") in everything, (script, shown, rows[script])


def test_a_link_that_leaves_the_pages_becomes_its_path(site: Path) -> None:
    import site_hooks

    text = "[x](../examples/own-plugins/README.md) and [y](../glossary.md#words) and [z](keys.md)"
    assert site_hooks.inside(text, "encoders.md").startswith("x (`examples/own-plugins/README.md`)")
    assert site_hooks.inside(text, "how-to/own-data.md").endswith("[y](../glossary.md#words) and [z](keys.md)")
