"""keys/log.jsonl: who did what with which key, each line holding the digest of the one before.

A changed, removed or moved line is found, unless it was the last, or everything after it was written anew: whoever may
write the file can do that. So the last line's digest is printed with every share, to be kept by somebody else. No line
holds a secret.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, final

from pipeline.core.digest import digest_bytes
from pipeline.core.errors import EnvironmentProblem

LOG_FILE: Final = "log.jsonl"
BEGINNING: Final = "0" * 64  # what the first line names as the digest of the line before it


@final
@dataclass(frozen=True)
class KeyLog:
    """A log whose chain holds: its entries, oldest first, and the digest of its last line."""

    entries: tuple[Mapping[str, Any], ...]
    head: str


def read_log(keys: Path) -> KeyLog:
    """The log of the folder `keys`; empty if there is none.

    Raises:
        EnvironmentProblem: a line is not what was written; the sentence says which.
    """
    path = keys / LOG_FILE
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        lines = []
    except OSError as error:
        raise EnvironmentProblem(f"key log {path} cannot be read: {error.strerror}") from None
    entries, head = [], BEGINNING
    for number, line in enumerate(lines, start=1):
        entry = _parsed(line)
        if entry is None or (entry["line"], entry["previous"]) != (number, head):
            raise EnvironmentProblem(
                f"key log {path}: the chain breaks at line {number}; it or the line before it was changed, added or "
                f"removed"
            )
        entries.append(entry)
        head = digest_bytes(line)
    return KeyLog(tuple(entries), head)


def append_log(keys: Path, what: str, facts: Mapping[str, str | int]) -> str:
    """Add a line and wait until it is on the disk; returns its digest.

    Raises:
        EnvironmentProblem: the chain is broken already, or the disk refuses; nothing is written then.
    """
    path = keys / LOG_FILE
    try:
        keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # until closed: two commands at once make two lines
            log = read_log(keys)
            now = datetime.now(tz=UTC).isoformat(timespec="seconds")
            entry = {**facts, "line": len(log.entries) + 1, "when": now, "what": what, "previous": log.head}
            line = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode("ascii")
            stream.write(line + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise EnvironmentProblem(f"key log {path} cannot be written: {error.strerror}") from None
    return digest_bytes(line)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and {"line", "when", "what", "previous"} <= set(entry) else None
