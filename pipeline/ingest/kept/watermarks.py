"""Which files are what they were: size, times and inode of each, beside the digest of what it held then.

A file with the same size, modification time, change time and inode as when it was hashed is not read again. The change
time (ctime) is the kernel's: a program that writes a file and puts its modification time back cannot put that back. A
file that was touched less than two seconds before it was hashed, or at a time that is yet to come (the clock was set
back), is hashed again: a later write could have left all four as they were.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, final

from pipeline.core.digest import digest_file
from pipeline.core.errors import EnvironmentProblem
from pipeline.core.files.whole import put_whole

SETTLED_SECONDS: Final = 2.0
"""As coarse as a file system's clock can be: a file younger than this may change again without its times changing."""

Seen = tuple[int, int, int, int]


@final
class Watermarks:
    """The marks of one source's files, kept in `place` (None = not kept); `fresh` = none is trusted.

    Read and written once for a whole night.
    """

    def __init__(self, place: Path | None = None, *, fresh: bool = False) -> None:
        self._place = place
        self._known: dict[str, tuple[Seen, str]] = {}  # settled ones
        self._asked: dict[Path, tuple[Seen, str, bool]] = {}
        self._lock = threading.Lock()
        self.hashed = 0  # files whose content was looked at
        if place is not None and not fresh:
            self._known = _read(place)

    def digest(self, file: Path) -> str:
        """Hex SHA-256 of the file's content: remembered where nothing has touched it, else computed.

        Raises:
            EnvironmentProblem: it vanished, cannot be read, or is being written.
        """
        with self._lock:
            asked = self._asked.get(file)
        if asked is not None:
            return asked[1]
        began, before = time.time(), _seen(file)
        known = self._known.get(os.fspath(file))
        if known is not None and known[0] == before:
            found, settled = known[1], True
        else:
            try:
                found = digest_file(file)
            except OSError as error:
                raise _gone(file, error) from None
            if _seen(file) != before:
                raise _being_written(file)
            settled = max(before[1], before[2]) / 1e9 < began - SETTLED_SECONDS
            with self._lock:
                self.hashed += 1
        with self._lock:
            self._asked[file] = (before, found, settled)
        return found

    def require_unchanged(self) -> None:
        """Hold that every file that was asked for still is what it was.

        Raises:
            EnvironmentProblem: one vanished or was written meanwhile, so that what was read is neither old nor new.
        """
        for file, (seen, _, _) in self._asked.items():
            if _seen(file) != seen:
                raise _being_written(file)

    def save(self) -> None:
        """Keep the marks of the files that were asked for; those of others are forgotten.

        Raises:
            OSError: the disk refuses; the marks so far stay.
        """
        if self._place is None:
            return
        marks = {os.fspath(file): [*seen, found] for file, (seen, found, settled) in self._asked.items() if settled}
        if {name: (tuple(mark[:4]), mark[4]) for name, mark in marks.items()} != self._known:
            self._place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            put_whole(self._place, json.dumps(marks, separators=(",", ":")).encode())


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder, in no order; as `rglob`, with fewer system calls for each.

    Raises:
        EnvironmentProblem: the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from files_below(Path(entry.path))
                elif entry.is_file():
                    yield Path(entry.path)
    except OSError as error:
        raise EnvironmentProblem(f"{folder} cannot be listed: {error.strerror}") from None


def _read(place: Path) -> dict[str, tuple[Seen, str]]:
    """The marks in `place`; none where there is no file, or one that is damaged: then everything is hashed again."""
    try:
        raw = json.loads(place.read_bytes())
        return {name: ((mark[0], mark[1], mark[2], mark[3]), str(mark[4])) for name, mark in raw.items()}
    except (OSError, ValueError, AttributeError, IndexError, TypeError):
        return {}


def _seen(file: Path) -> Seen:
    try:
        stat = file.stat()
    except OSError as error:
        raise _gone(file, error) from None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _gone(file: Path, error: OSError) -> EnvironmentProblem:
    if isinstance(error, FileNotFoundError):
        return EnvironmentProblem(
            f"{file.parent}: a file vanished while the source was read; is the share still there?"
        )
    return EnvironmentProblem(f"{file.parent}: a file cannot be read: {error.strerror}")


def _being_written(file: Path) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"{file.parent}: a file changed while the source was read; read it once the export has ended"
    )
