"""The audit log of a workspace: held against all that could contradict it, and told of what is sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.core.errors import ReleaseRefused
from pipeline.core.files.chained import Chain
from pipeline.sharing.layout import ENVELOPE
from pipeline.sharing.receive.receipt import Receipt, require_in_log
from pipeline.sharing.receive.verify import read_folder
from pipeline.sharing.trust.log import append_log, parse_checkpoint, read_log, require_extends
from pipeline.sharing.trust.signing import statement_digest, statement_of


def checked_log(workspace: Path, receipts: Sequence[Receipt]) -> tuple[Chain, int]:
    """The log, and how many releases of the workspace agree with it.

    Raises:
        EnvironmentProblem: the chain is broken.
        ReleaseRefused: a release or a receipt saw another log, or one that was longer.
    """
    log = read_log(workspace)
    agreeing = 0
    for folder in ("releases", "proposals"):
        bundles = sorted(path for path in (workspace / folder).glob("*") if not path.name.startswith("."))
        for bundle in bundles:
            told = statement_of(read_folder(bundle)[ENVELOPE])["predicate"].get("log")
            if told is not None:
                require_extends(log, parse_checkpoint(told, bundle.name), bundle.name)
                agreeing += 1
    for receipt in receipts:
        require_in_log(log, receipt)
    return log, agreeing


def log_sending(bundle: Path, address: str) -> None:
    """Write the line "send" into the log of the workspace among whose releases the bundle lies; elsewhere, nothing.

    Raises:
        ReleaseRefused: the bundle is a proposal, or no bundle. EnvironmentProblem: the log cannot be written.
    """
    folder = bundle.resolve().parent
    if folder.name == "proposals":
        raise ReleaseRefused(f"{bundle.name} is a proposal; approve and publish it, then send the release")
    if folder.name != "releases":
        return
    envelope = read_folder(bundle)[ENVELOPE]
    told = statement_of(envelope)["predicate"]
    release = {name: told[name] for name in ("site", "name", "version")}
    where = address.rpartition("@")[2]  # whatever a name and password would stand before
    append_log(folder.parent, "send", {**release, "statement": statement_digest(envelope), "to": where})
