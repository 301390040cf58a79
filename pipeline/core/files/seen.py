"""What was here before: a file whose absence would mean "nothing has happened yet" cannot vanish in silence.

    keys/noise.seen    name -> the states in which the file may be: one, or two while it is being changed

A state is some words and a digest of what the file holds. It is noted beside the keys, where nobody but their owner
writes: both states before the file is changed, the new one alone after it, so that a kill in between is no loss. A file
that was emptied, cut, removed or replaced by an older copy is then in none of its states, and whoever reads it stops.
Removed together with its note it cannot be missed: the noise key lies in the same folder, and releases elsewhere hold
checkpoints of the log.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeVar

from pipeline.core.errors import EnvironmentProblem
from pipeline.core.files.locked import locked
from pipeline.core.files.owner import read_owner_file
from pipeline.core.files.whole import put_whole

T = TypeVar("T")

SEEN: Final = "noise.seen"
NOTHING: Final = ""
"""The state of a file that is not there, and of one that nobody has noted."""

ATTEMPTS: Final = 4
PAUSE_SECONDS: Final = 0.1

States = Mapping[str, tuple[str, ...]]


class Lost(EnvironmentProblem):
    """A file is not as it was left."""


def name_of(keys: Path, path: Path) -> str:
    """What a file is called: its path from the folder in which the keys' folder lies."""
    return path.relative_to(keys.parent).as_posix()


def state_of(words: str, data: bytes) -> str:
    """The state of a file of this content; `words` tell a reader how much it is."""
    return f"{words} {sha256(data).hexdigest()}"


def states(keys: Path) -> States:
    """What was noted of each file, by name; nothing where there is no note.

    Raises:
        EnvironmentProblem: the note is there and cannot be read.
    """
    path = keys / SEEN
    if not path.exists():
        return {}
    try:
        told = json.loads(read_owner_file(path, "the counter"))
        if not isinstance(told, dict) or not told:
            raise ValueError
        if any(type(each) is not list or not each or {*map(type, each)} != {str} for each in told.values()):
            raise ValueError
        return {str(name): tuple(each) for name, each in told.items()}
    except (ValueError, RecursionError):
        raise EnvironmentProblem(f"the counter {path} is damaged; bring it back from a backup") from None


def checked(keys: Path, name: str, read: Callable[[], T], state: Callable[[T], str]) -> T:
    """What `read` gives, where that is how the file was left; looked at again while somebody else is writing it.

    Raises:
        Lost: it is not. EnvironmentProblem: the note cannot be read.
    """
    for left in reversed(range(ATTEMPTS)):
        known = states(keys)  # before the file, which may be newer than this and then is read again, but never older
        found = read()
        if state(found) in known.get(name, (NOTHING,)):
            return found
        if left:
            time.sleep(PAUSE_SECONDS)
    raise Lost(sentence(keys, name, known, state(found)))


@contextmanager
def changing(keys: Path, name: str, before: str, after: str) -> Iterator[None]:
    """Inside, the file goes from the state `before` to `after`; whoever changes it holds its lock.

    Raises:
        Lost: it was not left as `before`. EnvironmentProblem: the disk refuses.
    """
    with locked(keys / f".{SEEN}.lock"):
        known = states(keys)
        _require(keys, name, known, before)
        if known.get(name, (NOTHING,)) != (after,):
            _write(keys, {**known, name: (before, after)})
        yield
        if known.get(name, (NOTHING,)) != (after,):
            _write(keys, {**known, name: (after,)})


def settle(keys: Path, name: str, state: str) -> None:
    """Take the state in which a killed writer left the file for the one that it has, so that no other is believed.

    Raises:
        Lost: it is in none of its states. EnvironmentProblem: the disk refuses.
    """
    if states(keys).get(name, (NOTHING,)) == (state,):
        return
    with locked(keys / f".{SEEN}.lock"):
        known = states(keys)
        _require(keys, name, known, state)
        if known.get(name) != (state,):
            _write(keys, {**known, name: (state,)})


def accept(keys: Path, name: str, state: str) -> tuple[str, ...]:
    """Believe the file as it is from now on, whatever was noted; returns what was.

    Raises:
        EnvironmentProblem: the disk refuses, or the note cannot be read.
    """
    with locked(keys / f".{SEEN}.lock"):
        known = states(keys)
        _write(keys, {**known, name: (state,)})
    return known.get(name, (NOTHING,))


def told(state: str) -> str:
    """A state in words: how much there was."""
    return state.rpartition(" ")[0] or "nothing"


def _require(keys: Path, name: str, known: States, state: str) -> None:
    if state not in known.get(name, (NOTHING,)):
        raise Lost(sentence(keys, name, known, state))


def sentence(keys: Path, name: str, known: States, state: str) -> str:
    """That a file is in none of its states, and what can be done."""
    was = told(known.get(name, (NOTHING,))[-1])
    return (
        f"{keys / SEEN} has seen {was} of {name}, and {told(state)} or others are here: it was removed, cut or "
        "damaged, or perhaps a backup of one of the two was restored; bring back the newest copies of both, or if it "
        f"is lost for good, say so: decoct log lost {name} --out {keys.parent}"
    )


def _write(keys: Path, known: States) -> None:
    path = keys / SEEN
    try:
        put_whole(path, json.dumps(known, sort_keys=True).encode(), mode=0o600)
    except OSError as error:
        raise EnvironmentProblem(f"{path} cannot be written: {error.strerror}") from None
