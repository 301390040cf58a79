"""While Prefect starts a terminal turns a spinner, which the first word ends; a log file gets a line."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from flows import progress


def on(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> io.StringIO:
    written = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=written, force_terminal=terminal, highlight=False))
    return written


def begin_steps() -> None:
    with progress.steps("training"):
        pass


@pytest.mark.parametrize("word", [lambda: progress.say("ingest"), begin_steps, progress.wait_is_over])
def test_the_spinner_ends_with_the_first_word(word: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    written = on(monkeypatch, terminal=True)
    progress.wait_for("starting Prefect")
    assert progress._WAITING
    word()
    assert not progress._WAITING
    assert "starting Prefect" in written.getvalue()
    assert written.getvalue().rstrip("\n").count("\x1b[?25h") >= 1  # the cursor is back


def test_a_log_file_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    written = on(monkeypatch, terminal=False)
    progress.wait_for("starting Prefect")
    progress.wait_is_over()
    assert written.getvalue() == "starting Prefect\n"
