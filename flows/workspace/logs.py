"""A run's log for machines: a JSON object as a stage begins and one as it ends, in workspace/runs/NAME/log.jsonl.

What a stage raised comes scrubbed (`pipeline.core.redaction`): the log holds names of stages, digests, seconds and
clean sentences, never a patient's value. It is bounded: at `MAX_BYTES` the file becomes log.1.jsonl, in the place of
an older one. A log that cannot be written stops no stage. Nothing is sent anywhere; a collector may read the file.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from flows.environment import code_version
from flows.progress import say
from flows.stopping import begun, exit_code
from pipeline.core.errors import DecoctError, EnvironmentProblem
from pipeline.core.files.locked import locked
from pipeline.store import Made

LOG_FILE: Final = "log.jsonl"
OLDER_FILE: Final = "log.1.jsonl"
MAX_BYTES: Final = 2 << 20  # some five thousand lines: a hundred nights of a run with twenty stages
BEGAN, ENDED = "began", "ended"
PREFIX: Final = 12  # characters of a digest, enough to find it with `decoct show`

Tell = Callable[[Made[object] | None], None]
_names: Final[dict[str, str]] = {}


@contextmanager
def labelled(**names: str) -> Iterator[None]:
    """Put these on every line that this process writes meanwhile, so that a collector finds what belongs together."""
    before = dict(_names)
    _names.update(names)
    try:
        yield
    finally:
        _names.clear()
        _names.update(before)


@contextmanager
def logged(folder: Path, stage: str) -> Iterator[Tell]:
    """Write a line as the block begins and one as it ends, however; call what this yields with what the stage made.

    Put it outside `scrubbed`: what it sees raised is then one clean sentence. Whatever was raised goes on.
    """
    made: list[Made[object] | None] = [None]
    begin = time.monotonic()

    def tell(what: Made[object] | None) -> None:
        made[0] = what

    _append(folder, _common(folder, stage, BEGAN))
    try:
        yield tell
    except BaseException as error:
        _append(folder, _line(folder, stage, time.monotonic() - begin, None) | _failure(error))
        raise
    _append(folder, _line(folder, stage, time.monotonic() - begin, made[0]))


def read_log(folder: Path) -> tuple[dict[str, Any], ...]:
    """A run's lines of stages that ended, oldest first; lines that a killed writer left half-written are not read."""
    lines: list[dict[str, Any]] = []
    for name in (OLDER_FILE, LOG_FILE):
        try:
            data = (folder / name).read_bytes()
        except OSError:
            continue
        for raw in data.split(b"\n"):
            try:
                entry = json.loads(raw)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and isinstance(entry.get("time"), str) and entry.get("event") != BEGAN:
                lines.append(entry)
    return tuple(lines)


def _common(folder: Path, stage: str, event: str) -> dict[str, Any]:
    return _names | {
        "time": datetime.now(tz=UTC).isoformat(timespec="milliseconds"),
        "level": "info",
        "run": folder.name,
        "stage": stage,
        "event": event,
        "pid": os.getpid(),
        "code_version": code_version(),
    }


def _line(folder: Path, stage: str, seconds: float, made: Made[object] | None) -> dict[str, Any]:
    return _common(folder, stage, ENDED) | {
        "digests": [] if made is None else [digest[:PREFIX] for digest in made.digests],
        "seconds": round(seconds, 3),
        "reused": made is not None and made.reused,
        "exit_code": 0,
    }


def _failure(error: BaseException) -> dict[str, Any]:
    """What went wrong, in words of ours; anything else than our own errors is named by its type alone."""
    if begun() or not isinstance(error, Exception):  # Ctrl-C, or the signal that Prefect makes of a cancelled run
        return {"level": "warning", "exit_code": exit_code(), "sentence": "interrupted"}
    if isinstance(error, DecoctError):
        level = "error" if error.exit_code else "info"  # a night that is held has not failed
        return {"level": level, "exit_code": error.exit_code, "sentence": str(error)}
    return {"level": "error", "exit_code": DecoctError.exit_code, "sentence": type(error).__name__}


def _append(folder: Path, line: dict[str, Any]) -> None:
    data = json.dumps(line, sort_keys=True, allow_nan=False).encode("ascii") + b"\n"
    try:
        with locked(folder / f".{LOG_FILE}.lock"):
            path = folder / LOG_FILE
            if path.exists() and path.stat().st_size + len(data) > MAX_BYTES:
                path.replace(folder / OLDER_FILE)
            _write(path, data)
    except (OSError, EnvironmentProblem) as error:
        say(f"  the log of {folder.name} could not be written: {type(error).__name__}")


def _write(path: Path, data: bytes) -> None:
    """Append in one write; a line that a kill cut short is closed first, so that it spoils no other."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            data = b"\n" + data
        os.write(handle, data)
    finally:
        os.close(handle)
