"""Is this the ledger that was here before? Asked whenever it is opened, of what does not lie beside it.

    keys/noise.seen            how long the ledger was after the last reservation, beside the noise key
    releases/*, proposals/*    each manifest holds a checkpoint of the log as it was then

So ledger and log that were removed or restored together are found, unless keys, releases and proposals went the same
way: then it is another site's workspace for all that can be seen here. Time is asked too: a budget that comes back when
a period has passed rests on the clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pipeline.core.errors import BudgetError, EnvironmentProblem, ReleaseRefused
from pipeline.core.files.chained import BEGINNING, Chain
from pipeline.core.files.owner import read_owner_file
from pipeline.core.files.whole import put_whole
from pipeline.core.keys.custody.keyring import keys_of
from pipeline.sharing.layout import MANIFEST, PROPOSALS, RELEASES
from pipeline.sharing.trust.log import Checkpoint, parse_checkpoint, require_extends

SEEN: Final = "noise.seen"
SLACK: Final = timedelta(minutes=5)
LEAP: Final = timedelta(days=90)
"""Longer than this nobody's clock is believed to have gone on since the last line that was written here."""

CLOCK: Final = "clock"
"""What the log calls the line by which somebody vouches for the clock."""


def require_grown(workspace: Path, ledger: Chain, log: Chain) -> None:
    """Ledger and log go on from what was seen of them: beside the noise key, and in the site's own bundles.

    Raises:
        BudgetError: one was cut, rewritten, begun anew or restored; one sentence says who saw more.
    """
    lines, head = _seen(workspace)
    if len(ledger.lines) < lines or ledger.head_at(lines) != head:
        raise BudgetError(
            f"nothing was drawn: {keys_of(workspace) / SEEN} has seen {lines} lines of the ledger, and "
            f"{len(ledger.lines)} or others are here; bring back the newest ledger and log from a backup"
        )
    if why := log_reset(workspace, log):
        raise BudgetError(f"nothing was drawn: {why}; bring back the newest ledger and log from a backup")


def log_reset(workspace: Path, log: Chain) -> str:
    """Which of the site's own bundles saw another log, or a longer one, in words; "" = none."""
    for bundle, seen in _checkpoints(workspace):
        try:
            require_extends(log, seen, bundle)
        except ReleaseRefused as why:
            return str(why)
    return ""


def keep_seen(workspace: Path, ledger: Chain) -> None:
    """Note beside the noise key how long the ledger is now.

    Raises:
        EnvironmentProblem: the disk refuses.
    """
    path = keys_of(workspace) / SEEN
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        put_whole(path, json.dumps({"lines": len(ledger.lines), "head": ledger.head}).encode())
        path.chmod(0o600)
    except OSError as error:
        raise EnvironmentProblem(f"{path} cannot be written: {error.strerror}") from None


def believed_now(ledger: Chain, log: Chain, period_days: int) -> datetime:
    """The clock's time, where what was written before does not speak against it.

    Raises:
        BudgetError: it went back, or it leapt so far that reservations would be forgiven that count by the last line.
    """
    now = datetime.now(tz=UTC)
    if any(_when(entry) > now + SLACK for entry in (*ledger.entries, *log.entries)):
        raise BudgetError("a line of the ledger or the log is dated in the future: set this machine's clock right")
    vouched = [entry for entry in log.entries if entry["what"] == CLOCK]  # what else is logged follows the clock too
    last = max(map(_when, (*ledger.entries, *vouched)), default=now)
    period = timedelta(days=period_days)
    reserved = [_when(entry) for entry in ledger.entries if entry["what"] != "begin"]
    if now - last > LEAP and any(last - period <= when < now - period for when in reserved):
        raise BudgetError(
            f"nothing was drawn: the clock says {now.date()}, {(now - last).days} days after the ledger's last line, "
            "and by that earlier queries would be forgiven; if it is right, say so once: decoct ledger --clock-is-right"
        )
    return now


def _when(entry: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(entry["when"])


def _seen(workspace: Path) -> tuple[int, str]:
    """How many lines the counter has seen, and the digest of the last; none where there is no counter yet.

    Raises:
        EnvironmentProblem: it is there and cannot be read.
    """
    path = keys_of(workspace) / SEEN
    if not path.exists():
        return 0, BEGINNING
    try:
        told = json.loads(read_owner_file(path, "the ledger's counter"))
        return int(told["lines"]), str(told["head"])
    except (ValueError, KeyError, TypeError):
        raise EnvironmentProblem(f"the ledger's counter {path} is damaged; bring it back from a backup") from None


def _checkpoints(workspace: Path) -> Iterator[tuple[str, Checkpoint]]:
    """Of each of the site's bundles that can be read: `decoct log verify` tells of those that cannot."""
    for folder in (RELEASES, PROPOSALS):
        for path in sorted((workspace / folder).glob(f"*/{MANIFEST}")):
            try:
                told = json.loads(path.read_bytes()).get("log")
                seen = None if told is None else parse_checkpoint(told, path.parent.name)
            except (OSError, ValueError, AttributeError, ReleaseRefused):
                continue
            if seen is not None:
                yield path.parent.name, seen
