"""What `make docs` adds to the pages of docs/: commands and tables made from the code and the results, and samples.

Links that leave docs/ become the path alone: the site stands without the repository.
"""

from __future__ import annotations

import os.path
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File, Files

from flows.cli.main import app
from flows.cli.panels import PANELS

DOCS = Path(__file__).parents[1]
_OUT = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#]*)(?:#[^)]*)?\)")
_TOLD = re.compile(r"^(```\w+) (?:file=(\S+)|exit=\d+)$", re.MULTILINE)
"""What a fence says to the tests that run it: the file that it is kept as, or how its command ends."""
_SAMPLES = {"report": "sample/report.html", "card": "sample/card.html", "watch": "sample/watch/index.html"}


def on_files(files: Files, config: Any) -> Files:
    """Every page that is made and not kept."""
    beside = [str(Path(__file__).parent), str(DOCS.parent / "benchmarks")]
    sys.path[:0] = [path for path in beside if path not in sys.path]  # mkdocs drops what a hook adds while it loads
    for path, text in made().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The lists of made pages, and links that stay inside."""
    if page.file.src_uri == "benchmarks/index.md":
        import page as results

        markdown += "\n## All tables\n\n" + "\n".join(
            f"- [{name.replace('_', ' ')}](results/{name}.md)" for name in sorted(results.chapters())
        )
    markdown = _TOLD.sub(lambda fence: f'{fence[1]} title="{fence[2]}"' if fence[2] else fence[1], markdown)
    return inside(markdown, page.file.src_uri)


def on_post_page(output: str, **_: Any) -> str:
    """No keyboard stops at the palette's buttons, which the reader's system presses."""
    return output.replace('<input class="md-option"', '<input disabled class="md-option"')


def inside(markdown: str, source: str) -> str:
    """`markdown` of the page `source` of docs/, with the path in place of each link to what is not in docs/."""

    def kept(link: re.Match[str]) -> str:
        target = os.path.normpath(Path("docs", source).parent / link[2])
        return link[0] if target.startswith("docs/") else f"{link[1]} (`{target}`)"

    return _OUT.sub(kept, markdown)


def made() -> dict[str, str]:
    """Path in docs/ -> text."""
    import page as results
    from sample_pages import pages_of

    decisions = sorted((DOCS / "adr").glob("0*.md"))
    titles = [(path.name, path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")) for path in decisions]
    with tempfile.TemporaryDirectory() as folder:
        samples = pages_of("demo", Path(folder) / "decoct-demo")
    return {
        "reference/cli.md": "# All commands\n\n" + "\n".join(commands()),
        "adr/index.md": "# Decisions\n\n" + "\n".join(f"- [{title}]({name})" for name, title in titles),
        **{f"benchmarks/results/{name}.md": text for name, text in results.chapters().items()},
        **{path: samples[name] for name, path in _SAMPLES.items()},
    }


def commands() -> Iterator[str]:
    """Every command in the order of the panels, with its help, arguments and options."""
    top = typer.main.get_group(app)
    for panel, names in PANELS.items():
        yield f"## {panel}\n"
        for name in names:
            yield from _command(top.commands[name], f"decoct {name}")


def _command(command: Any, name: str) -> Iterator[str]:
    children = getattr(command, "commands", {})
    yield f"### {name}\n\n{_escaped(command.help or '')}\n"
    for child in children:
        yield from _command(children[child], f"{name} {child}")
    rows = [
        (_named(param), getattr(param, "help", None) or "")
        for param in command.params
        if not getattr(param, "hidden", False) and param.name != "help"
    ]
    if rows and not children:
        yield "| option | meaning |\n|---|---|"
        yield from (f"| {left} | {_escaped(right)} |" for left, right in rows)
        yield ""


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


def _named(param: Any) -> str:
    """An option as it is typed; an argument in capitals."""
    if param.param_type_name == "option":
        return " ".join(f"`{one}`" for one in param.opts)
    return f"`{(param.metavar or param.name).upper()}`"
