"""How a run ends: what is shared, what it is worth, what leaks, what is unknown, the verdict and what to do next.

One screen, made from the run's record (the report's JSON) by the report's own functions, so that both show the same
figures.
"""

from __future__ import annotations

import os
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO, final

from pipeline.report.answers import answers, condition

Data = dict[str, Any]

WIDTH: Final = 80
MAX_LINES: Final = 22
_INDENT: Final = 10
_COLOURS: Final = {"PASS": "32", "FAIL": "31", "INCONCLUSIVE": "33"}  # green, red, yellow


@final
@dataclass(frozen=True)
class Places:
    """Paths as the reader types them. `bundle` None: nothing was released; `root` None: there is no trust root yet."""

    report: str
    bundle: str | None
    root: str | None
    is_demo: bool = False


def ending(record: Data, places: Places) -> list[str]:
    """The lines: at most `MAX_LINES`, each at most `WIDTH` wide unless a path is longer."""
    seconds = sum(stage["seconds"] for stage in record["stages"])
    verdict = record["decision"]["verdict"] if record["decision"] else "NOT JUDGED"
    found = answers(record)
    shared = found["shared"].sentences
    if places.bundle is not None:
        shared[0] = f"{Path(places.bundle).name}: {shared[0]}"
    parts = [
        ("SHARED", shared),
        ("USEFUL", found["worth"].sentences),
        ("LEAKS", found["leaks"].sentences),
        ("UNKNOWN", found["unknown"].sentences),
        (verdict, [condition(record)]),
    ]
    first = f"Done: {len(record['stages'])} stages in {_duration(seconds)}."
    last = _next(places, is_proposal=record["awaits_approval"])

    def said(*, in_one: bool) -> list[str]:
        return [line for head, found in parts for line in _block(head, ["; ".join(found)] if in_one else found)]

    apart = [first, *said(in_one=False), "", *last]  # a line for each sentence, where the screen has room
    return apart if len(apart) <= MAX_LINES else [first, *said(in_one=True), "", *last]


def coloured(lines: Sequence[str], stream: TextIO, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The lines with the verdict in colour, where `stream` is a terminal and NO_COLOR is not set."""
    if environment.get("NO_COLOR") or environment.get("TERM") == "dumb" or not stream.isatty():
        return list(lines)
    return [_in_colour(line) for line in lines]


def as_typed(path: Path) -> str:
    """Relative to the folder in which the reader is, where it lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _next(places: Places, *, is_proposal: bool) -> list[str]:
    lines = [_row("look", f"{places.report}    (every figure here: -v)")]
    bundle = shlex.quote(places.bundle or "")
    root = shlex.quote(places.root) if places.root else "TRUST_ROOT    (make one: decoct trust init)"
    if places.bundle is not None and is_proposal:
        lines += [
            _row("approve", f"decoct release approve {bundle} \\"),
            _row("", "  --key APPROVER.key    (another person than the author)"),
            _row("publish", f"decoct release publish {bundle}"),
        ]
    elif places.bundle is not None:
        lines += [
            _row("receive", f"decoct verify {bundle} \\"),
            _row("", f"  --root {root}"),
        ]
    if places.is_demo:
        lines.append(_row("your data", "decoct config init --to run.toml"))
    return lines


def _block(head: str, sentences: Sequence[str]) -> list[str]:
    blank = " " * _INDENT
    lines = [
        line
        for sentence in sentences
        for line in textwrap.wrap(sentence, WIDTH - _INDENT, subsequent_indent="  ", break_on_hyphens=False)
    ]
    if len(head) >= _INDENT:  # INCONCLUSIVE
        return textwrap.wrap(f"{head}  {' '.join(sentences)}", WIDTH, subsequent_indent=blank)
    return [_row(head, lines[0]), *(blank + line for line in lines[1:])]


def _row(head: str, text: str) -> str:
    return f"{head:<{_INDENT}}{text}"


def _in_colour(line: str) -> str:
    word = line.partition(" ")[0]
    return f"\x1b[1;{_COLOURS[word]}m{word}\x1b[0m{line[len(word) :]}" if word in _COLOURS else line


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
