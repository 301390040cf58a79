"""The list of those who have withdrawn: where a workspace keeps it, and that it is the one that the audit log knows.

    workspace/withdrawn/list.json    marks of subjects, HMAC-SHA256 under list.key: the list is no list of ids
    workspace/withdrawn/list.key     made on first use, readable by its owner alone

Losing the list would bring people back who have withdrawn. So the log holds the list's digest before the list is
written, and nothing is read from a source while the two disagree.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from pipeline.core.digest import digest_json
from pipeline.core.errors import EnvironmentProblem
from pipeline.core.files.owner import read_owner_file, write_owner_file
from pipeline.core.files.whole import sync_folder
from pipeline.core.keys.secrets import read_or_create_secret, read_secret
from pipeline.ingest.withdrawn import NOBODY, Withdrawn
from pipeline.sharing.policy.opening import log_reset
from pipeline.sharing.trust.log import append_log, read_log

FOLDER: Final = "withdrawn"
PURPOSE: Final = "withdrawn"
ACT: Final = "forget"
"""What the log calls the line that comes before a longer list."""

_WHAT: Final = "the list of withdrawn subjects"
_MISSING: Final = "; the audit log knows one: run decoct forget again with the same ids, or bring it back from a backup"
_CUT_SHORT: Final = (
    "{} is not the list that the audit log last saw: a withdrawal was cut short, or a backup was restored; "
    "run decoct forget again with the same ids, or bring back the newest list"
)


def list_path(workspace: Path) -> Path:
    """Where a workspace keeps its list."""
    return workspace / FOLDER / "list.json"


def withdrawn_of(workspace: Path) -> Withdrawn:
    """The workspace's list, held against its log; nobody where none has withdrawn.

    Raises:
        EnvironmentProblem: the list or its key is gone, damaged or open to others, or it is not the one that the log
            last saw.
    """
    known = _logged(workspace)
    if known is None and not list_path(workspace).exists():
        return NOBODY
    found = _read(workspace)
    if known is not None and _digest(found) != known:
        raise EnvironmentProblem(_CUT_SHORT.format(list_path(workspace)))
    return found


def withdraw(workspace: Path, ids: Iterable[str]) -> tuple[Withdrawn, int]:
    """Put subjects on the list, first in the log; returns the list and how many were not on it before.

    Raises:
        EnvironmentProblem: the log is damaged, the list's key is gone, or the disk refuses.
    """
    before = _read(workspace) if list_path(workspace).exists() else _begin(workspace)
    known = _logged(workspace)
    asked = {before.mark(name) for name in ids}
    new = asked - before.marks
    after = Withdrawn(before.key, before.marks | asked)
    if known not in (None, _digest(before), _digest(after)):
        raise EnvironmentProblem(_CUT_SHORT.format(list_path(workspace)))
    if new:
        if known != _digest(after):
            append_log(workspace, ACT, {"subjects": len(new), "list": _digest(after)})
        _write(workspace, after)
    return after, len(new)


def tell_log(workspace: Path) -> None:
    """Put the list as it is on a log that was lost, so that the two agree again; nothing where nobody has withdrawn.

    Raises:
        EnvironmentProblem: as `withdraw`.
    """
    if list_path(workspace).exists():
        append_log(workspace, ACT, {"subjects": 0, "list": _digest(_read(workspace))})


def _write(workspace: Path, withdrawn: Withdrawn) -> None:
    path = list_path(workspace)
    draft = path.with_name(f".{path.name}.new")
    try:
        draft.unlink(missing_ok=True)  # of an attempt that was cut short
        write_owner_file(draft, json.dumps(sorted(withdrawn.marks)).encode(), _WHAT)
        draft.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise EnvironmentProblem(f"{path} cannot be written: {error.strerror}") from None


def _begin(workspace: Path) -> Withdrawn:
    return Withdrawn(read_or_create_secret(_key_path(workspace), PURPOSE).derive("marks"))


def _read(workspace: Path) -> Withdrawn:
    data = read_owner_file(list_path(workspace), _WHAT, _MISSING)
    if not _key_path(workspace).exists():
        raise EnvironmentProblem(f"{_key_path(workspace)} is gone, and with it what the list says: bring it back")
    key = read_secret(_key_path(workspace), PURPOSE).derive("marks")
    try:
        marks: Any = json.loads(data)
        return Withdrawn(key, frozenset(str(bytes.fromhex(mark).hex()) for mark in marks))
    except (ValueError, TypeError):
        raise EnvironmentProblem(f"{list_path(workspace)} is damaged; bring it back from a backup") from None


def _key_path(workspace: Path) -> Path:
    return workspace / FOLDER / "list.key"


def _digest(withdrawn: Withdrawn) -> str:
    return digest_json(sorted(withdrawn.marks))


def _logged(workspace: Path) -> str | None:
    """The digest of the list that the log's last line about it names."""
    log = read_log(workspace)
    if why := log_reset(workspace, log):
        raise EnvironmentProblem(f"nobody knows who has withdrawn: {why}; bring back the newest log and list")
    lines = [entry for entry in log.entries if entry["what"] == ACT]
    return str(lines[-1]["list"]) if lines else None
