"""An append-only file of JSON lines, each holding the digest of the one before: the audit log and the epsilon ledger.

A changed, removed or moved line is found in the file itself; that it was cut at its end, written anew or removed, by
what was noted of it beside the keys (`pipeline.core.files.seen`). A line counts once it ends with a newline; what a
killed writer left of one was never acknowledged, is not read, and is cut off by the next writer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Final, final

from pipeline.core.errors import EnvironmentProblem
from pipeline.core.files.seen import NOTHING, accept, changing, checked, name_of, settle, states
from pipeline.core.files.whole import sync_folder

BEGINNING: Final = "0" * 64  # what the first line names as the digest of the line before it
OTHERS: Final = 0o077
OWN_KEYS: Final = frozenset({"line", "when", "what", "previous"})


@final
@dataclass(frozen=True, repr=False)
class Chain:
    """A file whose chain holds: its lines as bytes without newlines, and what they say; oldest first."""

    lines: tuple[bytes, ...]
    entries: tuple[Mapping[str, Any], ...]

    @property
    def head(self) -> str:
        """Hex SHA-256 of the last line."""
        return self.head_at(len(self.lines))

    def head_at(self, count: int) -> str:
        """Hex SHA-256 of the line `count`, counted from 1; of no line, `BEGINNING`."""
        return sha256(self.lines[count - 1]).hexdigest() if count else BEGINNING

    @property
    def state(self) -> str:
        """What is noted of it: how many lines, and their head."""
        return f"{len(self.lines)} lines {self.head}" if self.lines else NOTHING


@final
class Writer:
    """A chain under an exclusive lock; see `writing`."""

    def __init__(self, stream: BinaryIO, path: Path, keys: Path, chain: Chain) -> None:
        self._stream, self._path, self._keys, self.chain = stream, path, keys, chain

    def append(self, what: str, facts: Mapping[str, Any]) -> str:
        """Add a line and wait until it is on the disk; returns its digest.

        Raises:
            EnvironmentProblem: the disk refuses.
        """
        entry = {
            **facts,
            "line": len(self.chain.lines) + 1,
            "when": now(),
            "what": what,
            "previous": self.chain.head,
        }
        line = _line(entry)
        longer = Chain((*self.chain.lines, line), (*self.chain.entries, entry))
        with changing(self._keys, name_of(self._keys, self._path), self.chain.state, longer.state):
            try:
                self._stream.write(line + b"\n")
                self._stream.flush()
                os.fsync(self._stream.fileno())
            except OSError as error:
                raise EnvironmentProblem(f"{self._path} cannot be written: {error.strerror}") from None
        self.chain = longer
        return self.chain.head


def now() -> str:
    """The time in UTC, to the second, in ISO 8601."""
    return datetime.now(tz=UTC).isoformat(timespec="seconds")


def keys_beside(path: Path) -> Path:
    """Where the chain WORKSPACE/FOLDER/FILE is noted."""
    return path.parents[1] / "keys"


def read_chain(path: Path, keys: Path | None = None) -> Chain:
    """The chain in `path`, as it was left; empty where there is no file and there never was.

    Args:
        keys: where it is noted; None = as `keys_beside` says.

    Raises:
        Lost: it was longer, or another. EnvironmentProblem: as `found_chain`.
    """
    keys = keys_beside(path) if keys is None else keys
    return checked(keys, name_of(keys, path), lambda: found_chain(path), lambda chain: chain.state)


def found_chain(path: Path, *, owner_only: bool = True) -> Chain:
    """The chain in `path`, whether or not it is the one that was left there.

    Raises:
        EnvironmentProblem: open to others than its owner, unreadable, or a line is not what was written; says which.
    """
    try:
        with path.open("rb") as stream:
            if owner_only and os.fstat(stream.fileno()).st_mode & OTHERS:
                raise EnvironmentProblem(f"{path} is open to group or others; run: chmod 600 {path}")
            return _parsed(stream.read(), path)
    except FileNotFoundError:
        return Chain((), ())
    except OSError as error:
        raise EnvironmentProblem(f"{path} cannot be read: {error.strerror}") from None


@contextmanager
def writing(path: Path, keys: Path | None = None, *, adopt: bool = False) -> Iterator[Writer]:
    """Hold the file's lock: what is read, decided and appended inside happens as one step, whoever else writes.

    Args:
        adopt: a chain that was never noted is believed as it is, and noted.

    Raises:
        Lost, EnvironmentProblem: as `read_chain`, or the disk refuses.
    """
    import fcntl  # not on Windows, where bundles are verified and nothing is logged

    keys = keys_beside(path) if keys is None else keys
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise EnvironmentProblem(f"{path} cannot be written: {error.strerror}") from None
    with os.fdopen(handle, "r+b", buffering=0) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # until closed
        chain = found_chain(path)
        if adopt and name_of(keys, path) not in states(keys):
            accept(keys, name_of(keys, path), chain.state)
        settle(keys, name_of(keys, path), chain.state)
        whole = sum(len(line) + 1 for line in chain.lines)
        if os.fstat(stream.fileno()).st_size != whole:
            os.ftruncate(stream.fileno(), whole)
        if not chain.lines:
            sync_folder(path.parent)
        yield Writer(stream, path, keys, chain)


def _parsed(data: bytes, path: Path) -> Chain:
    lines = data.split(b"\n")[:-1]  # after the last newline: nothing, or what a killed writer left
    entries: list[Mapping[str, Any]] = []
    head = BEGINNING
    for number, line in enumerate(lines, start=1):
        entry = _entry(line)
        if entry is None or (entry["line"], entry["previous"]) != (number, head):
            raise EnvironmentProblem(
                f"{path}: the chain breaks at line {number}; it or the line before it was changed, added or removed"
            )
        entries.append(entry)
        head = sha256(line).hexdigest()
    return Chain(tuple(lines), tuple(entries))


def _line(entry: Mapping[str, Any]) -> bytes:
    """The one spelling of an entry. Raises ValueError: a number in it is none."""
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _entry(line: bytes) -> dict[str, Any] | None:
    """The entry in a line; None = it is not what a writer writes: a key twice, NaN, another spelling, no time."""
    try:
        entry = json.loads(line)
        if not isinstance(entry, dict) or not set(entry) >= OWN_KEYS or _line(entry) != line:
            return None
        return entry if type(entry["what"]) is str and datetime.fromisoformat(entry["when"]).tzinfo else None
    except (ValueError, TypeError, RecursionError):
        return None
