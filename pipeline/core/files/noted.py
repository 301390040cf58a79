"""A small file that is replaced whole, whose absence would mean that nothing has happened: noted beside the keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.core.errors import EnvironmentProblem
from pipeline.core.files.locked import locked
from pipeline.core.files.owner import read_owner_file
from pipeline.core.files.seen import NOTHING, accept, changing, checked, name_of, settle, state_of, states
from pipeline.core.files.whole import put_whole


def read_noted(keys: Path, path: Path, what: str) -> bytes | None:
    """What the file holds; None = it is not there and never was. What was never noted is believed as it is.

    Raises:
        Lost: it is not as it was left. EnvironmentProblem: it is open to others, or cannot be read.
    """
    if name_of(keys, path) not in states(keys):  # keys that were copied into a new workspace
        return _found(path, what)
    return checked(keys, name_of(keys, path), lambda: _found(path, what), noted_state)


def replace_noted(keys: Path, path: Path, what: str, new: Callable[[bytes | None], bytes]) -> None:
    """Put what `new` makes of the file's content, None = there is none, in its place; one at a time.

    Raises:
        Lost, EnvironmentProblem: as `read_noted`, or the disk refuses.
    """
    with locked(path.parent / f".{path.name}.lock"):
        before = _found(path, what)
        if name_of(keys, path) not in states(keys):
            accept(keys, name_of(keys, path), noted_state(before))
        settle(keys, name_of(keys, path), noted_state(before))
        after = new(before)
        with changing(keys, name_of(keys, path), noted_state(before), noted_state(after)):
            try:
                put_whole(path, after, mode=0o600)
            except OSError as error:
                raise EnvironmentProblem(f"{path} cannot be written: {error.strerror}") from None


def noted_state(data: bytes | None) -> str:
    """The state of a file of this content."""
    return NOTHING if data is None else state_of("a file", data)


def _found(path: Path, what: str) -> bytes | None:
    return read_owner_file(path, what) if path.exists() else None
