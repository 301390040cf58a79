"""Before a bundle is sent: a proposal stays, and what leaves a workspace's releases is logged there."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.errors import ReleaseRefused
from pipeline.sharing.layout import ENVELOPE
from pipeline.sharing.receive.verify import read_folder
from pipeline.sharing.trust.log import append_log
from pipeline.sharing.trust.signing import statement_digest, statement_of


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
