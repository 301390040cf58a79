"""What `decoct doctor` looks at in a workspace: room, disk, keys, access, leftovers, clock, Prefect's database."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from flows.doctor.checked import Checked
from flows.environment import FREE_DISK_GIB
from flows.workspace.locks import holders
from flows.workspace.logs import read_log as read_stages
from pipeline.audit.history import FILE_NAME as HISTORY
from pipeline.core.errors import DecoctError
from pipeline.core.files.chained import found_chain
from pipeline.core.keys.custody.keyring import keys_of
from pipeline.sharing.policy.ledger import ledger_path
from pipeline.sharing.trust.log import log_path

FREE_NAMES: Final = 10_000  # files that can still be made
DATABASE_GIB: Final = 2
BUILT: Final = 2026  # no clock that is right says less
SLACK: Final = timedelta(minutes=5)
OTHERS: Final = 0o077
REMOTE: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "afs", "ceph"})
VOLATILE: Final = frozenset({"tmpfs", "ramfs"})


def disk(workspace: Path) -> Iterator[Checked]:
    """Room for a run, for another store as large as this one, and for names of files."""
    place = _existing(workspace)
    free = shutil.disk_usage(place).free
    yield Checked("disk", free >= FREE_DISK_GIB * 2**30, f"{free / 2**30:.0f} GiB free, {FREE_DISK_GIB} wanted")
    store = sum(path.lstat().st_size for path in (workspace / "store").rglob("*") if path.is_file())
    if store > free:
        yield Checked("disk", False, f"the store takes {store / 2**30:.0f} GiB, more than is free", grave=False)
    names = os.statvfs(place)
    if names.f_files:  # some file systems count none
        yield Checked("disk", names.f_favail >= FREE_NAMES, f"{names.f_favail} more files can be made")


def file_system(workspace: Path, mounts: Path = Path("/proc/self/mounts")) -> Iterator[Checked]:
    """What lies under the workspace: a share whose locks may not hold, memory that forgets; where code may not run."""
    found = mounted_at(_existing(workspace), mounts)
    if found is None:
        return
    kind, options = found
    told = f"the workspace lies on {kind}"
    if kind in REMOTE:
        told += ": locks and SQLite need a share that keeps them; a local disk is better"
    elif kind in VOLATILE:
        told += ": it is gone after a restart, keys included"
    elif "ro" in options:
        told += ", mounted read-only"
    yield Checked("file system", kind not in REMOTE | VOLATILE and "ro" not in options, told, grave="ro" in options)
    scratch = mounted_at(_existing(Path(os.environ.get("TMPDIR", "/tmp"))), mounts)
    if scratch is not None and "noexec" in scratch[1]:
        yield Checked("file system", False, "temporary files cannot be executed (noexec): set TMPDIR", grave=False)


def mounted_at(place: Path, mounts: Path) -> tuple[str, frozenset[str]] | None:
    """Kind and options of the file system that holds `place`; None where the system does not say."""
    try:
        lines = mounts.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    best: tuple[int, str, str] = (-1, "", "")
    for line in lines:
        fields = line.split()
        point = fields[1].encode().decode("unicode_escape")  # \040 stands for a space
        if place.is_relative_to(point) and len(point) >= best[0]:  # a later mount covers an earlier one
            best = (len(point), fields[2], fields[3])
    return None if best[0] < 0 else (best[1], frozenset(best[2].split(",")))


def keys(workspace: Path) -> Iterator[Checked]:
    """Each key, and their folder, is closed to everybody but its owner, who runs this."""
    folder = keys_of(workspace)
    if not folder.is_dir():
        return
    found = (*folder.glob("*.key"), *folder.glob("retired/*.key"), *folder.glob("identity.age"))
    for path in (folder, *sorted(found)):
        state = path.stat()
        closed = not stat.S_IMODE(state.st_mode) & OTHERS
        told = f"{path} is {'closed to' if closed else 'OPEN to'} group and others"
        mine = state.st_uid == os.geteuid()
        yield Checked("key", closed and mine, told if mine else f"{path} belongs to another user")


def configuration(path: Path) -> Iterator[Checked]:
    """Who may write the file of the nights, and by that have programs run as the site: its owner alone."""
    from flows.nights.pinned import programs
    from pipeline.core.config import load_config

    told = programs(load_config(path))
    named = [*told["notify_command"][:1], *told["plugins"], *filter(None, [told["reader"]])]
    runs = f"it names {', '.join(named)}, which run as you" if named else "it names no program"
    for place in (path.resolve(), path.resolve().parent):
        state = place.stat()
        wide = stat.S_IMODE(state.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
        mine = state.st_uid in (os.geteuid(), 0)
        who = "its owner alone" if not wide else "its group or others as well"
        written = f"{place} may be written by {who if mine else 'another user'}"
        yield Checked("configuration", mine and not wide, f"{written}; {runs}", grave=bool(named))


def access(workspace: Path) -> Iterator[Checked]:
    """Nobody else reads the store, the ledger, the log, the audit history or the runs' reports."""
    folders = [*(workspace / "store").glob("*"), *(workspace / "runs").glob("*")]
    files = [path for path in (ledger_path(workspace), log_path(workspace), workspace / HISTORY) if path.exists()]
    existing = [*folders, *files]
    wide = [path for path in existing if stat.S_IMODE(path.stat().st_mode) & OTHERS]
    for path in wide:
        yield Checked("access", False, f"{path} is open to group or others; run: chmod go= {path}")
    if existing and not wide:
        yield Checked("access", True, f"{len(existing)} places closed to group and others")


