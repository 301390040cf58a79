"""Plain technical English wherever a user reads: no word of the dialect, and sentences that one breath holds."""

from __future__ import annotations

import ast
import html
import itertools
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from sample_pages import pages_of

from flows.cli.main import app

ROOT = Path(__file__).parents[2]
DIALECT = re.compile(
    r"\b(told(?! apart)|untold|roads?|rooms?|by heart|strangers?|made-up|learnt|"
    r"stands?(?! (?:for|in for)\b)|verbs?|yardsticks?|cry wolf|holds? (?:it|them) against|held against|he|his|him)\b",
    re.IGNORECASE,
)
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if "adr" not in page.parts),
]
SPOKEN = [  # what these modules say is in report, card, catalogue entry and the lines of an audit
    *sorted((ROOT / "pipeline" / "report").glob("*.py")),
    *sorted((ROOT / "pipeline" / "audit").rglob("*.py")),
    *(ROOT / "pipeline" / "sharing" / "bundle" / name for name in ("card.py", "croissant.py")),
    *(ROOT / "flows" / "cli" / name for name in ("ending.py", "panels.py")),
]
TEMPLATES = sorted((ROOT / "pipeline").rglob("*.j2"))
MOST_WORDS = 22  # of a sentence, on average
LOOSER = {"condensation.md": 26}  # whose sentences give a whole setting with its figures
PRODUCT = ("decoct", "flows", "pipeline", "encoders", "condensation")
SPEAKS = ("print", "echo", "secho")


def prose(text: str) -> str:
    """Without fenced and indented blocks and without code in a line."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^(?: {4}|\t).*$", "", text, flags=re.MULTILINE)
    return re.sub(r"`[^`]*`", "code", text)


def hits(text: str) -> list[str]:
    return [text[max(0, found.start() - 40) : found.end() + 20] for found in DIALECT.finditer(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_in_plain_english(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert hits(prose(text)) == []
    assert hits("\n".join(re.findall(r"#[^\n]*", text))) == []  # comments in its blocks, too


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda page: page.name)
def test_a_template_is_in_plain_english(template: Path) -> None:
    assert hits(re.sub(r"{[%{#].*?[%}#]}", " ", template.read_text(encoding="utf-8"), flags=re.DOTALL)) == []


@pytest.mark.parametrize("module", SPOKEN, ids=lambda page: page.name)
def test_what_a_module_says_is_in_plain_english(module: Path) -> None:
    assert [hit for sentence in said(module) for hit in hits(sentence)] == []


def said(module: Path) -> Iterator[str]:
    """Its strings of more than one word, docstrings left out."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    apart = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) not in apart:
            yield from texts(node)


def texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
        yield node.value


def spoken(module: Path) -> Iterator[str]:
    """What it raises or prints."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        called = getattr(node, "func", None)
        if isinstance(node, ast.Raise) or getattr(called, "id", getattr(called, "attr", "")) in SPEAKS:
            for part in ast.walk(node):
                yield from texts(part)


@pytest.mark.parametrize("package", PRODUCT)
def test_every_error_and_every_printed_line_is_in_plain_english(package: str) -> None:
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules
    assert [f"{module.name}: {hit}" for module in modules for one in spoken(module) for hit in hits(one)] == []


def helps() -> Iterator[tuple[str, str]]:
    """Each command's own text and those of its options."""

    def walk(command: Any, name: str) -> Iterator[tuple[str, str]]:
        for text in (command.help, *(getattr(option, "help", None) for option in command.params)):
            yield name, text or ""
        for child, one in getattr(command, "commands", {}).items():
            yield from walk(one, f"{name} {child}")

    return walk(typer.main.get_group(app), "decoct")


def test_every_help_is_in_plain_english() -> None:
    assert [(name, found) for name, text in helps() for found in hits(text)] == []


def lengths(text: str) -> list[int]:
    """Words of each sentence of running text and lists; tables and headings have none."""
    lines = [line for line in prose(text).splitlines() if not re.match(r"\s*[|#]", line)]
    paragraphs = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", "\n".join(lines))
    sentences = [
        sentence
        for paragraph in paragraphs
        for sentence in re.split(r"(?<=[.!?])\s+", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", paragraph).strip())
    ]
    counts = [len(re.findall(r"[A-Za-z][\w'-]*", sentence)) for sentence in sentences]
    return [count for count in counts if count > 2]


def test_sentences_are_counted_as_a_reader_counts_them() -> None:
    text = (
        "# Four words in it\n\nOne two three. Four `decoct run` five\nsix!\n\n- seven eight nine ten\n\n| a | b | c |\n"
    )
    assert lengths(text) == [3, 4, 4]
    assert len(hits("He told a stranger by heart")) == 4
    assert hits("they cannot be told apart; it stands for a range; understand, broad, mushroom") == []


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if "reference" not in page.parts],
    ids=lambda page: page.name,
)
def test_a_sentence_of_a_page_is_short(page: Path) -> None:
    assert statistics.fmean(lengths(page.read_text(encoding="utf-8"))) <= LOOSER.get(page.name, MOST_WORDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_column_of_a_table_has_a_name(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    heads = [line for line, rule in itertools.pairwise(lines) if re.fullmatch(r"\|(-{3,}:?\|)+", rule)]
    assert [head for head in heads if "" in [cell.strip() for cell in head.strip("|").split("|")]] == []


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return pages_of("demo", tmp_path_factory.mktemp("words") / "w")


@pytest.mark.parametrize("name", ["report", "card", "watch"])
def test_a_page_of_the_recorded_demo_is_in_plain_english(recorded: dict[str, str], name: str) -> None:
    body = re.sub(r"<(style|svg|thead|code|pre)\b.*?</\1>", " ", recorded[name], flags=re.DOTALL)
    blocks = re.sub(r"</?(?:p|li|h\d|td|th|dt|dd|div|summary|caption|figcaption|section)\b[^>]*>", "\n\n", body)
    text = html.unescape(re.sub(r"<[^>]+>", "", blocks))
    assert hits(text) == []
    assert statistics.fmean(lengths(text)) <= MOST_WORDS


def test_a_sentence_of_the_helps_is_short() -> None:
    assert statistics.fmean(count for _, text in helps() for count in lengths(text)) <= MOST_WORDS
