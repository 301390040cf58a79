"""Progress for a person: a bar with loss and ETA on a terminal, a line now and then in a log file; always on stderr."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.status import Status

from pipeline.core.protocols import OnStep

_LINES_PER_STAGE: Final = 4
_QUICK_SECONDS: Final = 2.0
console = Console(stderr=True, highlight=False)

T = TypeVar("T")
Show = Callable[[str, int, int, Callable[[], Any]], Any]
"""(what a piece is called, its number from 1, how many there are, what makes it) -> what was made."""

_show: Final[ContextVar[Show | None]] = ContextVar("pieces_shown_by", default=None)


_WAITING: Final[list[Status]] = []


def wait_for(text: str) -> None:
    """A spinner on a terminal until something else is said or the wait is over; in a log file a line."""
    if console.is_terminal:
        _WAITING.append(console.status(text))
        _WAITING[-1].start()
    else:
        say(text)


def wait_is_over() -> None:
    """Take the spinner away, if there is one."""
    while _WAITING:
        _WAITING.pop().stop()


@contextmanager
def steps(label: str, unit: str = "loss") -> Iterator[OnStep]:
    """An `OnStep` that draws; `unit` names the third number (a loss, rows per second, ...)."""
    wait_is_over()
    if console.is_terminal:
        columns = (
            TextColumn("  {task.description:<28}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[value]}"),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(label, total=None, value="")

            def draw(step: int, total: int, value: float) -> None:
                bar.update(task, completed=step, total=total, value=_figure(unit, value))

            yield draw
    else:
        yield _plain_lines(label, unit)


def _plain_lines(label: str, unit: str) -> OnStep:
    begin, next_share = time.monotonic(), 1 / _LINES_PER_STAGE

    def write(step: int, total: int, value: float) -> None:
        nonlocal next_share
        seconds = time.monotonic() - begin
        if seconds < _QUICK_SECONDS or step >= total or step / max(total, 1) < next_share:
            return
        next_share = step / total + 1 / _LINES_PER_STAGE
        figure = _figure(unit, value)
        done = f"{step}/{total}, {figure}" if figure else f"{step}/{total}"
        eta = seconds * (total - step) / max(step, 1)
        print(f"  {label}: {done}, {seconds:.0f} s, eta {eta:.0f} s", file=sys.stderr, flush=True)

    return write


def _figure(unit: str, value: float) -> str:
    return f"{unit} {value:.4g}" if unit and math.isfinite(value) else ""


def say(text: str) -> None:
    """One line for the person at the terminal."""
    wait_is_over()
    console.print(text, markup=False, soft_wrap=True)


@contextmanager
def pieces_shown_by(show: Show) -> Iterator[None]:
    """Within the block, each piece of a stage that has named pieces is made by `show`, which may show it."""
    before = _show.set(show)
    try:
        yield
    finally:
        _show.reset(before)


def piece_by_piece(names: Sequence[str], pieces: Iterable[T]) -> Iterator[T]:
    """The pieces, each made as whoever shows them wants it; `names` is as long as they are."""
    show, found = _show.get(), iter(pieces)
    for number, name in enumerate(names, start=1):
        yield next(found) if show is None else show(name, number, len(names), lambda: next(found))
    yield from found  # none is left: what made them comes to its own end
