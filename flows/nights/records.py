"""Have records come since the last night? Asked of the source's files, or of a command of the site's own.

    workspace/nights/records.json   a mark of what was there when the last night was begun

A mark says that something is another than before, not what: an HMAC under a key of the workspace, of how many files
there are, how large and how new, or of what the command prints (a database's newest row, say).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, final

from flows.progress import say
from flows.workspace.accepted import NIGHTS
from flows.workspace.job import marks_of
from pipeline.core.config import Config, reader_options
from pipeline.core.errors import EnvironmentProblem
from pipeline.core.files.whole import put_whole
from pipeline.ingest.kept.watermarks import files_below

RECORDS_FILE: Final = "records.json"
COMMAND_SECONDS: Final = 60
MOST_BYTES: Final = 4096  # of what a command prints


@final
class Records:
    """Looks every `night.records_minutes`, and says that records came once two looks in a row see the same."""

    def __init__(self, config: Config, now: Callable[[], datetime]) -> None:
        self._config, self._now = config, now
        self._every = timedelta(minutes=config.night.records_minutes)
        self._looked, self._before = now() - self._every, ""
        if self._begun_with() == "":  # a first start is no news: what is there waits for the clock
            self.begun()

    def came(self) -> bool:
        """Whether there is something that the last night did not see, and nobody is still writing it."""
        if self._now() - self._looked < self._every:
            return False
        self._looked, mark = self._now(), self._mark()
        settled, self._before = mark == self._before, mark
        return settled and mark not in ("", self._begun_with())

    def begun(self) -> None:
        """A night begins now, whatever for: what is there by now is what it sees.

        Raises:
            EnvironmentProblem: that cannot be noted.
        """
        try:
            _place(self._config).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            put_whole(_place(self._config), json.dumps({"mark": self._mark()}).encode())
        except OSError as error:
            raise EnvironmentProblem(f"{_place(self._config)} cannot be written: {error.strerror}") from None

    def _mark(self) -> str:
        """Of what is there; "" where it cannot be seen for the moment, which is told, and no reason to begin."""
        command = self._config.night.records_command
        try:
            return marks_of(self._config.workspace)(_printed(command) if command else _files(self._config))
        except (OSError, subprocess.SubprocessError, EnvironmentProblem) as error:
            what = "night.records_command" if command else "the source"
            say(f"  {what} could not be asked whether records came: {type(error).__name__}")
            return ""

    def _begun_with(self) -> str:
        try:
            return str(json.loads(_place(self._config).read_bytes())["mark"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""


def _printed(command: tuple[str, ...]) -> str:
    """What the command prints, in hex; no shell reads it."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True,
        timeout=COMMAND_SECONDS,
    )  # fmt: skip
    return done.stdout[:MOST_BYTES].hex()


def _files(config: Config) -> str:
    """How many files the source has, how large they are together, and when the newest was written."""
    count, size, newest = 0, 0, 0
    options = [value if isinstance(value, tuple) else (value,) for value in reader_options(config.source).values()]
    for path in (one for several in options for one in several if isinstance(one, Path)):
        for file in files_below(path) if path.is_dir() else (path,):
            seen = file.stat()
            count, size, newest = count + 1, size + seen.st_size, max(newest, seen.st_mtime_ns)
    return f"{count} {size} {newest}"


def _place(config: Config) -> Path:
    return config.workspace / NIGHTS / RECORDS_FILE