def histories(workspace: Path) -> Iterator[Checked]:
    """Ledger, log, audits, nights, pins and keys are as they were left; the site's bundles agree with the log."""
    from flows.doctor.lost import missing

    found = list(missing(workspace))
    yield from (Checked("histories", False, told) for _, told in found)
    if not found:
        yield Checked("histories", True, "as they were left")


def leftovers(workspace: Path) -> Iterator[Checked]:
    """What killed processes left; nothing of it harms. Who works here now is told."""
    working = holders(workspace)
    if working:
        yield Checked("leftovers", True, f"in use by {' and '.join(working)}")
        return
    staged = list((workspace / "store" / "tmp").glob("*"))
    folders = (workspace, workspace / "keys", workspace / "ledger", workspace / "proposals", workspace / "releases")
    hidden = [
        path
        for folder in (*folders, *(workspace / "runs").glob("*"))
        for path in folder.glob(".*")
        if path.suffix in (".new", ".draft", ".partial")
    ]
    count = len(staged) + len(hidden)
    told = f"{count} half-written pieces of killed runs; they do no harm" if count else "none"
    yield Checked("leftovers", not count, told, grave=False)


def clock(workspace: Path, now: datetime) -> Iterator[Checked]:
    """A year that can be, and no earlier than what was written last: limits of time and budgets rest on it."""
    if not BUILT <= now.year < BUILT + 50:
        yield Checked("clock", False, f"it says {now.year}")
        return
    last = max(_times(workspace), default=None)
    if last is not None and last > now + SLACK:
        told = f"it went backwards: {now.isoformat(timespec='minutes')}, and something here was written at "
        yield Checked("clock", False, told + last.isoformat(timespec="minutes"))
        return
    yield Checked(
        "clock", True, f"{now.isoformat(timespec='minutes')}" + (", after all that was written" if last else "")
    )


def _times(workspace: Path) -> Iterator[datetime]:
    """When log, ledger, nights and each run's stages were written last."""
    for path in (log_path(workspace), ledger_path(workspace), workspace / "nights" / "nights.jsonl"):
        try:
            entries: Sequence[Any] = found_chain(path).entries[-1:]
        except DecoctError:
            continue
        yield from (datetime.fromisoformat(entry["when"]) for entry in entries)
    for folder in (workspace / "runs").glob("*"):
        yield from (datetime.fromisoformat(entry["time"]) for entry in read_stages(folder)[-1:])


def prefect(workspace: Path) -> Iterator[Checked]:
    """A server that was named answers; the database of the embedded one can be read, and has not grown too large."""
    from flows.environment import quiet

    address = os.environ.get("PREFECT_API_URL", "")
    if address:
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        up = _answers(parts.hostname or "", port)
        yield Checked("Prefect", up, f"the server at {parts.hostname} {'answers' if up else 'does not answer'}")
        return
    before = os.environ.get("PREFECT_HOME")
    quiet(workspace)
    home = Path(os.environ.get("PREFECT_HOME", str(Path.home() / ".prefect")))
    if before is None:
        os.environ.pop("PREFECT_HOME", None)
    yield database(home / "prefect.db")


def database(path: Path) -> Checked:
    """Prefect's SQLite file: absent, sound, damaged or large."""
    if not path.exists():
        return Checked("Prefect", True, "no database yet; the first run makes one")
    size = path.stat().st_size / 2**30
    try:
        with sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5) as connection:
            sound = connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
        connection.close()
    except sqlite3.Error:
        sound = False
    if not sound:
        return Checked("Prefect", False, f"the database {path} is damaged; move it away, the next run makes a new one")
    told = f"the database is sound, {size:.2f} GiB"
    return Checked("Prefect", size < DATABASE_GIB, told, grave=False)


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError:
        return False
    return True


def _existing(place: Path) -> Path:
    """The place, or the nearest folder above it that is there."""
    return next(folder for folder in (place.resolve(), *place.resolve().parents) if folder.exists())
