"""Where `decoct` begins: no more of the command line than the first word needs, one sentence for whatever fails."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import typer

from flows.cli.panels import new_app
from flows.environment import for_owner_alone, no_core_dumps, quiet
from flows.stopping import SENTENCE, begun, exit_code, stop_in_time, tell
from pipeline.core.errors import DecoctError
from pipeline.core.extras import explained

CTRL_C: Final = 130
"""What Typer returns of a KeyboardInterrupt, whichever signal raised it."""
ALONE: Final = ("verify", "receive")
"""Verbs for which no other is gathered: whoever is handed a bundle asks of each, perhaps of thousands."""


def command_line(words: Sequence[str]) -> typer.Typer:
    """The app that a command line of these words needs."""
    if words and words[0] in ALONE:
        from flows.cli.receive import receive as verbs

        app = new_app()
        app.command()(getattr(verbs, words[0]))
        return app
    from flows.cli.main import app as whole

    return whole


def main() -> None:
    """Run the command line; every failure is one sentence on stderr and its exit code."""
    no_core_dumps()
    stop_in_time()
    quiet()
    for_owner_alone(readable=True)
    try:
        code = command_line(sys.argv[1:])(standalone_mode=False)
        if code == CTRL_C:
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except (KeyboardInterrupt, typer.Abort):
        _stop(SENTENCE, exit_code())
    except BaseException as problem:
        if begun():  # what a library makes of the interruption, or of a server that the same signal has ended
            _stop(SENTENCE, exit_code())
        if not isinstance(problem, Exception):
            raise
        error = explained(problem) if isinstance(problem, ImportError) else problem
        if isinstance(error, DecoctError):
            _stop(str(error), error.exit_code)
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # the command line's own usage errors
            _stop(error.format_message(), int(error.exit_code))
        _stop(f"failed with {type(error).__name__}: a bug in Decoct, please report it", DecoctError.exit_code)


def _stop(sentence: str, code: int) -> None:
    tell(sentence)
    sys.exit(code)
