"""What a receiver keeps of a bundle that it used: a line in its own log, its state, and a receipt for the site."""

from __future__ import annotations

import datetime
from pathlib import Path

from pipeline.core.errors import EnvironmentProblem
from pipeline.core.files.whole import put_whole
from pipeline.sharing.receive.receipt import receipt_bytes
from pipeline.sharing.receive.state import REVOCATIONS, STATE_FILE, memory_of, remember
from pipeline.sharing.receive.verify import VerifiedBundle
from pipeline.sharing.trust.log import append_log
from pipeline.sharing.trust.revocation import load_revocations
from pipeline.sharing.trust.root import load_trust_root, read_root


def record(verified: VerifiedBundle, root: Path, revocations: Path | None, today: datetime.date) -> Path:
    """Log, remember, and write the receipt; returns the receipt's path.

    Raises:
        ReleaseRefused: something newer was received in the meantime. EnvironmentProblem: the disk refuses.
    """
    take_note("receive", verified, root, revocations)
    receipt = memory_of(root) / "receipts" / f"{verified.statement[:16]}.receipt.json"
    try:
        receipt.parent.mkdir(exist_ok=True)
        put_whole(receipt, receipt_bytes(verified, today))
    except OSError as error:
        raise EnvironmentProblem(f"the receipt {receipt} cannot be written: {error.strerror}") from None
    return receipt


def take_note(what: str, verified: VerifiedBundle, root: Path, revocations: Path | None = None) -> None:
    """Log what is done with the bundle, and remember the bundle, so that no older one is taken after it.

    Raises:
        ReleaseRefused, EnvironmentProblem: as `record`.
    """
    memory, trusted, manifest = memory_of(root), load_trust_root(root), verified.manifest
    log_use(what, verified, root)
    listed = revocations or root.parent / REVOCATIONS
    revoked = load_revocations(listed, trusted) if revocations or listed.exists() else None
    remember(memory / STATE_FILE, trusted, read_root(root), manifest, verified.statement, revoked)


def log_use(what: str, verified: VerifiedBundle, root: Path) -> None:
    """A line in the receiver's log, beside the trust root.

    Raises:
        EnvironmentProblem: the disk refuses.
    """
    release = {name: verified.manifest[name] for name in ("site", "name", "version")}
    append_log(memory_of(root), what, {**release, "statement": verified.statement})
