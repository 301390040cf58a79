"""Is this the log that was here before, and is the time right? Asked whenever the ledger is opened.

How long ledger and log were is noted beside the keys (`pipeline.core.files.seen`). Each manifest of the site's own
releases and proposals holds a checkpoint of the log as it was then: so keys, ledger and log that were removed together
are found all the same. A bundle of the site's own that says nothing that can be read is told like one that contradicts;
the person in charge can say that it is lost (`flows.doctor.lost`). Time is asked too: a budget that comes back when
a period has passed rests on the clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pipeline.core.errors import BudgetError, ReleaseRefused
from pipeline.core.files.chained import Chain
from pipeline.sharing.layout import MANIFEST, PROPOSALS, RELEASES
from pipeline.sharing.trust.log import parse_checkpoint, require_extends

SLACK: Final = timedelta(minutes=5)
LEAP: Final = timedelta(days=90)
"""Longer than this nobody's clock is believed to have gone on since the last line that was written here."""

CLOCK: Final = "clock"
"""What the log calls the line by which somebody vouches for the clock."""


LOST: Final = "lost"
"""What the log calls the line by which somebody says that a file is lost for good, and that work goes on."""


def require_grown(workspace: Path, log: Chain) -> None:
    """The log goes on from what the site's own bundles have seen of it.

    Raises:
        BudgetError: it was cut, rewritten or begun anew, or a bundle cannot be asked; one sentence says which.
    """
    if why := log_reset(workspace, log):
        raise BudgetError(f"nothing was drawn: {why}")


def log_reset(workspace: Path, log: Chain) -> str:
    """What speaks against the log: a bundle of the site's own that saw another one, or that cannot be read; "" = none.

    Those that the log itself says are lost are not asked.
    """
    return next((why for _, why in contradictions(workspace, log)), "")


def contradictions(workspace: Path, log: Chain) -> Iterator[tuple[str, str]]:
    """Each such bundle, FOLDER/NAME, and a sentence about it."""
    lost = {str(entry.get("file")) for entry in log.entries if entry["what"] == LOST}
    for folder in (RELEASES, PROPOSALS):
        for path in sorted((workspace / folder).glob("[!.]*")):
            name = f"{folder}/{path.name}"
            if name in lost or not path.is_dir() or not any(path.iterdir()):  # nobody hides in an empty folder
                continue
            try:
                told = _log_in(path)
                if told is not None:
                    require_extends(log, parse_checkpoint(told, path.name), path.name)
            except ReleaseRefused as why:
                remedy = f"bring back the newest backup, or if it is lost for good, say so: decoct log lost {name}"
                yield name, f"{why}; {remedy}"


def _log_in(bundle: Path) -> Any:
    """What the bundle's manifest says of the log; None = it was made without one."""
    try:
        return json.loads((bundle / MANIFEST).read_bytes()).get("log")
    except (OSError, ValueError, AttributeError, RecursionError):
        raise ReleaseRefused(f"what {bundle.name} has seen of the log cannot be read") from None


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
