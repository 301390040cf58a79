"""What a receiver gives back: which release arrived, and the checkpoint of the site's log that came with it.

A receipt holds the signed envelope, so that nobody has to believe the receiver either: the site's own signatures stand
under statement and checkpoint. Held against the site's log, or against another receiver's receipt, it shows a log that
was cut, rewritten, or shown differently to two receivers. Imports: the standard library, rfc8785, cryptography.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from pipeline.core.errors import ReleaseRefused
from pipeline.core.files.chained import Chain
from pipeline.sharing.canonical import canonical, read_canonical
from pipeline.sharing.layout import ENVELOPE
from pipeline.sharing.trust.log import Checkpoint, parse_checkpoint, require_extends
from pipeline.sharing.trust.signing import open_statement, statement_digest, statement_of

if TYPE_CHECKING:
    from pipeline.sharing.receive.verify import VerifiedBundle
    from pipeline.sharing.trust.keys import TrustRoot

FORMAT: Final = "decoct-receipt/1"
MAX_BYTES: Final = 1 << 20


@final
@dataclass(frozen=True)
class Receipt:
    """A release that arrived somewhere. `checkpoint` None: the release carried none."""

    name: str  # of the receipt's file, for sentences
    release: str  # site/name/version
    statement: str
    received: str
    checkpoint: Checkpoint | None


def receipt_bytes(verified: VerifiedBundle, received: datetime.date) -> bytes:
    """The receipt for a verified bundle, as a file."""
    envelope = base64.b64encode(verified.files[ENVELOPE]).decode("ascii")
    return canonical({"format": FORMAT, "received": received.isoformat(), "envelope": envelope})


def read_receipt(path: Path, root: TrustRoot | None = None) -> Receipt:
    """Read a receipt; with `root`, only one whose signatures are by keys that the root lists: nobody made it up.

    Raises:
        ReleaseRefused: absent, malformed, or not signed by those keys.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError:
        raise ReleaseRefused(f"there is no receipt that can be read at {path}") from None
    raw = read_canonical(data, f"receipt {path.name}") if len(data) <= MAX_BYTES else {}
    if set(raw) != {"format", "received", "envelope"} or raw["format"] != FORMAT:
        raise ReleaseRefused(f"receipt {path.name} is not one that this version knows; it reads {FORMAT}")
    try:
        envelope = base64.b64decode(raw["envelope"], validate=True)
    except (TypeError, ValueError):
        raise ReleaseRefused(f"receipt {path.name} holds text that is not base64") from None
    if root is not None:
        open_statement(envelope, root)
    told: Mapping[str, Any] = statement_of(envelope)["predicate"]
    if not isinstance(told, dict) or not {"site", "name", "version"} <= set(told):
        raise ReleaseRefused(f"receipt {path.name} does not say of which release it is")
    log = told.get("log")
    return Receipt(
        name=path.name,
        release=f"{told['site']}/{told['name']}/{told['version']}",
        statement=statement_digest(envelope),
        received=str(raw["received"]),
        checkpoint=None if log is None else parse_checkpoint(log, f"receipt {path.name}"),
    )


def require_consistent(receipts: Sequence[Receipt]) -> None:
    """No two receipts contradict each other.

    Raises:
        ReleaseRefused: one release with two contents, or one log with two views of the same length.
    """
    for number, one in enumerate(receipts):
        for other in receipts[:number]:
            if one.release == other.release and one.statement != other.statement:
                raise ReleaseRefused(f"{other.name} and {one.name} are of two different releases {one.release}")
            ours, theirs = one.checkpoint, other.checkpoint
            if ours is None or theirs is None or (ours.origin, ours.size) != (theirs.origin, theirs.size):
                continue
            if ours.root != theirs.root:
                raise ReleaseRefused(f"{other.name} and {one.name} saw two different logs: a split view")


def require_in_log(log: Chain, receipt: Receipt) -> None:
    """The log goes on from what the receipt saw, and says that the release was published.

    Raises:
        ReleaseRefused: it was cut, rewritten or begun anew, or does not know the release.
    """
    if receipt.checkpoint is None:
        raise ReleaseRefused(f"{receipt.name} holds no checkpoint: the release was made without a log")
    require_extends(log, receipt.checkpoint, receipt.name)
    published = [entry for entry in log.entries if entry["what"] == "publish"]
    if not any(entry.get("statement") == receipt.statement for entry in published):
        raise ReleaseRefused(f"the log lacks the release {receipt.release} of {receipt.name}: a line is missing")
